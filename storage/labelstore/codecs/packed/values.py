"""Log-probabilities as integers: a grid of sqrt(p) for the bounded codecs, float bits for the exact one.

N labels and C candidates. Layout: FORMAT.md, "Values".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.encode_kernels import Values
from labelstore.codecs.packed.fixed_log import log_of_kept
from labelstore.codecs.packed.layout import ENTROPY_STEPS, EXACT_REST_BITS, TAIL_CODES, TARGET_STEPS
from labelstore.codecs.packed.model import Model
from labelstore.labels import Labels

__all__ = ["counts_of", "exact_values", "float_bits", "grid_levels", "grid_values", "unit_exponent"]

MAX_TARGET_CODE = 1 << 23  # so that its difference to any other has a number's bits
_NO_BITS = np.zeros(0, dtype=np.int64)
_NO_COUNTS = np.zeros(0, dtype=np.int32)


def grid_levels(logprobs: NDArray[np.float32], offsets: NDArray[np.int64], inverse_step: int) -> NDArray[np.int32]:
    """Return sqrt(p) in whole steps [C]; a label's first candidate stands alone at its top."""
    levels: NDArray[np.int32] = np.rint(np.exp(logprobs.astype(np.float64) / 2) * inverse_step).astype(np.int32)
    has_two = np.diff(offsets) > 1
    firsts = offsets[:-1][has_two]
    levels[firsts] += levels[firsts] == levels[firsts + 1]
    return levels


def grid_values(labels: Labels, model: Model) -> Values:
    """Return a record's values on the model's grid."""
    logprobs = labels.logprobs.reshape(-1)
    entropies = np.zeros(0, dtype=np.uint32)
    if labels.entropy is not None:
        entropies = np.minimum(np.rint(labels.entropy.astype(np.float64) * ENTROPY_STEPS), 0xFFFF).astype(np.uint32)
    targets = np.rint(labels.target_logprobs.astype(np.float64) * -TARGET_STEPS)
    return Values(
        levels=grid_levels(logprobs, labels.candidate_offsets, model.inverse_step),
        rests=np.zeros(len(logprobs), dtype=np.uint32),
        rest_bits=np.zeros(len(logprobs), dtype=np.uint8),
        exact_bits=_NO_BITS,
        log_of_level=model.log_of_level,
        log_of_kept=log_of_kept(),
        tails=_tail_codes(labels.tail_mass.astype(np.float64)),
        targets=np.minimum(targets, MAX_TARGET_CODE).astype(np.int64),
        entropies=entropies,
        weight_of_one=model.weight_of_one,
    )


def _tail_codes(tail_mass: NDArray[np.float64]) -> NDArray[np.int64]:
    half = TAIL_CODES // 2
    smaller = np.rint(np.sqrt(2 * np.minimum(tail_mass, 1 - tail_mass)) * half).astype(np.int64)
    return np.where(tail_mass <= 0.5, smaller, TAIL_CODES - smaller)


def counts_of(labels: Labels) -> NDArray[np.int32]:
    """Return the labels' draw counts [C], or none [0] where nothing was drawn."""
    return _NO_COUNTS if labels.draw_counts is None else labels.draw_counts


def float_bits(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the bits of numbers that have one sign, without it: the larger the number's size, the larger."""
    return (values.view(np.uint32) & 0x7FFFFFFF).astype(np.int64)


def unit_exponent(bits: NDArray[np.int64]) -> int:
    """Return e + 150 such that all numbers of these float32 bits are multiples of 2^e; 0 for the finest subnormals."""
    bits = bits[bits > 0]
    if len(bits) == 0:
        return 255
    mantissas = np.where(bits >= 1 << 23, (bits & 0x7FFFFF) | 0x800000, bits)
    trailing = np.frexp((mantissas & -mantissas).astype(np.float64))[1] - 1
    return int(np.clip(((bits >> 23) + trailing).min(), 0, 255))


def exact_values(labels: Labels, model: Model, unit: int) -> Values:
    """Return a record's values as float32 bits: a level from the highest, the rest as it is.

    Level 0 has all 32 bits behind it; level n > 0 stands for the highest bits exact_base + 1 - n.
    """
    bits = float_bits(labels.logprobs.reshape(-1))
    levels = np.maximum(model.exact_base + 1 - (bits >> EXACT_REST_BITS), 0)
    zeros = np.clip(unit - (bits >> 23), 0, EXACT_REST_BITS)  # low bits that the unit says are zero
    rest_bits = np.where(levels > 0, EXACT_REST_BITS - zeros, 32)
    rests = np.where(levels > 0, (bits & ((1 << EXACT_REST_BITS) - 1)) >> zeros, bits)
    return Values(
        levels=levels.astype(np.int32),
        rests=rests.astype(np.uint32),
        rest_bits=rest_bits.astype(np.uint8),
        exact_bits=bits,
        log_of_level=_NO_BITS,
        log_of_kept=_NO_BITS,
        tails=float_bits(labels.tail_mass),
        targets=float_bits(labels.target_logprobs),
        entropies=np.zeros(0, np.uint32) if labels.entropy is None else float_bits(labels.entropy).astype(np.uint32),
        weight_of_one=0,
    )
