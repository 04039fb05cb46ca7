"""Small Parquet files that carry their own name and the hashes of their bytes: no parser sees a changed byte.

    "PAR1" and row groups | sha256 of them | sha256 of that hash and all that follows | footer | its length | "PAR1"

Parquet tools never look between the last row group and the footer. The name is in the footer, under
"labelstore.name": two such files that have changed places are damaged, too.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from labelstore.errors import DamagedDatasetError
from labelstore.parquet_bounds import check_bounds
from labelstore.store import ReadableStore, read_range

__all__ = ["count_sealed_rows", "read_sealed_table", "seal_table"]

_HASH_BYTES = 32
_SEAL_BYTES = 2 * _HASH_BYTES
_TAIL_BYTES = 8  # footer length and "PAR1"
_NAME_KEY = b"labelstore.name"


def seal_table(table: pa.Table, *, name: str) -> bytes:
    """Return the bytes of a table's file, which must be stored under `name`."""
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_NAME_KEY: name.encode()}), buffer, compression="zstd")
    content = buffer.getvalue()
    start = len(content) - _footer_bytes(content)
    rows, footer = content[:start], content[start:]
    rows_hash = hashlib.sha256(rows).digest()
    return rows + rows_hash + hashlib.sha256(rows_hash + footer).digest() + footer


def read_sealed_table(store: ReadableStore, name: str, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table in a file, or some of its columns.

    Raises:
        DamagedDatasetError: the file is missing, or not what `seal_table` returned for this name.
    """
    rows_hash, footer = _read_footer(store, name)
    size = store.size(name)
    rows = read_range(store, name, 0, size - len(footer) - _SEAL_BYTES)
    if hashlib.sha256(rows).digest() != rows_hash:
        raise _damage(store, name, "its rows do not have the hash it states")
    metadata = _parse_footer(store, name, footer)
    try:
        for index in range(metadata.num_row_groups):
            check_bounds(metadata, index, num_bytes=size)
        return pq.ParquetFile(io.BytesIO(rows), metadata=metadata).read(columns=columns, use_threads=False)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise _damage(store, name, f"it does not decode ({error})") from error


def count_sealed_rows(store: ReadableStore, name: str) -> int:
    """Return how many rows a file has; only its footer is read and checked.

    Raises:
        DamagedDatasetError: as `read_sealed_table`.
    """
    _, footer = _read_footer(store, name)
    return int(_parse_footer(store, name, footer).num_rows)


def _read_footer(store: ReadableStore, name: str) -> tuple[bytes, bytes]:
    """Return the hash of the rows and the footer with its tail, both checked."""
    try:
        size = store.size(name)
    except FileNotFoundError as error:
        raise _damage(store, name, "the file is missing") from error
    tail = read_range(store, name, max(size - _TAIL_BYTES, 0), size)
    start = size - _footer_bytes(tail) - _SEAL_BYTES
    if len(tail) < _TAIL_BYTES or start < 0:
        raise _damage(store, name, "it is cut off, or no sealed Parquet file")
    content = read_range(store, name, start, size)
    rows_hash, seal, footer = content[:_HASH_BYTES], content[_HASH_BYTES:_SEAL_BYTES], content[_SEAL_BYTES:]
    if hashlib.sha256(rows_hash + footer).digest() != seal:
        raise _damage(store, name, "its footer does not have the hash it states")
    return rows_hash, footer


def _parse_footer(store: ReadableStore, name: str, footer: bytes) -> pq.FileMetaData:
    try:
        metadata = pq.read_metadata(io.BytesIO(b"PAR1" + footer))  # the parser wants a whole file
    except (pa.ArrowException, OSError) as error:
        raise _damage(store, name, f"its footer cannot be read ({error})") from error
    says = (metadata.metadata or {}).get(_NAME_KEY, b"").decode()
    if says != name:
        raise _damage(store, name, f"it says that it is {says}, so it was renamed")
    return metadata


def _footer_bytes(content: bytes) -> int:
    """Return the length of the footer with its 8-byte tail, which ends `content`."""
    return int.from_bytes(content[-_TAIL_BYTES:-4], "little") + _TAIL_BYTES


def _damage(store: ReadableStore, name: str, what: str) -> DamagedDatasetError:
    return DamagedDatasetError(f"{store}/{name}: {what}; the file is damaged")
