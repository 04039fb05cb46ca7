"""The list of hashes inside a shard, which makes each part of it checkable before a Parquet parser sees it.

A shard ends like this:

    row groups | model | hash list | Parquet footer | footer length (4 bytes) | "PAR1"

The model is what the codec needs to read the soft columns; the codec `open` has none. The hash list is the sha256 of
the footer (with its 8-byte tail), of the model, then for each row group of its hard columns' bytes and of its soft
columns' bytes: 32 * (2 + 2 * row groups) bytes. The dataset's entry holds the sha256 of
the list. Parquet tools never look between the last row group and the footer. Parquet's own page checksums do not
cover the footer, and a parser may crash on damaged bytes, so hashes come first.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from labelstore.local_files import LocalFile

__all__ = ["HASH_BYTES", "Range", "SealedShard", "column_ranges", "hash_file", "hash_list_bytes", "seal_shard"]

HASH_BYTES = 32
_TAIL_BYTES = 8  # footer length and "PAR1"


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes [start, stop) of a file."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedShard:
    """What an entry needs to know to check a shard."""

    num_bytes: int
    sha256: str  # of the whole file
    model_bytes: int
    footer_bytes: int  # footer, its length field and "PAR1"
    hash_list_sha256: str


def hash_list_bytes(num_row_groups: int) -> int:
    """Return the length of a shard's hash list in bytes."""
    return HASH_BYTES * (2 + 2 * num_row_groups)


def column_ranges(metadata: pq.FileMetaData, row_group: int, *, num_hard: int) -> tuple[Range, Range]:
    """Return the byte ranges of a row group's hard columns and of its soft columns, which stand in this order.

    `num_hard` counts Parquet columns; one column of the schema can be several.
    """
    group = metadata.row_group(row_group)

    def range_of(first: int, last: int) -> Range:
        return Range(
            _first_byte(group.column(first)), _first_byte(group.column(last)) + group.column(last).total_compressed_size
        )

    return range_of(0, num_hard - 1), range_of(num_hard, group.num_columns - 1)


def _first_byte(column: pq.ColumnChunkMetaData) -> int:
    first: int = column.data_page_offset
    return min(first, column.dictionary_page_offset) if column.has_dictionary_page else first


def seal_shard(path: Path, metadata: pq.FileMetaData, *, num_hard: int, model: bytes) -> SealedShard:
    """Insert model and hash list into a Parquet file just written; return the file's hashes. Syncs nothing.

    `metadata` is the file's footer, as it was written.
    """
    with LocalFile(path, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(size - _TAIL_BYTES)
        footer_bytes = int.from_bytes(file.read(4), "little") + _TAIL_BYTES
        file.seek(size - footer_bytes)
        footer = file.read()
        hashes = [hashlib.sha256(footer).digest(), hashlib.sha256(model).digest()]
        for row_group in range(metadata.num_row_groups):
            for part in column_ranges(metadata, row_group, num_hard=num_hard):
                file.seek(part.start)
                hashes.append(hashlib.sha256(file.read(part.stop - part.start)).digest())
        hash_list = b"".join(hashes)
        file.seek(size - footer_bytes)
        file.write(model + hash_list + footer)
    return SealedShard(
        num_bytes=size + len(model) + len(hash_list),
        sha256=hash_file(path),
        model_bytes=len(model),
        footer_bytes=footer_bytes,
        hash_list_sha256=hashlib.sha256(hash_list).hexdigest(),
    )


def hash_file(path: Path) -> str:
    """Return a file's sha256 in hex, reading it in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()
