"""Counts what packed labels cost while they are encoded: bits by stream, and the KL of the grid of values.

N labels, C candidates of a record.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.compiled import compiled
from labelstore.codecs.packed.encode_kernels import Values
from labelstore.codecs.packed.fixed_log import kept_of_tail
from labelstore.codecs.packed.layout import (
    FIRST_CONTEXT,
    KEPT_BITS,
    NUM_CONTEXTS,
    STREAMS,
    SYMBOL_BITS,
)
from labelstore.codecs.packed.model import Model
from labelstore.codecs.packed.tables import number_fields, symbol_bits
from labelstore.codecs.packed.values import counts_of
from labelstore.codecs.tally import Tally
from labelstore.labels import Labels

__all__ = ["LabelTally"]

# Bits are counted for the first records, so that a small shard is counted whole, then for one in eight: counting all
# costs 3% of encoding (K = 64).
_COUNTED_RECORDS = 64
_COUNTED_EVERY = 8
_GROUPS = ("ids", "values", "target_and_tail")
_GROUP_OF_STREAM = {
    **dict.fromkeys(("cluster_high", "cluster_low", "fit", "size", "gap", "count"), 0),
    **dict.fromkeys(("shape", "value"), 1),
    **dict.fromkeys(("tail", "rank_inside", "rank_outside", "target_inside", "target_outside"), 2),
}


def _groups() -> NDArray[np.int64]:
    groups = np.zeros(NUM_CONTEXTS, dtype=np.int64)
    for name, first in FIRST_CONTEXT.items():
        groups[first : first + STREAMS[name]] = _GROUP_OF_STREAM[name]
    return groups


class LabelTally:
    """Adds up what records cost; not for several threads at once."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._groups = _groups()
        _, widths = number_fields()
        self._bits = (symbol_bits(model.frequencies) + widths.astype(np.float32)).reshape(-1)
        levels = np.arange(model.inverse_step + 2, dtype=np.float64)
        self._log_weights = np.log(12 * levels**2 + 1).astype(np.float32)
        self._kept_of_tail = kept_of_tail() / (1 << KEPT_BITS)
        self._codec_kl_sum = 0.0
        self._num_records = 0
        self._num_bytes = 0
        self._counted_bytes = 0
        self._bits_by_group = np.zeros(len(_GROUPS))  # of the counted records

    def add(self, labels: Labels, values: Values, steps: NDArray[np.int64], *, num_bytes: int) -> None:
        """Count a record by its values, its coding steps (as encode_kernels makes them), and what it has become."""
        self._num_bytes += num_bytes
        if self._num_records < _COUNTED_RECORDS or self._num_records % _COUNTED_EVERY == 0:
            self._counted_bytes += num_bytes
            self._count_bits(steps, len(labels))
        self._num_records += 1
        if self._model.inverse_step:
            logprobs = labels.logprobs.reshape(-1)
            self._codec_kl_sum += _grid_kl(
                logprobs,
                np.exp(logprobs),
                values.levels,
                labels.candidate_offsets,
                counts_of(labels),
                labels.tail_mass,
                values.tails,
                self._kept_of_tail,
                self._log_weights,
            )

    def _count_bits(self, steps: NDArray[np.int64], num_labels: int) -> None:
        _add_bits(steps, self._bits, self._groups, self._bits_by_group)
        if self._model.inverse_step:
            return
        # An exact tail mass is 32 bits that stand behind the last value or count, and are none.
        before = 0 if self._model.has_draws else 1
        moved = min(32.0 * num_labels, float(self._bits_by_group[before]))
        self._bits_by_group[before] -= moved
        self._bits_by_group[2] += moved

    def total(self) -> Tally:
        """Return what all records have cost; bits of those that were not counted are taken to be as the others'."""
        scale = self._num_bytes / self._counted_bytes / 8 if self._counted_bytes else 0.0
        stream_bytes = dict(zip(_GROUPS, (self._bits_by_group * scale).tolist(), strict=True))
        return Tally(codec_kl_sum=self._codec_kl_sum, stream_bytes=stream_bytes)


@compiled
def _add_bits(
    steps: NDArray[np.int64], bits: NDArray[np.float32], groups: NDArray[np.int64], sums: NDArray[np.float64]
) -> None:
    """Add what coding steps cost to their groups; bits as they are belong to the symbol before them."""
    group = 0
    for step in steps:
        context = (step >> 40) - 1
        if context >= 0:
            group = groups[context]
            sums[group] += bits[(context << SYMBOL_BITS) + (step & ((1 << SYMBOL_BITS) - 1))]
        else:
            sums[group] += step >> 32


@compiled
def _grid_kl(
    logprobs: NDArray[np.float32],
    shares: NDArray[np.float32],
    levels: NDArray[np.int32],
    offsets: NDArray[np.int64],
    draw_counts: NDArray[np.int32],
    tail_mass: NDArray[np.float32],
    tails: NDArray[np.int64],
    kept_of_tail: NDArray[np.float64],
    log_weights: NDArray[np.float32],
) -> float:
    """Return the sum over labels of KL(teacher || decoded) in nats: of its candidates, and all others as one outcome.

    `shares` are the candidates' probabilities. Beside draws from the tail (`draw_counts` [C], or [0]), it is of the
    exact head. A tail that is decoded as 0 (it was below 2e-6) is left out.
    """
    total = 0.0
    for n in range(len(offsets) - 1):
        difference, kept, weight = 0.0, 0.0, 0.0
        has_head = False
        if len(draw_counts):
            for c in range(offsets[n], offsets[n + 1]):
                has_head = has_head or draw_counts[c] == 0
        for c in range(offsets[n], offsets[n + 1]):
            if has_head and draw_counts[c]:
                continue
            level = np.float64(levels[c])
            share = np.float64(shares[c])
            difference += share * (logprobs[c] - log_weights[levels[c]])
            kept += share
            weight += 12 * level * level + 1
        decoded_kept = kept_of_tail[tails[n]]
        tail, decoded_tail = np.float64(tail_mass[n]), 1 - decoded_kept
        total += difference - kept * np.log(decoded_kept / max(weight, 1.0))
        if tail > 0 and decoded_tail > 0:
            total += tail * np.log(tail / decoded_tail)
    return total
