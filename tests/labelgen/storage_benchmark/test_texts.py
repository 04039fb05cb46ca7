"""The benchmark's texts: the same documents each time, none of them twice, split for good."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from labelgen.storage_benchmark.chats import chat_prompts
from labelgen.storage_benchmark.roff import strip_roff
from labelgen.storage_benchmark.texts import DOCUMENT_CHARS, read_documents


def make_text(seed: int, num_lines: int = 400) -> str:
    words = np.random.default_rng(seed).integers(0, 500, (num_lines, 8))
    return "\n".join(" ".join(f"w{word}" for word in line) for line in words) + "\n"


def make_folder(root: Path, num_files: int = 20) -> Path:
    for number in range(num_files):
        (root / f"text-{number}.txt").write_text(make_text(number))
    return root


def test_a_folders_documents_are_the_same_each_time_and_in_both_splits(tmp_path: Path) -> None:
    documents = read_documents(make_folder(tmp_path))
    assert documents == read_documents(tmp_path)
    assert len(documents) == 20
    assert {document.split for document in documents} == {"train", "test"}


def test_a_document_is_a_run_of_whole_lines_of_its_file(tmp_path: Path) -> None:
    for document in read_documents(make_folder(tmp_path)):
        assert DOCUMENT_CHARS / 2 < len(document.text) <= DOCUMENT_CHARS
        assert f"\n{document.text}" in f"\n{Path(document.name).read_text()}"
        assert document.text.endswith("\n")


def test_a_copy_of_a_document_is_left_out(tmp_path: Path) -> None:
    # A copy in the other split would be a text that a codec's tables were trained on.
    text = make_text(0, num_lines=60)
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.txt").write_text(text)
    assert len(read_documents(tmp_path)) == 1


def test_rows_of_a_jsonl_file_are_documents(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": make_text(seed)}) + "\n" for seed in range(30)))
    assert len(read_documents(path)) == 30


def test_one_text_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(make_text(0))
    with pytest.raises(ValueError, match=r"book\.txt: must be a folder of text files or a \.jsonl file"):
        read_documents(path)


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("too short\n")
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(ValueError, match="holds no text of 1500 characters or more"):
        read_documents(tmp_path)


def test_all_questions_about_a_topic_are_in_one_split() -> None:
    splits: dict[str, set[str]] = {}
    for prompt in chat_prompts():
        splits.setdefault(prompt.name.split("/")[0], set()).add(prompt.split)
    assert all(len(split) == 1 for split in splits.values())
    assert {"train"} in splits.values() and {"test"} in splits.values()


def test_a_manual_page_loses_its_marks() -> None:
    page = r""".\" A comment
.TH LS 1 "March 2024" "GNU" "User Commands"
.SH NOM
ls \- afficher le contenu
.SH "EN BREF"
.B ls
[\fIOPTION\/\fP]...
.ig
nothing of this
..
.TP 2m
.BR \-a ", " \-\-all
L\[u2019]option\ \(bu
"""
    assert strip_roff(page) == (
        "NOM\nls - afficher le contenu\n\nEN BREF\nls\n[OPTION]...\n\n-a ,  --all\nL’option *\n"
    )
