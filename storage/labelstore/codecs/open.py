"""The codec `open`: soft labels as plain list columns, exact, for any tool that reads Parquet.

R records, N labels, C candidates in a row group. Layout: FORMAT.md, "The codec open".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelstore.codecs.tally import Tally
from labelstore.labels import Labels
from labelstore.record import LabelRecord
from labelstore.schema import flat_list, list_column, offsets_of

__all__ = ["OpenCodec", "OpenLabels"]

_FLOATS = pa.list_(pa.float32())
_INTS = pa.list_(pa.int32())


class OpenCodec:
    """Writes float32 log-probabilities and int32 ids as they are; nothing is lost."""

    name = "open"
    is_exact = True
    uncompressed: ClassVar[frozenset[str]] = frozenset()
    # 174 bytes a label instead of 226 at K = 64 (zstd-9, SmolLM2, benchmarks/results/open-encodings-2026-11-24.md). Ids
    # would gain 12 bytes, but fewer readers know the encoding for integers.
    parquet_encodings: ClassVar[Mapping[str, str]] = {"logprobs.list.element.list.element": "BYTE_STREAM_SPLIT"}
    column_streams: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("target_logprobs", "target_ranks", "tail_mass", "entropy"), "target_and_tail"),
        **dict.fromkeys(("token_ids", "draw_counts"), "ids"),
        "logprobs": "values",
    }
    fields = (
        pa.field("target_logprobs", _FLOATS, nullable=False),
        pa.field("target_ranks", _INTS, nullable=False),
        pa.field("tail_mass", _FLOATS, nullable=False),
        pa.field("entropy", _FLOATS),
        pa.field("token_ids", pa.list_(_INTS), nullable=False),
        pa.field("logprobs", pa.list_(_FLOATS), nullable=False),
        pa.field("draw_counts", pa.list_(_INTS)),
    )

    @staticmethod
    def check_can_write() -> None:
        """It needs nothing else."""

    @staticmethod
    def train(
        records: Sequence[LabelRecord], *, vocab_size: int, num_labels_expected: int, is_constant_size: bool
    ) -> bytes:
        """Return an empty model: this codec knows nothing before it sees a label."""
        return b""

    def encoder(self, model: bytes) -> OpenCodec:
        return self

    def decoder(self, model: bytes) -> OpenCodec:
        return self

    @staticmethod
    def encode(records: Sequence[LabelRecord]) -> list[pa.Array]:
        """Return one column for each of `fields`, a row for each record's labels."""
        labels = [record.labels for record in records]
        by_record = offsets_of([len(part) for part in labels])
        by_label = offsets_of(np.concatenate([np.diff(part.candidate_offsets) for part in labels]))

        def of_labels(name: str, dtype: pa.DataType) -> pa.Array:
            values = [getattr(part, name) for part in labels]
            if any(value is None for value in values):
                return _all_or_none(values, name, pa.list_(dtype))
            return list_column(by_record, pa.array(np.concatenate(values), dtype))

        def of_candidates(name: str, dtype: pa.DataType) -> pa.Array:
            values = [getattr(part, name) for part in labels]
            if any(value is None for value in values):
                return _all_or_none(values, name, pa.list_(pa.list_(dtype)))
            flat = pa.array(np.concatenate([value.reshape(-1) for value in values]), dtype)
            return list_column(by_record, list_column(by_label, flat))

        return [
            of_labels("target_logprobs", pa.float32()),
            of_labels("target_ranks", pa.int32()),
            of_labels("tail_mass", pa.float32()),
            of_labels("entropy", pa.float32()),
            of_candidates("token_ids", pa.int32()),
            of_candidates("logprobs", pa.float32()),
            of_candidates("draw_counts", pa.int32()),
        ]

    @staticmethod
    def tally() -> Tally:
        """Nothing is lost, and the columns say what they take."""
        return Tally()

    @classmethod
    def decode(cls, table: pa.Table) -> OpenLabels:
        """Open the soft columns of one row group.

        Raises:
            ValueError: a column is missing, of another type, or disagrees with the others.
        """
        for field in cls.fields:
            if field.name not in table.column_names or not table.schema.field(field.name).type.equals(field.type):
                raise ValueError(f"column {field.name!r} must be there and be {field.type}")
        return OpenLabels(table)


class OpenLabels:
    """The soft columns of one row group as flat arrays; `row(i)` slices them without a copy."""

    def __init__(self, table: pa.Table) -> None:
        self._by_record, target_logprobs = flat_list(table, "target_logprobs")
        self._of_labels: dict[str, NDArray[Any] | None] = {"target_logprobs": target_logprobs}
        for name in ("target_ranks", "tail_mass", "entropy"):
            self._of_labels[name] = self._of_same_offsets(table, name)
        token_ids = table.column("token_ids").combine_chunks()
        if not np.array_equal(token_ids.offsets.to_numpy(), self._by_record):
            raise ValueError("columns 'token_ids' and 'target_logprobs' hold different numbers of labels")
        self._by_label = token_ids.values.offsets.to_numpy().astype(np.int64)
        self._of_candidates: dict[str, NDArray[Any] | None] = {
            name: self._candidates(table, name) for name in ("token_ids", "logprobs", "draw_counts")
        }

    @staticmethod
    def tolerance(labels: Labels) -> None:
        """Nothing is lost."""

    def row(self, row: int) -> Labels:
        """Return the labels of one record.

        Raises:
            ValueError: the values are not what labels may hold.
        """
        start, stop = int(self._by_record[row]), int(self._by_record[row + 1])
        offsets = self._by_label[start : stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        arrays: dict[str, Any] = {
            name: None if array is None else array[start:stop] for name, array in self._of_labels.items()
        }
        arrays.update(
            {name: None if array is None else array[first:last] for name, array in self._of_candidates.items()}
        )
        return Labels(candidate_offsets=offsets - first, **arrays)

    def _of_same_offsets(self, table: pa.Table, name: str) -> NDArray[Any] | None:
        if table.column(name).null_count == len(table):
            return None
        offsets, values = flat_list(table, name)
        if not np.array_equal(offsets, self._by_record):
            raise ValueError(f"columns {name!r} and 'target_logprobs' hold different numbers of labels")
        return values

    def _candidates(self, table: pa.Table, name: str) -> NDArray[Any] | None:
        column = table.column(name).combine_chunks()
        if column.null_count == len(table):
            return None
        if not np.array_equal(column.offsets.to_numpy(), self._by_record) or not np.array_equal(
            column.values.offsets.to_numpy(), self._by_label
        ):
            raise ValueError(f"columns {name!r} and 'token_ids' hold different numbers of candidates")
        values: NDArray[Any] = column.values.values.to_numpy(zero_copy_only=True)
        return values


def _all_or_none(values: Sequence[object], name: str, dtype: pa.DataType) -> pa.Array:
    if any(value is not None for value in values):
        raise ValueError(f"{name} must be there for all records of a row group or for none")
    return pa.nulls(len(values), dtype)
