"""A record's lanes, compiled: the steps that take a number or some bits from one of them.

L lanes. Numbers are unsigned 64-bit where they become indices: a signed one is looked at for its sign at each use.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.coded import Lookup
from labelstore.codecs.packed.compiled import inlined
from labelstore.codecs.packed.layout import ESCAPE, MAX_SIZE, NUM_LANES, STATE_LOW, SYMBOL_BITS, TABLE_BITS

__all__ = ["LANE_STRIDE", "Lanes", "Round", "empty_round", "new_lanes", "number_of", "take_bits", "take_number"]

# From one lane's candidates to the next one's. A power of two would put them all into the same lines of a cache.
LANE_STRIDE = MAX_SIZE + 16

_ONE = np.uint64(1)
_LOW, _WORD_BITS = np.uint64(STATE_LOW), np.uint64(32)
_TABLE_BITS, _SLOT_MASK = np.uint64(TABLE_BITS), np.uint64((1 << TABLE_BITS) - 1)
_SYMBOL_BITS, _SYMBOL_MASK, _ESCAPE = np.uint64(SYMBOL_BITS), np.uint64((1 << SYMBOL_BITS) - 1), np.uint64(ESCAPE)
_FREQUENCY_SHIFT, _START_MASK = np.uint64(16), np.uint64(0xFFFF)
_BASE_SHIFT, _WIDTH_MASK = np.uint64(5), np.uint64(31)


class Lanes(NamedTuple):
    """Where each lane stands [L], and the label that it is at."""

    states: NDArray[np.uint64]
    reads: NDArray[np.uint64]  # the next word
    shapes: NDArray[np.uint64]
    gap_contexts: NDArray[np.uint64]  # the first context of the label's gaps
    lists: NDArray[np.uint64]  # where its cluster's list begins
    num_listed: NDArray[np.uint64]  # how long that is
    begins: NDArray[np.uint64]  # the place behind the last one
    firsts: NDArray[np.uint64]  # its candidates
    stops: NDArray[np.uint64]
    highest: NDArray[np.uint64]  # its highest level


class Round(NamedTuple):
    """A label of each lane, its candidates by place; those of lane l begin at l * LANE_STRIDE."""

    steps: NDArray[np.uint32]  # first places, then contexts of values, then levels
    token_ids: NDArray[np.int32]
    exact_bits: NDArray[np.uint32]
    draw_counts: NDArray[np.int32]
    clusters: NDArray[np.int64]  # [L]
    fits: NDArray[np.int64]  # [L]
    lowest: NDArray[np.int64]  # [L]: its lowest level
    weights: NDArray[np.int64]  # [L]: what its levels weigh
    targets: NDArray[np.int64]  # [L]: which candidate is the target; -1: none
    target_levels: NDArray[np.int64]  # [L]: that one's level
    shifts: NDArray[np.int64]  # [L]: a level's logarithm + this is its logprob in units of 2^-24 nats; exact values:
    # which of equal candidates at the top is the first
    sorted_ids: NDArray[np.int32]  # most likely first
    sorted_values: NDArray[np.int32]  # logarithms of levels, or exact bits
    starts: NDArray[np.uint16]  # [levels * L]: where in its label a lane's next candidate of a level belongs
    starts_of_level: NDArray[np.uint64]  # [levels]: the same, of all lanes together; 0 between labels


def new_lanes(num_lanes: int) -> Lanes:
    return Lanes(*np.zeros((len(Lanes._fields), num_lanes), dtype=np.uint64))


def empty_round(num_levels: int, *, is_exact: bool, has_draws: bool) -> Round:
    """Return room for a label of each lane."""
    size = NUM_LANES * LANE_STRIDE
    starts = np.zeros(NUM_LANES * num_levels, np.uint16)
    clusters, fits, lowest, weights, targets, target_levels, shifts = np.zeros((7, NUM_LANES), np.int64)
    return Round(
        steps=np.empty(size, np.uint32),
        token_ids=np.empty(size, np.int32),
        exact_bits=np.empty(size if is_exact else 0, np.uint32),
        draw_counts=np.empty(size if has_draws else 0, np.int32),
        clusters=clusters,
        fits=fits,
        lowest=lowest,
        weights=weights,
        targets=targets,
        target_levels=target_levels,
        shifts=shifts,
        sorted_ids=np.empty(size, np.int32),
        sorted_values=np.empty(size, np.int32),
        starts=starts,
        starts_of_level=starts.view(np.uint64),
    )


@inlined
def _filled(state: np.uint64, read: np.uint64, words: NDArray[np.uint32]) -> tuple[np.uint64, np.uint64]:
    """Return a state that has taken the lane's next word if it is low, and the next word then."""
    filled = (state << _WORD_BITS) | np.uint64(words[read])
    is_low = state < _LOW
    return filled if is_low else state, read + np.uint64(is_low)  # no branch: it could not be predicted


@inlined
def number_of(
    state: np.uint64, read: np.uint64, context: np.uint64, lookup: Lookup, words: NDArray[np.uint32]
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Take a number from a lane: return it, and the lane's state and its next word behind it, two further at most.

    `context` is where the context's symbols begin: the number of the context << SYMBOL_BITS.
    """
    slot = state & _SLOT_MASK
    symbol = np.uint64(lookup.slots[(context << (_TABLE_BITS - _SYMBOL_BITS)) + slot])
    entry = np.uint64(lookup.entries[context + symbol])
    state = (entry >> _FREQUENCY_SHIFT) * (state >> _TABLE_BITS) + slot - (entry & _START_MASK)
    if symbol == _ESCAPE:
        symbol = state & _SYMBOL_MASK
        state, read = _filled(state >> _SYMBOL_BITS, read, words)
    field = np.uint64(lookup.number_fields[symbol])
    width = field & _WIDTH_MASK  # often 0, but no branch: every fourth gap has low bits
    number = (field >> _BASE_SHIFT) + (state & ((_ONE << width) - _ONE))
    state, read = _filled(state >> width, read, words)
    return number, state, read


@inlined
def take_number(
    lanes: Lanes, lane: int, context: int, lookup: Lookup, words: NDArray[np.uint32], num_words: np.uint64
) -> int:
    """Take a number from a lane; of `words`, `num_words` are the record's, and zeros follow."""
    read = min(lanes.reads[lane], num_words)  # damaged bytes may have come beyond the end
    number, lanes.states[lane], behind = number_of(
        lanes.states[lane], read, np.uint64(context) << _SYMBOL_BITS, lookup, words
    )
    lanes.reads[lane] += behind - read
    return np.int64(number)


@inlined
def take_bits(lanes: Lanes, lane: int, num_bits: int, words: NDArray[np.uint32], num_words: np.uint64) -> int:
    """Take some bits from a lane as they are, 32 at most."""
    read = min(lanes.reads[lane], num_words)
    state, width = lanes.states[lane], np.uint64(num_bits)
    lanes.states[lane], behind = _filled(state >> width, read, words)
    lanes.reads[lane] += behind - read
    return np.int64(state & ((_ONE << width) - _ONE))
