"""A segment of the journal: some finished responses of one block, exact, in a small Parquet file named by its content.

Layout: FORMAT.md, "Beside the labels".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from labelstore.codecs.open import OpenCodec
from labelstore.errors import DamagedDatasetError
from labelstore.record import LabelRecord, record_id_of
from labelstore.schema import HARD_FIELDS, hard_columns
from labelstore.shard_reader import RowGroup

__all__ = ["RefusedResponse", "SegmentReader", "block_of_segment", "segment_bytes", "segment_name"]

_NAME = re.compile(r"(\d{6,})-([0-9a-f]{16})\.parquet")
_SCHEMA = pa.schema([*HARD_FIELDS, *OpenCodec.fields])
_ID_COLUMNS = ["prompt_id", "document_offset", "response_index"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedResponse:
    """A response or window that gives no record, and why; its prompt may have others that do."""

    prompt_id: str
    record_id: str  # of the record that it would have been
    reason: str


def segment_bytes(
    records: Sequence[LabelRecord], refused: Sequence[RefusedResponse], *, fingerprint: str, block_sha256: str
) -> bytes:
    """Return a segment's file. It lives for minutes, so that it is not compressed."""
    facts = {
        "labelstore.fingerprint": fingerprint,
        "labelstore.block_sha256": block_sha256,
        "labelstore.refused": json.dumps([asdict(response) for response in refused]),
    }
    schema = _SCHEMA.with_metadata(facts)
    columns = [*hard_columns(records), *OpenCodec.encode(records)] if records else []
    table = pa.Table.from_arrays(columns, schema=schema) if records else schema.empty_table()
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, row_group_size=max(len(table), 1), compression="NONE", use_dictionary=False, write_statistics=False
    )
    content: bytes = sink.getvalue().to_pybytes()
    return content


def segment_name(block: str, content: bytes) -> str:
    """Return the name of a block's segment."""
    return f"{block}-{_digest(content)}.parquet"


def block_of_segment(name: str) -> str | None:
    """Return the block that a file's name says it is a segment of; None for any other file."""
    match = _NAME.fullmatch(name)
    return None if match is None else match[1]


class SegmentReader:
    """A segment that was read whole, and whose bytes are those that its name says."""

    def __init__(self, name: str, content: bytes) -> None:
        """Check the bytes before a parser sees them.

        Raises:
            DamagedDatasetError: they are not those of this name, or are no segment.
        """
        self._name = name
        match = _NAME.fullmatch(name)
        if match is None or match[2] != _digest(content):
            raise DamagedDatasetError(f"{name}: its content does not have the hash in its name; it is damaged")
        try:
            self._parquet = pq.ParquetFile(pa.BufferReader(content))
            facts = self._parquet.metadata.metadata or {}
            self.fingerprint = facts[b"labelstore.fingerprint"].decode()
            self.block_sha256 = facts[b"labelstore.block_sha256"].decode()
            self.refused = [RefusedResponse(**row) for row in json.loads(facts[b"labelstore.refused"])]
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise self._damage(error) from error

    def record_ids(self) -> list[str]:
        """Return the ids of its records; of the labels nothing is decoded."""
        try:
            table = self._parquet.read(columns=_ID_COLUMNS)
            prompt_ids, offsets, responses = (table.column(name).to_pylist() for name in _ID_COLUMNS)
            return [record_id_of(*parts) for parts in zip(prompt_ids, offsets, responses, strict=True)]
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise self._damage(error) from error

    def records(self) -> list[LabelRecord]:
        """Return its records, each value as the teacher gave it.

        Raises:
            DamagedDatasetError: they do not decode.
        """
        try:
            table = self._parquet.read(use_threads=False)
            if len(table) == 0:
                return []
            labels = OpenCodec.decode(table)
            return list(RowGroup(table, labels, origin=self._name, index=0, first_record=0, earlier_tolerance=0.0))
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise self._damage(error) from error

    def _damage(self, error: Exception) -> DamagedDatasetError:
        return DamagedDatasetError(f"{self._name}: is no segment of a journal ({error})")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
