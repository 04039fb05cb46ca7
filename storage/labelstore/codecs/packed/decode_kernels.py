"""From a record's bytes to labels, compiled. The lanes go side by side, so that their waits overlap.

N labels and C candidates of the record, L lanes. numpy_decoder.py does the same without numba, bit for bit.

Numbers are unsigned 64-bit where they become indices: a signed one would be looked at for its sign at each use.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.coded import Coded, Lookup
from labelstore.codecs.packed.compiled import (
    bit_length,
    compiled,
    expected_tail,
    inlined,
    ln_fixed_one,
    rank_class,
    target_code,
    value_place,
)
from labelstore.codecs.packed.frame import PADDING, Frame
from labelstore.codecs.packed.layout import (
    CLUSTER_HIGH,
    CLUSTER_LOW,
    CLUSTER_LOW_BITS,
    COUNT,
    DIRECT,
    DIRECT_BITS,
    ESCAPE,
    EXACT_REST_BITS,
    FIT,
    GAP,
    MAX_CLUSTERS,
    MAX_SIZE,
    NUM_FITS,
    NUM_LANES,
    NUM_PLACES,
    NUM_SHAPES,
    NUM_VALUE_PLACES,
    RANK_INSIDE,
    RANK_OUTSIDE,
    SHAPE,
    SIZE,
    STATE_LOW,
    SYMBOL_BITS,
    TABLE_BITS,
    TAIL,
    TAIL_CODES,
    TARGET_INSIDE,
    TARGET_OUTSIDE,
    VALUE,
)

__all__ = ["decode_record"]

_ZERO, _ONE, _TWO, _THREE, _FOUR = (np.uint64(n) for n in range(5))
_LOW = np.uint64(STATE_LOW)
_WORD_BITS = np.uint64(32)
_SYMBOL_BITS, _SYMBOL_MASK = np.uint64(SYMBOL_BITS), np.uint64((1 << SYMBOL_BITS) - 1)
_ESCAPE = np.uint64(ESCAPE)
_DIRECT, _DIRECT_BITS = np.uint64(DIRECT), np.uint64(DIRECT_BITS)
_TABLE_BITS = np.uint64(TABLE_BITS)
_SLOT_MASK = np.uint64((1 << TABLE_BITS) - 1)
_FREQUENCY_SHIFT, _START_MASK = np.uint64(16), np.uint64(0xFFFF)


class _Lanes(NamedTuple):
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


def decode_record(frame: Frame, target_ids: NDArray[np.int32], lookup: Lookup, coded: Coded) -> bool:
    """Decode a record into `coded`; False if the bytes are not what an encoder writes."""
    lanes = _Lanes(*np.zeros((len(_Lanes._fields), len(frame.lane_starts) - 1), dtype=np.uint64))
    steps = np.empty(NUM_LANES * (lookup.size or MAX_SIZE), dtype=np.uint32)
    lane_starts = frame.lane_starts.astype(np.uint64)
    return _decode_labels(frame.words, lane_starts, np.int64(frame.unit), target_ids, lookup, coded, lanes, steps)


@compiled
def _decode_labels(
    words: NDArray[np.uint32],
    lane_starts: NDArray[np.uint64],
    unit: int,
    target_ids: NDArray[np.int32],
    lookup: Lookup,
    coded: Coded,
    lanes: _Lanes,
    steps: NDArray[np.uint32],
) -> bool:
    # `steps` holds a label of each lane, candidate by candidate: places, then contexts of values, then levels.
    num_labels, num_lanes = len(target_ids), len(lane_starts) - 1
    for lane in range(num_lanes):
        start = lane_starts[lane]
        lanes.states[lane] = (np.uint64(words[start + _ONE]) << _WORD_BITS) | np.uint64(words[start])
        lanes.reads[lane] = start + _TWO
    offsets = coded.offsets
    offsets[0] = 0
    for first in range(0, num_labels, num_lanes):
        width = min(num_lanes, num_labels - first)
        for lane in range(width):
            n = first + lane
            size = _take_head(lanes, lane, words, lookup, offsets[n])
            if size < 0 or offsets[n] + size > len(coded.token_ids):
                return False
            offsets[n + 1] = offsets[n] + size
        if not _take_places(lanes, width, words, lookup, steps):
            return False
        for lane in range(width):
            if not _name_ids(lanes, lane, lookup, coded.token_ids, steps):
                return False
        if not _take_values(lanes, width, words, lookup, unit, steps, coded.exact_bits):
            return False
        for lane in range(width):
            if not _take_rest(lanes, lane, words, lookup, target_ids[first + lane], first + lane, steps, coded):
                return False
    if offsets[num_labels] != len(coded.token_ids):
        return False
    for lane in range(num_lanes):
        if lanes.states[lane] != _LOW or lanes.reads[lane] != lane_starts[lane + 1]:
            return False
    return True


@inlined
def _filled(state: np.uint64, read: np.uint64, words: NDArray[np.uint32]) -> tuple[np.uint64, np.uint64]:
    """Return a state that has taken the lane's next word if it is low, and the next word then."""
    filled = (state << _WORD_BITS) | np.uint64(words[read])
    is_low = state < _LOW
    return filled if is_low else state, read + np.uint64(is_low)  # no branch: it could not be predicted


@inlined
def _number_of(
    state: np.uint64, read: np.uint64, context: np.uint64, lookup: Lookup, words: NDArray[np.uint32]
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Take a number from a lane: return it, and the lane's state and its next word behind it.

    `context` is where the context's symbols begin: the number of the context << SYMBOL_BITS.
    """
    slot = state & _SLOT_MASK
    number = np.uint64(lookup.slots[(context << (_TABLE_BITS - _SYMBOL_BITS)) + slot])
    entry = np.uint64(lookup.entries[context + number])
    state = (entry >> _FREQUENCY_SHIFT) * (state >> _TABLE_BITS) + slot - (entry & _START_MASK)
    if number >= _DIRECT:  # a symbol with low bits
        if number == _ESCAPE:
            number = state & _SYMBOL_MASK
            state, read = _filled(state >> _SYMBOL_BITS, read, words)
        if number >= _DIRECT:
            width = _DIRECT_BITS - _TWO + ((number - _DIRECT) >> _TWO)
            number = ((_FOUR + (number & _THREE)) << width) + (state & ((_ONE << width) - _ONE))
            state >>= width
    state, read = _filled(state, read, words)
    return number, state, read


@inlined
def _take_number(lanes: _Lanes, lane: int, context: int, lookup: Lookup, words: NDArray[np.uint32]) -> int:
    read = min(lanes.reads[lane], np.uint64(len(words) - PADDING))  # damaged bytes may have come beyond the end
    number, lanes.states[lane], behind = _number_of(
        lanes.states[lane], read, np.uint64(context) << _SYMBOL_BITS, lookup, words
    )
    lanes.reads[lane] += behind - read
    return np.int64(number)


@inlined
def _take_bits(lanes: _Lanes, lane: int, num_bits: int, words: NDArray[np.uint32]) -> int:
    read = min(lanes.reads[lane], np.uint64(len(words) - PADDING))
    state, width = lanes.states[lane], np.uint64(num_bits)
    lanes.states[lane], behind = _filled(state >> width, read, words)
    lanes.reads[lane] += behind - read
    return np.int64(state & ((_ONE << width) - _ONE))


@inlined
def _unzigzag(n: int) -> int:
    return (n >> 1) ^ -(n & 1)


@inlined
def _take_head(lanes: _Lanes, lane: int, words: NDArray[np.uint32], lookup: Lookup, first: int) -> int:
    """Read what stands before a label's ids; return how many candidates it has, -1 for damage."""
    high = _take_number(lanes, lane, CLUSTER_HIGH, lookup, words)
    low = _take_number(lanes, lane, CLUSTER_LOW + min(high, (MAX_CLUSTERS >> CLUSTER_LOW_BITS) - 1), lookup, words)
    cluster = (high << CLUSTER_LOW_BITS) + low
    shape = _take_number(lanes, lane, SHAPE, lookup, words)
    fit = _take_number(lanes, lane, FIT + min(shape, NUM_SHAPES - 1), lookup, words)
    if cluster >= len(lookup.list_offsets) - 1 or shape >= NUM_SHAPES or fit >= NUM_FITS:
        return -1
    size = lookup.size
    if size == 0:
        size = _take_number(lanes, lane, SIZE + shape, lookup, words)
        if size > MAX_SIZE:
            return -1
    lanes.shapes[lane] = shape
    lanes.gap_contexts[lane] = GAP + fit * NUM_PLACES
    lanes.lists[lane] = lookup.list_offsets[cluster]
    lanes.num_listed[lane] = lookup.list_offsets[cluster + 1] - lookup.list_offsets[cluster]
    lanes.begins[lane] = 0
    lanes.firsts[lane], lanes.stops[lane] = first, first + size
    return size


@inlined
def _gap_context(
    first: np.uint64, place: np.uint64, listed: np.uint64, num_listed: np.uint64, lookup: Lookup
) -> np.uint64:
    """Return where the symbols of the gap's context begin that begins at a place."""
    listed_class = np.uint64(lookup.list_classes[listed + min(place, num_listed)])
    place_class = listed_class if place < num_listed else np.uint64(rank_class(np.int64(place - num_listed)))
    return (first + place_class) << _SYMBOL_BITS


@compiled
def _take_places(
    lanes: _Lanes, width: int, words: NDArray[np.uint32], lookup: Lookup, steps: NDArray[np.uint32]
) -> bool:
    """Read the places of a label of each lane into `steps`."""
    num_words = np.uint64(len(words) - PADDING)
    done = _ZERO
    if width == NUM_LANES:
        # What the lanes change is held in variables, which become registers: a fifth less time than by arrays.
        state0, state1, state2, state3 = lanes.states[0], lanes.states[1], lanes.states[2], lanes.states[3]
        read0, read1, read2, read3 = lanes.reads[0], lanes.reads[1], lanes.reads[2], lanes.reads[3]
        gaps0, list0, listed0 = lanes.gap_contexts[0], lanes.lists[0], lanes.num_listed[0]
        gaps1, list1, listed1 = lanes.gap_contexts[1], lanes.lists[1], lanes.num_listed[1]
        gaps2, list2, listed2 = lanes.gap_contexts[2], lanes.lists[2], lanes.num_listed[2]
        gaps3, list3, listed3 = lanes.gap_contexts[3], lanes.lists[3], lanes.num_listed[3]
        begin0, begin1, begin2, begin3 = _ZERO, _ZERO, _ZERO, _ZERO
        done = _FOUR * _least_size(lanes)
        for i in range(_ZERO, done, _FOUR):
            if max(max(read0, read1), max(read2, read3)) > num_words:
                return False
            context = _gap_context(gaps0, begin0, list0, listed0, lookup)
            gap, state0, read0 = _number_of(state0, read0, context, lookup, words)
            begin0 += gap
            steps[i] = begin0
            begin0 += _ONE
            context = _gap_context(gaps1, begin1, list1, listed1, lookup)
            gap, state1, read1 = _number_of(state1, read1, context, lookup, words)
            begin1 += gap
            steps[i + _ONE] = begin1
            begin1 += _ONE
            context = _gap_context(gaps2, begin2, list2, listed2, lookup)
            gap, state2, read2 = _number_of(state2, read2, context, lookup, words)
            begin2 += gap
            steps[i + _TWO] = begin2
            begin2 += _ONE
            context = _gap_context(gaps3, begin3, list3, listed3, lookup)
            gap, state3, read3 = _number_of(state3, read3, context, lookup, words)
            begin3 += gap
            steps[i + _THREE] = begin3
            begin3 += _ONE
        lanes.states[0], lanes.states[1], lanes.states[2], lanes.states[3] = state0, state1, state2, state3
        lanes.reads[0], lanes.reads[1], lanes.reads[2], lanes.reads[3] = read0, read1, read2, read3
        lanes.begins[0], lanes.begins[1], lanes.begins[2], lanes.begins[3] = begin0, begin1, begin2, begin3
    for lane in range(width):
        begin = lanes.begins[lane]
        for i in range(done + np.uint64(lane), _FOUR * (lanes.stops[lane] - lanes.firsts[lane]), _FOUR):
            context = _gap_context(lanes.gap_contexts[lane], begin, lanes.lists[lane], lanes.num_listed[lane], lookup)
            begin += np.uint64(_take_number(lanes, lane, np.int64(context >> _SYMBOL_BITS), lookup, words))
            steps[i] = begin
            begin += _ONE
        lanes.begins[lane] = begin
    return True


@inlined
def _least_size(lanes: _Lanes) -> np.uint64:
    """Return how many candidates each of the labels has at least."""
    first = min(lanes.stops[0] - lanes.firsts[0], lanes.stops[1] - lanes.firsts[1])
    return min(first, min(lanes.stops[2] - lanes.firsts[2], lanes.stops[3] - lanes.firsts[3]))


@inlined
def _name_ids(
    lanes: _Lanes, lane: int, lookup: Lookup, token_ids: NDArray[np.int32], steps: NDArray[np.uint32]
) -> bool:
    """Turn a label's places into ids, and the places in `steps` into the contexts of their values."""
    listed, num_listed = lanes.lists[lane], lanes.num_listed[lane]
    if lanes.begins[lane] > num_listed + np.uint64(len(lookup.id_of_rank)):  # behind the last place, the largest
        return False
    first_context = np.uint64(VALUE) + lanes.shapes[lane] * np.uint64(NUM_VALUE_PLACES)
    at, stop, i = lanes.firsts[lane], lanes.stops[lane], np.uint64(lane)
    while at < stop and steps[i] < num_listed:
        place = listed + np.uint64(steps[i])
        token_ids[at] = lookup.list_ids[place]
        steps[i] = (first_context + np.uint64(value_place(lookup.list_classes[place]))) << _SYMBOL_BITS
        at, i = at + _ONE, i + _FOUR
    while at < stop:
        rank = np.uint64(steps[i]) - num_listed
        token_ids[at] = lookup.id_of_rank[rank]
        steps[i] = (first_context + np.uint64(value_place(rank_class(np.int64(rank))))) << _SYMBOL_BITS
        at, i = at + _ONE, i + _FOUR
    return True


@compiled
def _take_values(
    lanes: _Lanes,
    width: int,
    words: NDArray[np.uint32],
    lookup: Lookup,
    unit: int,
    steps: NDArray[np.uint32],
    exact_bits: NDArray[np.uint32],
) -> bool:
    """Read the levels of a label of each lane into `steps`; with exact values, also the bits behind each."""
    num_words = np.uint64(len(words) - PADDING)
    is_exact = lookup.weight_of_one == 0
    done = _ZERO
    if width == NUM_LANES and not is_exact:
        state0, state1, state2, state3 = lanes.states[0], lanes.states[1], lanes.states[2], lanes.states[3]
        read0, read1, read2, read3 = lanes.reads[0], lanes.reads[1], lanes.reads[2], lanes.reads[3]
        done = _FOUR * _least_size(lanes)
        for i in range(_ZERO, done, _FOUR):
            if max(max(read0, read1), max(read2, read3)) > num_words:
                return False
            level, state0, read0 = _number_of(state0, read0, np.uint64(steps[i]), lookup, words)
            steps[i] = level
            level, state1, read1 = _number_of(state1, read1, np.uint64(steps[i + _ONE]), lookup, words)
            steps[i + _ONE] = level
            level, state2, read2 = _number_of(state2, read2, np.uint64(steps[i + _TWO]), lookup, words)
            steps[i + _TWO] = level
            level, state3, read3 = _number_of(state3, read3, np.uint64(steps[i + _THREE]), lookup, words)
            steps[i + _THREE] = level
        lanes.states[0], lanes.states[1], lanes.states[2], lanes.states[3] = state0, state1, state2, state3
        lanes.reads[0], lanes.reads[1], lanes.reads[2], lanes.reads[3] = read0, read1, read2, read3
    for lane in range(width):
        first = lanes.firsts[lane]
        for i in range(done + np.uint64(lane), _FOUR * (lanes.stops[lane] - first), _FOUR):
            own = _take_number(lanes, lane, np.int64(steps[i] >> SYMBOL_BITS), lookup, words)
            steps[i] = own
            if is_exact:
                if own > lookup.exact_base + 1:
                    return False
                exact_bits[first + (i >> _TWO)] = _take_exact(lanes, lane, words, own, unit, lookup.exact_base)
    return True


@inlined
def _take_exact(lanes: _Lanes, lane: int, words: NDArray[np.uint32], level: int, unit: int, exact_base: int) -> int:
    """Read what stands behind a level; return the bits of the float32."""
    high = exact_base + 1 - level
    zeros = min(max(unit - (high >> 3), 0), EXACT_REST_BITS)
    rest = _take_bits(lanes, lane, 32 if level == 0 else EXACT_REST_BITS - zeros, words)
    return rest if level == 0 else (high << EXACT_REST_BITS) | (rest << zeros)


@compiled
def _take_rest(
    lanes: _Lanes,
    lane: int,
    words: NDArray[np.uint32],
    lookup: Lookup,
    target_id: int,
    n: int,
    steps: NDArray[np.uint32],
    coded: Coded,
) -> bool:
    """Read what stands behind a label's values: draw counts, tail mass, target and entropy."""
    token_ids, levels, exact_bits, draw_counts = coded.token_ids, coded.levels, coded.exact_bits, coded.draw_counts
    first, stop, shape = lanes.firsts[lane], lanes.stops[lane], np.int64(lanes.shapes[lane])
    size, has_draws, is_exact = np.int64(stop - first), len(draw_counts) > 0, lookup.weight_of_one == 0
    squares, lowest, highest, target = np.int64(0), np.int64(1 << 30), np.int64(0), stop
    i = np.uint64(lane)
    for at in range(first, stop):
        level = np.int64(steps[i])
        levels[at] = level
        squares += level * level
        lowest, highest = min(lowest, level), max(highest, level)
        i += _FOUR
    if not is_exact and highest >= len(lookup.log_of_level):
        return False
    for at in range(first, stop):
        target = at if token_ids[at] == target_id else target
    weight = 12 * squares + size
    if has_draws:
        head = np.int64(0)
        for at in range(first, stop):
            level = np.int64(levels[at])
            count = _take_number(lanes, lane, COUNT + min(15, level), lookup, words)
            draw_counts[at] = count
            if count == 0:
                head += 12 * level * level + 1
        if head:
            weight = head
    shift = np.int64(0)
    if is_exact:
        coded.tails[n] = _take_bits(lanes, lane, 32, words)
        top, num_equal = np.uint32(0xFFFFFFFF), np.int64(0)
        for at in range(first, stop):
            top = min(top, exact_bits[at])
        for at in range(first, stop):
            num_equal += exact_bits[at] == top
        if num_equal > 1:  # which of them is the first
            shift = _take_number(lanes, lane, TAIL, lookup, words)
            if shift >= num_equal:
                return False
    else:
        expected = np.int64(expected_tail(weight, lookup.weight_of_one))
        tail = expected + _unzigzag(_take_number(lanes, lane, TAIL + bit_length(expected), lookup, words))
        if tail < 0 or tail > TAIL_CODES:
            return False
        coded.tails[n] = tail
        shift = lookup.log_of_kept[tail] - ln_fixed_one(max(weight, 1))
    coded.shifts[n] = shift

    is_inside = target < stop
    context, above = RANK_OUTSIDE + shape, size
    if is_inside and not has_draws:
        above, equal = np.int64(0), np.int64(0)
        for at in range(first, stop):
            above += levels[at] > levels[target]
        for at in range(first, stop):
            equal += levels[at] == levels[target]
        context = RANK_INSIDE + bit_length(equal)
    rank = _take_number(lanes, lane, context, lookup, words)
    coded.ranks[n] = rank if has_draws else above + 1 + _unzigzag(rank)

    if is_exact:
        is_stored = not is_inside
        if is_inside:
            is_stored = _take_number(lanes, lane, TARGET_INSIDE, lookup, words) > 0
            coded.targets[n] = exact_bits[target]
        if is_stored:
            coded.targets[n] = _take_bits(lanes, lane, 32, words)
    else:
        guess, context = np.int64(0), TARGET_OUTSIDE + shape
        if is_inside:
            guess = target_code(lookup.log_of_level[levels[target]] + shift)
            context = TARGET_INSIDE + bit_length(np.int64(levels[target]))
        elif size > 0:
            guess = target_code(lookup.log_of_level[lowest] + shift)
        coded.targets[n] = guess + _unzigzag(_take_number(lanes, lane, context, lookup, words))
    if len(coded.entropies):
        coded.entropies[n] = _take_bits(lanes, lane, 32 if is_exact else 16, words)
    return True
