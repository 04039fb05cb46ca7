from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelgen.prompts.prompt import Prompt, Reject, Task, parse_row
from labelgen.prompts.sources import check_source, read_source


def parsed(row: object, task: Task = "generate", columns: tuple[str, ...] = ()) -> Prompt | Reject:
    return parse_row(row, task=task, source="s", line=3, columns=columns)


CHAT = [{"role": "user", "content": "hi"}]


def test_a_row_without_id_is_named_by_its_content() -> None:
    first, again, other = (parsed({"prompt": text}) for text in ("a", "a", "b"))
    assert isinstance(first, Prompt) and isinstance(again, Prompt) and isinstance(other, Prompt)
    assert first.prompt_id == again.prompt_id == first.content_hash[:16]
    assert first.prompt_id != other.prompt_id


def test_ids_may_be_integers_and_columns_are_kept() -> None:
    prompt = parsed({"id": 7, "messages": CHAT, "topic": "x", "other": 1}, columns=("topic",))
    assert isinstance(prompt, Prompt)
    assert prompt.prompt_id == "7" and prompt.kept == {"topic": "x"} and prompt.messages == CHAT


@pytest.mark.parametrize(
    ("row", "task", "reason"),
    [
        ({"question": "hi"}, "generate", "a row needs 'prompt' or 'messages', this one has 'question'"),
        ({}, "generate", "this one has nothing"),
        ({"prompt": "a", "messages": CHAT}, "generate", "either 'prompt' or 'messages', not both"),
        ({"prompt": "hi"}, "score", "a row needs 'text', this one has 'prompt'"),
        ({"prompt": ""}, "generate", "'prompt' is empty"),
        ({"prompt": 5}, "generate", "'prompt' must be a string, got int"),
        ({"prompt": "\ud800"}, "generate", "half of a surrogate pair"),
        ({"messages": []}, "generate", "at least one message"),
        ({"messages": "hi"}, "generate", "at least one message"),
        ({"messages": [{"content": "hi"}]}, "generate", "message 0 must be an object with a string 'role'"),
        ({"messages": [{"role": "user", "content": 5}]}, "generate", "message 0: 'content' must be a string, got int"),
        ({"messages": [{"role": "\udc00", "content": "x"}]}, "generate", "half of a surrogate pair"),
        ({"id": True, "prompt": "hi"}, "generate", "'id' must be a string or an integer, got bool"),
        ({"id": [1], "prompt": "hi"}, "generate", "'id' must be a string or an integer, got list"),
        ({"id": "\ud800", "prompt": "hi"}, "generate", "'id' holds half of a surrogate pair"),
        ([1], "generate", "a row must be an object, got list"),
        ("hi", "generate", "a row must be an object, got str"),
    ],
)
def test_a_bad_row_says_why(row: object, task: Task, reason: str) -> None:
    reject = parsed(row, task)
    assert isinstance(reject, Reject)
    assert reason in reject.reason and reject.line == 3


def test_a_missing_column_is_null() -> None:
    prompt = parsed({"prompt": "a"}, columns=("topic",))
    assert isinstance(prompt, Prompt) and prompt.kept == {"topic": None}


def test_a_kept_column_must_be_json_to_come_back_as_it_was() -> None:
    reject = parsed({"prompt": "a", "x": float("nan")}, columns=("x",))
    assert isinstance(reject, Reject) and "holds NaN or infinity" in reject.reason


def test_bad_lines_do_not_end_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n\nnot json\n{"prompt": "\xff"}\n' + b"[" * 100_000 + b'\n{"prompt": "b"}')
    rows = list(read_source(str(path), task="generate"))
    assert [(row.line, type(row).__name__) for row in rows] == [
        (1, "Prompt"),
        (3, "Reject"),
        (4, "Reject"),
        (5, "Reject"),
        (6, "Prompt"),
    ]
    reasons = [row.reason for row in rows if isinstance(row, Reject)]
    assert "is not JSON" in reasons[0] and "is not UTF-8" in reasons[1] and "is not JSON" in reasons[2]


def test_parquet_gives_what_jsonl_gives(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "messages": [{"role": "user", "content": "x"}]},
        {"id": "b", "messages": [{"role": "user", "content": "y"}, {"role": "tool", "content": "4", "name": "f"}]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    from_table, from_lines = (
        [
            prompt.content_hash
            for prompt in read_source(str(tmp_path / name), task="generate")
            if isinstance(prompt, Prompt)
        ]
        for name in ("p.parquet", "p.jsonl")
    )
    assert from_table == from_lines and len(from_lines) == 2


def test_a_text_file_is_a_document(tmp_path: Path) -> None:
    path = tmp_path / "book.md"
    path.write_text("# Title\n\ntext\n")
    (prompt,) = read_source(str(path), task="score")
    assert isinstance(prompt, Prompt) and prompt.text == "# Title\n\ntext\n" and prompt.prompt_id == str(path)
    path.write_bytes(b"\xff\xfe")
    (reject,) = read_source(str(path), task="score")
    assert isinstance(reject, Reject) and "is not UTF-8" in reject.reason


def test_a_source_that_cannot_be_read_is_refused_at_once(tmp_path: Path) -> None:
    for name, content, message in [
        ("empty.jsonl", b"", "the file is empty"),
        ("p.docx", b"x", r"cannot tell what is in a \.docx file"),
        ("p.txt", b"x", r"cannot tell what is in a \.txt file"),
        ("p.parquet", b"not parquet", "is not a Parquet file"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            check_source(str(tmp_path / name), task="generate")
    with pytest.raises(ValueError, match="no such file"):
        check_source(str(tmp_path / "missing.jsonl"), task="generate")
    with pytest.raises(ValueError, match="is a folder"):
        check_source(str(tmp_path), task="generate")
