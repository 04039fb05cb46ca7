"""What others would store of the same labels: plain lists in Parquet, packed bits, an entropy bound, everything.

None of them keeps the target's own log-probability, its rank or the tail mass; their losses are counted as if they did,
exactly, and for nothing. N labels with C candidates in all.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from labelstore.labels import Labels
from labelstore.schema import list_column, offsets_of

__all__ = [
    "LIST_FORMATS",
    "REFERENCE",
    "CurveSetting",
    "ListFormat",
    "bit_packed_bytes",
    "curve_settings",
    "entropy_bound_bytes",
    "full_float16_bytes",
    "on_grid",
    "rounded_to_float16",
]

BOUND_STEP = 1 / 8  # nats


@dataclass(frozen=True, slots=True, kw_only=True)
class ListFormat:
    """Candidates as list columns of a Parquet file, a row for each sequence."""

    name: str
    id_type: pa.DataType
    logprob_type: pa.DataType
    compression: str
    level: int | None
    is_split: bool = False  # by Parquet's BYTE_STREAM_SPLIT, instead of dictionaries
    num_rows_per_group: int = 1_000  # what `datasets` writes

    @property
    def is_slow(self) -> bool:
        """Whether writing takes seconds where others take a tenth of one."""
        return self.compression == "zstd" and self.level == 19

    def write(self, labels: Sequence[Labels], path: Path) -> None:
        by_record = offsets_of([len(part) for part in labels])
        by_label = offsets_of(np.concatenate([np.diff(part.candidate_offsets) for part in labels]))

        def column(name: str, dtype: pa.DataType) -> pa.Array:
            flat = np.concatenate([getattr(part, name).reshape(-1) for part in labels])
            values = pa.array(flat.astype(dtype.to_pandas_dtype()), dtype)
            return list_column(by_record, list_column(by_label, values))

        columns = {"token_ids": column("token_ids", self.id_type), "logprobs": column("logprobs", self.logprob_type)}
        if labels[0].draw_counts is not None:
            columns["draw_counts"] = column("draw_counts", self.id_type)
        encoding = {f"{name}.list.element.list.element": "BYTE_STREAM_SPLIT" for name in columns}
        pq.write_table(
            pa.table(columns),
            path,
            compression=self.compression,
            compression_level=self.level,
            row_group_size=self.num_rows_per_group,
            use_dictionary=not self.is_split,
            column_encoding=encoding if self.is_split else None,
        )

    @staticmethod
    def read(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return all ids and logprobs, flat [C]."""
        table = pq.read_table(path, use_threads=False)

        def flat(name: str) -> NDArray[Any]:
            values: NDArray[Any] = table[name].combine_chunks().flatten().flatten().to_numpy(zero_copy_only=False)
            return values

        return flat("token_ids"), flat("logprobs")


REFERENCE = "int32 + float16 lists, zstd-9"
LIST_FORMATS = [
    ListFormat(
        name="int64 + float32 lists, as datasets writes",
        id_type=pa.int64(),
        logprob_type=pa.float32(),
        compression="snappy",
        level=None,
    ),
    *(
        ListFormat(
            name=f"int32 + float16 lists, zstd-{level}",
            id_type=pa.int32(),
            logprob_type=pa.float16(),
            compression="zstd",
            level=level,
        )
        for level in (3, 9, 19)
    ),
    # The least that Parquet's own encodings make of such lists (179 bytes a label at k = 64 instead of 210 with
    # pyarrow's defaults, 194 without dictionaries; SmolLM2, English, 2026-11-24).
    ListFormat(
        name="int32 + float16 lists, zstd-9, byte-stream split",
        id_type=pa.int32(),
        logprob_type=pa.float16(),
        compression="zstd",
        level=9,
        is_split=True,
    ),
]


def bit_packed_bytes(labels: Labels, *, vocab_size: int) -> float:
    """Return the bytes of all labels as fixed-width ids and float16 logprobs, every bit used.

    A count of candidates (where it differs) takes 2 bytes a label, a count of draws the bits of the largest one.
    """
    num_candidates, counts = labels.token_ids.size, np.diff(labels.candidate_offsets)
    bits = num_candidates * (_id_bits(vocab_size) + 16)
    if len(counts) and counts.min() != counts.max():
        bits += 16 * len(counts)
    if labels.draw_counts is not None:
        bits += num_candidates * int(labels.draw_counts.max()).bit_length()
    return bits / 8


def entropy_bound_bytes(labels: Labels) -> float:
    """Return the bytes of all labels as sets of ids with values on the 1/8-nat grid, by order-0 entropies.

    The frequencies are those of these very labels and cost nothing: no coder that takes candidates for independent
    gets below it. The order of a label's candidates, log2(K!) bits, is not stored.
    """
    counts = np.diff(labels.candidate_offsets)
    bits = _entropy_bits(labels.token_ids.reshape(-1)) + _entropy_bits(_grid_codes(labels))
    for k, number in enumerate(np.bincount(counts).tolist()):
        bits -= number * math.lgamma(k + 1) / math.log(2)
    if len(counts) and counts.min() != counts.max():
        bits += _entropy_bits(counts)
    if labels.draw_counts is not None:
        bits += _entropy_bits(labels.draw_counts)
    return bits / 8


def full_float16_bytes(labels: Labels, *, vocab_size: int) -> float:
    """Return the bytes of all labels as the full distribution in float16."""
    return 2.0 * vocab_size * len(labels)


def rounded_to_float16(labels: Labels) -> Labels:
    """Return the labels as they come back from float16 logprobs."""
    return dataclasses.replace(labels, logprobs=labels.logprobs.astype(np.float16).astype(np.float32))


def on_grid(labels: Labels) -> Labels:
    """Return the labels with logprobs on the 1/8-nat grid."""
    logprobs = (_grid_codes(labels) * -BOUND_STEP).astype(np.float32).reshape(labels.logprobs.shape)
    return dataclasses.replace(labels, logprobs=logprobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveSetting:
    """A published setting of the best-known open capture tool: bit-packed ids, some exact values, a fitted curve."""

    top_k: int
    num_exact: int  # values kept as they are
    exact_bits: int
    num_terms: int  # float32 coefficients of the curve through the others
    kl_nats: float  # measured by others on Gemma 3 270M, 25,500 labels of English, Markdown and Python; not here

    @property
    def name(self) -> str:
        exact = {16: "bfloat16", 32: "float32"}[self.exact_bits]
        return f"curve fit, k={self.top_k}, {self.num_exact} exact {exact}, {self.num_terms} terms"

    def bytes_per_label(self, *, vocab_size: int) -> float:
        bits = self.top_k * _id_bits(vocab_size) + self.num_exact * self.exact_bits + 32 * self.num_terms
        return bits / 8


def curve_settings() -> list[CurveSetting]:
    """Return the settings, by size."""
    return [
        CurveSetting(top_k=50, num_exact=1, exact_bits=16, num_terms=3, kl_nats=0.045),
        CurveSetting(top_k=64, num_exact=16, exact_bits=16, num_terms=6, kl_nats=1.8e-4),
        CurveSetting(top_k=128, num_exact=16, exact_bits=16, num_terms=6, kl_nats=0.09),
        CurveSetting(top_k=128, num_exact=32, exact_bits=32, num_terms=3, kl_nats=9e-5),
    ]


def _id_bits(vocab_size: int) -> int:
    return (vocab_size - 1).bit_length()


def _grid_codes(labels: Labels) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = np.rint(labels.logprobs.reshape(-1) / -BOUND_STEP).astype(np.int64)
    return codes


def _entropy_bits(values: NDArray[Any]) -> float:
    """Return the bits that all of the values take with a code for their own frequencies."""
    _, counts = np.unique(values, return_counts=True)
    return float(-(counts * np.log2(counts / counts.sum())).sum())
