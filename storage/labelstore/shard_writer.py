"""Writes label records into one shard: a Parquet file with hard and soft columns, the codec's model and a hash list."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from labelstore.checksums import SealedShard, seal_shard
from labelstore.codecs import Codec
from labelstore.entry import LabelCounts, ShardEntry
from labelstore.header import FORMAT_VERSION
from labelstore.local_files import LocalFile, remove
from labelstore.record import LabelRecord
from labelstore.record_checks import find_problems
from labelstore.schema import HARD_FIELDS, NUM_HARD_COLUMNS, hard_columns, leaf_paths
from labelstore.stream_bytes import split_bytes

__all__ = ["ShardWriter"]

# One row group is what a reader hashes and opens to get at one record, and what is in memory while it is encoded: 2 MiB
# of int32 + float32 candidates, 4,096 labels at K = 64. Against 2^21 it costs 0.6 bytes a label and makes reading one
# record at random 2 (packed) to 6 times (open) as fast (benchmarks/results/row-groups-2026-11-24.md).
MAX_CANDIDATES_PER_ROW_GROUP = 2**18
MAX_RECORDS_PER_ROW_GROUP = 1024
_ZSTD_LEVEL = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finished:
    sealed: SealedShard
    row_group_records: tuple[int, ...]
    counts: LabelCounts
    stream_bytes: dict[str, int]


class _ShardFile(LocalFile):
    """The file of a shard, which may be given up."""

    _is_given_up = False

    def give_up(self) -> None:
        """Drop what is written from now on: a Parquet writer ends its file when it is collected, come what may."""
        self._is_given_up = True

    def write(self, content: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        return len(content) if self._is_given_up else super().write(content)


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
        self._earlier_tolerance = 0.0
        self._finished: _Finished | None = None
        self._file = _ShardFile(path, "wb")
        try:
            self._parquet = self._open_parquet()
        except BaseException:
            self._file.give_up()
            self._file.close()
            remove(path)
            raise

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

    @property
    def num_bytes(self) -> int:
        """Bytes on disk so far: of the row groups that are complete."""
        return self._file.tell()

    def write(
        self,
        record: LabelRecord,
        *,
        tolerance: NDArray[np.float64] | None = None,
        earlier_kl_nats: float = 0.0,
        is_checked: bool = False,
    ) -> None:
        """Append a record.

        `tolerance` [N] is what earlier codecs may have moved the square root of a probability by (None: nothing is
        lost), `earlier_kl_nats` their KL, as a mean over labels. `is_checked`: `find_problems` found nothing in the
        record when it came, and need not look again.

        Raises:
            ValueError: its values contradict each other; nothing of it is written.
        """
        for problem in () if is_checked else find_problems(record, vocab_size=self._vocab_size, tolerance=tolerance):
            raise ValueError(f"record {record.record_id!r}: {problem}")
        self._pending.append(record)
        self._pending_candidates += record.labels.token_ids.size
        self._counts += replace(LabelCounts.of(record), codec_kl_sum=earlier_kl_nats * len(record.labels))
        if tolerance is not None:
            self._earlier_tolerance = max(self._earlier_tolerance, float(tolerance.max(initial=0.0)))
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
            stream_bytes=self._finished.stream_bytes,
            earlier_tolerance=self._earlier_tolerance,
        )

    @property
    def sha256(self) -> str:
        """The finished file's hash in hex."""
        assert self._finished is not None, "the shard is not finished: leave the with block first"
        return self._finished.sealed.sha256

    def _open_parquet(self) -> pq.ParquetWriter:
        paths = leaf_paths(self._schema)
        packed = [path for path in paths if path.split(".", 1)[0] not in self._codec.uncompressed]
        return pq.ParquetWriter(
            self._file,
            self._schema,
            compression={path: "ZSTD" if path in packed else "NONE" for path in paths},
            compression_level=dict.fromkeys(packed, _ZSTD_LEVEL),
            use_dictionary=["prompt_id", "finish_reason", "spans.list.element.kind", "messages.list.element.role"],
            column_encoding=dict(self._codec.parquet_encodings),
            write_statistics=["prompt_id"],
            write_page_checksum=True,
            store_schema=False,
        )

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
        self._file.close()
        metadata = pq.read_metadata(self._path)
        sealed = seal_shard(self._path, metadata, num_hard=NUM_HARD_COLUMNS, model=self._model)
        tally = self._encoder.tally()
        self._finished = _Finished(
            sealed=sealed,
            row_group_records=tuple(self._row_group_records),
            counts=replace(self._counts, codec_kl_sum=self._counts.codec_kl_sum + tally.codec_kl_sum),
            stream_bytes=split_bytes(metadata, sealed, codec=self._codec, tally=tally),
        )

    def _discard(self) -> None:
        self._file.give_up()
        with contextlib.suppress(OSError, ValueError, pa.ArrowException):
            self._parquet.close()
        self._file.close()
        remove(self._path)
