"""Counts what packed labels cost while they are encoded: bits by stream, and the KL of the grid of values.

N labels, C candidates of a record.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.encode_kernels import Values
from labelstore.codecs.packed.layout import ESCAPE, FIRST_CONTEXT, NUM_CONTEXTS, STREAMS, SYMBOL_BITS, TABLE_BITS
from labelstore.codecs.packed.model import Model
from labelstore.codecs.tally import Tally
from labelstore.labels import Labels

__all__ = ["LabelTally", "grid_kl"]

# Bits are counted for the first records, so that a small shard is counted whole, then for one in eight: counting all
# costs 7% of encoding (K = 64).
_COUNTED_RECORDS = 32
_COUNTED_EVERY = 8
_GROUPS = ("ids", "values", "target_and_tail")
_GROUP_OF_STREAM = {
    **dict.fromkeys(("cluster_high", "cluster_low", "fit", "size", "dropped", "kept_gap", "gap", "count"), 0),
    **dict.fromkeys(("shape", "value"), 1),
    **dict.fromkeys(("tail", "rank_inside", "rank_outside", "target_inside", "target_outside"), 2),
}
_MASSES = ((256 * 256 - np.arange(257.0) ** 2).clip(min=1) / 65536).astype(np.float64)  # kept, by code of the tail


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
        frequencies = np.maximum(model.frequencies.astype(np.float64), 0.5)
        self._bits = (TABLE_BITS - np.log2(frequencies)).astype(np.float32).reshape(-1)
        escaped = TABLE_BITS + SYMBOL_BITS - np.log2(frequencies[:, ESCAPE : ESCAPE + 1])
        self._bits = np.where(model.frequencies > 0, self._bits.reshape(frequencies.shape), escaped).reshape(-1)
        levels = np.arange(model.inverse_step + 2, dtype=np.float64)
        self._weights = (12 * levels**2 + 1).astype(np.float32)
        self._log_weights = np.log(12 * levels**2 + 1).astype(np.float32)
        self._codec_kl_sum = 0.0
        self._num_records = 0
        self._num_bytes = 0
        self._counted_bytes = 0
        self._counted_bits = np.zeros(len(_GROUPS))

    @property
    def wants_bits(self) -> bool:
        """Whether the next record's coding steps are to be counted."""
        return self._num_records < _COUNTED_RECORDS or self._num_records % _COUNTED_EVERY == 0

    def add(self, labels: Labels, values: Values, *, num_bytes: int) -> None:
        """Count a record, and how many bytes it has become."""
        if self._model.inverse_step:
            self._codec_kl_sum += float(
                grid_kl(labels, values.levels, values.tails, self._weights, self._log_weights).sum()
            )
        self._num_records += 1
        self._num_bytes += num_bytes

    def add_bits(
        self, contexts: NDArray[np.int64], symbols: NDArray[np.int64], num_bits: NDArray[np.int64], *, num_bytes: int
    ) -> None:
        """Count a record's coding steps: symbols in a context, or (context -1) so many bits as they are."""
        is_symbol = contexts >= 0
        # Bits as they are belong to the symbol before them.
        at = np.maximum.accumulate(np.where(is_symbol, np.arange(len(contexts)), 0))
        groups = self._groups[contexts[at]]
        costs = np.where(is_symbol, self._bits[(contexts << SYMBOL_BITS) * is_symbol + symbols * is_symbol], num_bits)
        self._counted_bits += np.bincount(groups, costs, minlength=len(_GROUPS))
        self._counted_bytes += num_bytes

    def add_exact_tails(self, num_labels: int) -> None:
        """Say that counted labels had an exact tail mass: 32 bits that stand behind the last value, and are not one."""
        before = 0 if self._model.has_draws else 1
        moved = min(32.0 * num_labels, self._counted_bits[before])
        self._counted_bits[before] -= moved
        self._counted_bits[2] += moved

    def total(self) -> Tally:
        """Return what all records have cost; bits of those that were not counted are taken to be as the others'."""
        scale = self._num_bytes / self._counted_bytes / 8 if self._counted_bytes else 0.0
        stream_bytes = dict(zip(_GROUPS, (self._counted_bits * scale).tolist(), strict=True))
        return Tally(codec_kl_sum=self._codec_kl_sum, stream_bytes=stream_bytes)


def grid_kl(
    labels: Labels,
    levels: NDArray[np.int32],
    tails: NDArray[np.int64],
    weights: NDArray[np.float32],
    log_weights: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Return KL(teacher || decoded) of each label in nats [N]: of its candidates, and all the others as one outcome.

    Beside draws from the tail, it is of the exact head. A tail that is decoded as 0 (it was below 4e-6) is left out.
    """
    logprobs = labels.logprobs.reshape(-1)
    shares, own = np.exp(logprobs), weights[levels]
    if labels.draw_counts is not None and (is_drawn := labels.draw_counts > 0).any():
        has_head = _sums(~is_drawn, labels) > 0
        is_left_out = is_drawn & has_head[labels.candidate_positions()]
        shares, own = np.where(is_left_out, 0, shares), np.where(is_left_out, 0, own)
    differences = _sums(shares * (logprobs - log_weights[levels]), labels)
    kept = _sums(shares, labels)
    log_scale = np.log(_MASSES[tails]) - np.log(np.maximum(_sums(own, labels), 1))
    tail, decoded = labels.tail_mass.astype(np.float64), 1 - _MASSES[tails]
    is_there = (tail > 0) & (decoded > 0)
    of_tail = np.zeros(len(labels))
    of_tail[is_there] = tail[is_there] * np.log(tail[is_there] / decoded[is_there])
    return np.asarray(differences - kept * log_scale + of_tail, dtype=np.float64)


def _sums(values: NDArray[np.generic], labels: Labels) -> NDArray[np.float64]:
    """Return the sum over each label's candidates [C] -> [N]."""
    if labels.token_ids.ndim == 2:
        return np.asarray(values.reshape(labels.token_ids.shape).sum(axis=1), dtype=np.float64)
    totals = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return np.asarray(totals[labels.candidate_offsets[1:]] - totals[labels.candidate_offsets[:-1]])
