"""The rows of a file, whatever its format: JSON lines, CSV and TSV, Parquet, or a document that is one row.

A reader yields (line, row). A row that cannot be read is a BadRow that says why; the reading goes on behind it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow.parquet as pq

__all__ = ["MAX_ROW_BYTES", "BadRow", "read_csv", "read_document", "read_json_lines", "read_parquet", "without_nulls"]

# Some four million tokens, more than a context holds; a longer line is a file without line breaks, and is not kept.
MAX_ROW_BYTES = 1 << 24
_PARQUET_BATCH_ROWS = 256
_PARQUET_BUFFER_BYTES = 1 << 20  # read a column in pieces: a row group may be larger than memory


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read, and why."""

    reason: str


def read_json_lines(file: BinaryIO) -> Iterator[tuple[int, object]]:
    """Yield each line's JSON value; blank lines are left out."""
    for line, data in _lines(file):
        if data is None:
            yield line, _TOO_LONG
        elif data.strip():
            yield line, _parse_json(data, is_first=line == 1)


def read_csv(file: BinaryIO, *, delimiter: str) -> Iterator[tuple[int, object]]:
    """Yield each row as an object of strings under the names in the header; a row's line is its first.

    Raises:
        ValueError: the header is missing, or names a column twice.
    """
    csv.field_size_limit(MAX_ROW_BYTES)
    lines = _CsvLines(file)
    rows = csv.reader(lines, delimiter=delimiter)
    header: list[str] | None = None
    while True:
        first_line = lines.line + 1
        try:
            cells = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            yield first_line, BadRow(f"is not CSV: {error}")
            continue
        if lines.was_too_long:
            lines.was_too_long = False
            yield lines.line, _TOO_LONG
        elif not cells:
            continue
        elif header is None:
            header = _checked_header(cells)
        elif not _is_unicode(cells):
            yield first_line, BadRow("is not UTF-8")
        elif len(cells) != len(header):
            yield first_line, BadRow(f"has {len(cells)} fields, the header has {len(header)}")
        else:
            yield first_line, dict(zip(header, cells, strict=True))


def read_parquet(file: BinaryIO, *, columns: Sequence[str]) -> Iterator[tuple[int, object]]:
    """Yield each row with those of its columns that are asked for.

    Raises:
        pyarrow.ArrowException, OSError: the file is damaged.
    """
    table = pq.ParquetFile(file, buffer_size=_PARQUET_BUFFER_BYTES)
    there = [name for name in columns if name in table.schema_arrow.names]
    line = 0
    for batch in table.iter_batches(batch_size=_PARQUET_BATCH_ROWS, columns=there):
        for row in batch.to_pylist():
            line += 1
            yield line, without_nulls(row)


def read_document(file: BinaryIO, *, name: str, text_field: str) -> Iterator[tuple[int, object]]:
    """Yield a whole file as one row, with the file's name as its id."""
    try:
        yield 1, {"id": name, text_field: file.read().decode()}
    except UnicodeDecodeError as error:
        yield 1, BadRow(f"is not UTF-8: {error}")


def without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """Return a table's row without what the table adds: every message has the keys of all messages there."""
    for name, value in row.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping) and "role" in value[0]:
            row[name] = [
                {key: part for key, part in message.items() if part is not None or key == "content"}
                if isinstance(message, Mapping)
                else message
                for message in value
            ]
    return row


_TOO_LONG = BadRow(f"is longer than {MAX_ROW_BYTES >> 20} MiB")


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line with its number; None for one that is too long, which is skipped in pieces."""
    line = 0
    while data := file.readline(MAX_ROW_BYTES + 1):
        line += 1
        if len(data) <= MAX_ROW_BYTES or data.endswith(b"\n"):
            yield line, data
            continue
        while data and not data.endswith(b"\n"):
            data = file.readline(MAX_ROW_BYTES)
        yield line, None


def _parse_json(data: bytes, *, is_first: bool) -> object:
    try:
        return json.loads(data.decode("utf-8-sig" if is_first else "utf-8"))
    except UnicodeDecodeError as error:
        return BadRow(f"is not UTF-8: {error}")
    except (ValueError, RecursionError) as error:
        return BadRow(f"is not JSON: {error}")


class _CsvLines:
    """The lines of a CSV file as text; bytes that are no UTF-8 become half surrogates, a too long line an empty one."""

    def __init__(self, file: BinaryIO) -> None:
        self._lines = _lines(file)
        self.line = 0
        self.was_too_long = False

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        self.line, data = next(self._lines)
        if data is None:
            self.was_too_long = True
            return "\n"
        return data.decode("utf-8-sig" if self.line == 1 else "utf-8", errors="surrogateescape")


def _checked_header(cells: list[str]) -> list[str]:
    if len(set(cells)) != len(cells):
        twice = next(name for name in cells if cells.count(name) > 1)
        raise ValueError(f"the header names the column {twice!r} twice")
    return cells


def _is_unicode(cells: list[str]) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True
