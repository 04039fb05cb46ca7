"""What people have their prompts in: JSONL, Parquet, stdin, and plain text files to score."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from labelgen.prompts.prompt import Prompt, Reject, Task, parse_row

__all__ = ["STDIN", "check_source", "read_source"]

STDIN = "-"
_TABLES = (".parquet",)
_LINES = (".jsonl", ".ndjson", ".json")
_DOCUMENTS = (".txt", ".md", ".py")


def check_source(source: str, *, task: Task) -> None:
    """Refuse a source that cannot be read, before anything else starts.

    Raises:
        ValueError: it does not exist, is empty, or is of a kind that this task cannot read.
    """
    if source == STDIN:
        return
    path = Path(source)
    if not path.exists():
        raise ValueError(f"{source}: no such file")
    if path.is_dir():
        raise ValueError(f"{source}: is a folder; give its files, as in {source}/*{_LINES[0]}")
    kinds = _LINES + _TABLES + (_DOCUMENTS if task == "score" else ())
    if path.suffix not in kinds:
        raise ValueError(
            f"{source}: cannot tell what is in a {path.suffix or 'nameless'} file; give {', '.join(kinds)}"
        )
    if path.stat().st_size == 0:
        raise ValueError(f"{source}: the file is empty")
    if path.suffix in _TABLES:
        try:
            pq.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{source}: is not a Parquet file ({error})") from error


def read_source(source: str, *, task: Task, columns: Sequence[str] = ()) -> Iterator[Prompt | Reject]:
    """Yield each row of a source as a prompt, or as a reject that says why it is none."""
    suffix = Path(source).suffix
    if source == STDIN:
        yield from _parse(_json_lines(sys.stdin.buffer, source), task, source, columns)
    elif suffix in _TABLES:
        yield from _parse(_table_rows(source), task, source, columns)
    elif suffix in _LINES:
        with Path(source).open("rb") as file:
            yield from _parse(_json_lines(file, source), task, source, columns)
    else:
        yield _document(source, columns)


def _parse(
    rows: Iterable[tuple[int, object]], task: Task, source: str, columns: Sequence[str]
) -> Iterator[Prompt | Reject]:
    for line, row in rows:
        yield row if isinstance(row, Reject) else parse_row(row, task=task, source=source, line=line, columns=columns)


def _json_lines(file: BinaryIO, source: str) -> Iterator[tuple[int, object]]:
    for line, data in enumerate(file, start=1):
        if not data.strip():
            continue
        try:
            yield line, json.loads(data.decode("utf-8-sig" if line == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            yield line, Reject(source=source, line=line, reason=f"is not UTF-8: {error}")
        except (ValueError, RecursionError) as error:
            yield line, Reject(source=source, line=line, reason=f"is not JSON: {error}")


def _table_rows(source: str) -> Iterator[tuple[int, object]]:
    line = 0
    batches = pq.ParquetFile(source).iter_batches(batch_size=1024)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{source}: is damaged after row {line} ({error})") from error
        if batch is None:
            return
        for row in batch.to_pylist():
            line += 1
            if isinstance(row.get("messages"), list):  # a table gives every message the keys of all messages
                row["messages"] = [_without_nulls(message) for message in row["messages"]]
            yield line, row


def _without_nulls(message: object) -> object:
    if not isinstance(message, dict):
        return message
    return {key: value for key, value in message.items() if value is not None or key == "content"}


def _document(source: str, columns: Sequence[str]) -> Prompt | Reject:
    try:
        text = Path(source).read_bytes().decode()
    except UnicodeDecodeError as error:
        return Reject(source=source, line=1, reason=f"is not UTF-8: {error}")
    return parse_row({"id": source, "text": text}, task="score", source=source, line=1, columns=columns)
