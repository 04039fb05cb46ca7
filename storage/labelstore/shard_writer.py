"""Writes label records into one shard: a Parquet file with hard and soft columns, the codec's model and a hash list."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from labelstore.checksums import SealedShard, seal_shard
from labelstore.codecs import Codec
from labelstore.entry import LabelCounts, ShardEntry
from labelstore.header import FORMAT_VERSION
from labelstore.record import LabelRecord
from labelstore.record_checks import find_problems
from labelstore.schema import HARD_FIELDS, hard_columns, leaf_paths

__all__ = ["ShardWriter"]

# One row group is what a reader decodes to get at one record: 16 MiB of int32 + float32 candidates at K = 64.
MAX_CANDIDATES_PER_ROW_GROUP = 2**21
MAX_RECORDS_PER_ROW_GROUP = 1024
_ZSTD_LEVEL = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finished:
    sealed: SealedShard
    row_group_records: tuple[int, ...]
    counts: LabelCounts


class ShardWriter:
    """Writes records to a new file; use it as a context manager, then ask for `entry`.

    A body left by an exception deletes the file: it never looks finished.
    """

    def __init__(self, path: Path, *, codec: Codec, model: bytes, vocab_size: int, fingerprint: str) -> None:
        self._path = path
        self._codec = codec
        self._model = model
        self._encoder = codec.encoder(model)
        self._vocab_size = vocab_size
        self._metadata = {
            "labelstore.format_version": str(FORMAT_VERSION),
            "labelstore.codec": codec.name,
            "labelstore.fingerprint": fingerprint,
            "labelstore.vocab_size": str(vocab_size),
        }
        self._schema = pa.schema([*HARD_FIELDS, *codec.fields])
        self._pending: list[LabelRecord] = []
        self._pending_candidates = 0
        self._row_group_records: list[int] = []
        self._counts = LabelCounts()
        self._finished: _Finished | None = None
        packed = [path for path in leaf_paths(self._schema) if path.split(".", 1)[0] not in codec.uncompressed]
        self._parquet = pq.ParquetWriter(
            path,
            self._schema,
            compression={path: "ZSTD" if path in packed else "NONE" for path in leaf_paths(self._schema)},
            compression_level=dict.fromkeys(packed, _ZSTD_LEVEL),
            use_dictionary=["prompt_id", "finish_reason", "spans.list.element.kind", "messages.list.element.role"],
            column_encoding=dict(codec.parquet_encodings),
            write_statistics=["prompt_id"],
            write_page_checksum=True,
            store_schema=False,
        )

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc_type is not None:
            self._discard()
            return
        try:
            self._finish()
        except BaseException:
            self._discard()
            raise

    @property
    def num_labels(self) -> int:
        """Labels written so far."""
        return self._counts.num_labels

    def write(self, record: LabelRecord) -> None:
        """Append a record.

        Raises:
            ValueError: its values contradict each other; nothing of it is written.
        """
        for problem in find_problems(record, vocab_size=self._vocab_size):
            raise ValueError(f"record {record.record_id!r}: {problem}")
        self._pending.append(record)
        self._pending_candidates += record.labels.token_ids.size
        self._counts += LabelCounts.of(record)
        if self._pending_candidates >= MAX_CANDIDATES_PER_ROW_GROUP or len(self._pending) >= MAX_RECORDS_PER_ROW_GROUP:
            self._flush()

    def entry(self, name: str) -> ShardEntry:
        """Return the entry of the finished shard under its final name."""
        assert self._finished is not None, "the shard is not finished: leave the with block first"
        return ShardEntry(
            name=name,
            codec=self._codec.name,
            num_bytes=self._finished.sealed.num_bytes,
            sha256=self._finished.sealed.sha256,
            model_bytes=self._finished.sealed.model_bytes,
            footer_bytes=self._finished.sealed.footer_bytes,
            hash_list_sha256=self._finished.sealed.hash_list_sha256,
            row_group_records=self._finished.row_group_records,
            counts=self._finished.counts,
        )

    @property
    def sha256(self) -> str:
        """The finished file's hash in hex."""
        assert self._finished is not None, "the shard is not finished: leave the with block first"
        return self._finished.sealed.sha256

    def _flush(self) -> None:
        if not self._pending:
            return
        soft = self._encoder.encode(self._pending)
        table = pa.Table.from_arrays([*hard_columns(self._pending), *soft], schema=self._schema)
        self._parquet.write_table(table, row_group_size=len(table))
        self._row_group_records.append(len(table))
        self._pending, self._pending_candidates = [], 0

    def _finish(self) -> None:
        self._flush()
        self._parquet.add_key_value_metadata(self._metadata)
        self._parquet.close()
        sealed = seal_shard(self._path, num_hard=len(HARD_FIELDS), model=self._model)
        self._finished = _Finished(sealed=sealed, row_group_records=tuple(self._row_group_records), counts=self._counts)

    def _discard(self) -> None:
        try:
            self._parquet.close()
        finally:
            os.unlink(self._path)  # noqa: PTH108
