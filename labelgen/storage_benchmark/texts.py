"""The texts to be labelled: kinds of text that lie about on a Linux machine, or the user's own.

A document is a piece of some 3,000 characters, each of another file. Documents are split into `train`, which codecs may
learn their tables from, and `test`, which is measured. Nothing here is random: the same files give the same documents.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import re
import sysconfig
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labelgen.storage_benchmark.roff import strip_roff

__all__ = ["DEFAULT_KINDS", "Document", "Split", "default_documents", "read_documents", "split_of"]

Split = Literal["train", "test"]

DOCUMENT_CHARS = 3_000  # about 1,000 tokens
MIN_CHARS = 1_500
_TEST_SHARE = 5 / 13  # 25,000 test labels beside 40,000 to train on
_MAX_FILE_BYTES = 2_000_000
_SHINGLE_WORDS = 8
_MAX_DOCUMENTS = 240  # of a kind: twice what the labels need
_MAX_OF_FAMILY = 8  # files of one folder whose names begin alike (a tool's hundreds of manual pages)
_MAX_SEEN = 0.2  # of a document's shingles; above, it repeats another one (licence headers, copied pages)

_SHARE = Path("/usr/share")
_STDLIB = Path(sysconfig.get_paths()["stdlib"])
# Where each default kind is looked for: folder, pattern.
DEFAULT_KINDS: dict[str, list[tuple[Path, str]]] = {
    "english": [
        (_SHARE / "common-licenses", "*"),
        (_SHARE / "vim", "vim*/doc/*.txt"),
        (_SHARE / "doc/git", "*.txt*"),
        (_SHARE / "man", "man[1578]/*.gz"),
    ],
    "markdown": [
        (_SHARE / "doc/nodejs", "**/*.md"),
        (Path("/usr/lib/node_modules/npm"), "**/*.md"),
        (_SHARE / "doc", "*/*.md*"),
    ],
    "code": [(_STDLIB, "**/*.py")],
    "german-french": [(_SHARE / "man/de", "man*/*.gz"), (_SHARE / "man/fr", "man*/*.gz")],
}
_LEFT_OUT = {"test", "tests", "site-packages", "dist-packages", "changelogs", "encodings", "pydoc_data"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A piece of text, and what it may be used for."""

    name: str
    text: str
    split: Split


def default_documents(kind: str) -> list[Document]:
    """Return the documents of a default kind; none where nothing of it is installed."""
    paths = sorted({path.resolve() for folder, pattern in DEFAULT_KINDS[kind] for path in folder.glob(pattern)})
    kept = [path for path in paths if not set(path.parts) & _LEFT_OUT and "changelog" not in path.name.lower()]
    sources = [(str(path), functools.partial(_read_text, path)) for path in kept]
    return _to_documents(sources, max_of_family=_MAX_OF_FAMILY)


def read_documents(source: Path) -> list[Document]:
    """Return the documents of a folder (each file is one) or of a JSONL file (each row's `text` is one).

    Raises:
        ValueError: there is no such thing, or nothing in it is long enough.
    """
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.is_file())
        documents = _to_documents([(str(path), functools.partial(_read_text, path)) for path in paths])
    elif source.is_file() and source.suffix == ".jsonl":
        rows = [json.loads(line) for line in source.read_text().splitlines() if line.strip()]
        texts = [(f"{source}:{line}", str(row.get("text", ""))) for line, row in enumerate(rows, start=1)]
        documents = _to_documents([(name, functools.partial(str, text)) for name, text in texts])
    else:
        raise ValueError(
            f"--texts {source}: must be a folder of text files or a .jsonl file with 'text' rows: train and test are "
            f"split by document, so there must be many"
        )
    if not documents:
        raise ValueError(f"--texts {source}: holds no text of {MIN_CHARS} characters or more")
    return documents


def split_of(name: str) -> Split:
    """Return the split of a document by its name, the same on every machine."""
    return "test" if _hash(name) % 1_000 < 1_000 * _TEST_SHARE else "train"


def _to_documents(
    sources: Sequence[tuple[str, Callable[[], str]]], *, max_of_family: int | None = None
) -> list[Document]:
    """Cut one piece of each source, in an order that mixes folders, and leave out what repeats another."""
    documents: list[Document] = []
    seen, families = set[int](), Counter[str]()
    for name, read in sorted(sources, key=lambda source: _hash(source[0])):
        family = f"{Path(name).parent}/{re.split('[-_.]', Path(name).name)[0]}"
        if len(documents) == _MAX_DOCUMENTS or families[family] == max_of_family:
            continue
        piece = _cut_piece(read(), place=_hash(name))
        words = piece.split()
        shingles = {_hash_words(words[i : i + _SHINGLE_WORDS]) for i in range(len(words) - _SHINGLE_WORDS)}
        if len(piece) < MIN_CHARS or not shingles or len(shingles & seen) > _MAX_SEEN * len(shingles):
            continue
        seen |= shingles
        families[family] += 1
        documents.append(Document(name=name, text=piece, split=split_of(name)))
    return documents


def _hash_words(words: list[str]) -> int:
    """Return a hash of a run of words that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(" ".join(words).encode(), digest_size=8).digest(), "little")


def _cut_piece(text: str, *, place: int) -> str:
    """Return some DOCUMENT_CHARS of a text from a line's start to a line's end; `place` says where."""
    last_start = max(len(text) - DOCUMENT_CHARS, 0)
    wanted = place % (last_start + 1)
    start = text.rfind("\n", 0, wanted) + 1
    stop = min(start + DOCUMENT_CHARS, len(text))
    line_end = text.rfind("\n", start, stop) + 1
    return text[start : line_end or stop]


def _read_text(path: Path) -> str:
    """Return a file's text, manual pages without their marks; empty if it is none."""
    if path.stat().st_size > _MAX_FILE_BYTES:
        return ""
    data = path.read_bytes()
    try:
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (UnicodeDecodeError, OSError, EOFError):
        return ""
    if "man" in path.parts and path.suffix == ".gz":
        is_mdoc = "\n.Dd" in text or text.startswith(".Dd")
        return "" if is_mdoc else strip_roff(text)
    return "" if "\0" in text else text


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
