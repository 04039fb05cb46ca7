"""From a record's bytes to labels, compiled. The lanes go side by side, so that their waits overlap.

N labels and C candidates of the record, L lanes. numpy_decoder.py does the same without numba, bit for bit.

Numbers are unsigned 64-bit where they become indices: a signed one would be looked at for its sign at each use.
"""

from __future__ import annotations

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
from labelstore.codecs.packed.frame import Frame
from labelstore.codecs.packed.lane_kernels import (
    LANE_STRIDE,
    Lanes,
    Round,
    empty_round,
    new_lanes,
    number_of,
    take_bits,
    take_number,
)
from labelstore.codecs.packed.layout import (
    CLUSTER_HIGH,
    CLUSTER_LOW,
    CLUSTER_LOW_BITS,
    COUNT,
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
    TAIL,
    TAIL_CODES,
    TARGET_INSIDE,
    TARGET_OUTSIDE,
    VALUE,
)
from labelstore.codecs.packed.sort_kernels import place_labels

__all__ = ["decode_record"]

_ZERO, _ONE, _TWO = (np.uint64(n) for n in range(3))
_STRIDE, _STRIDE2, _STRIDE3 = (np.uint64(n * LANE_STRIDE) for n in (1, 2, 3))
_LOW, _WORD_BITS = np.uint64(STATE_LOW), np.uint64(32)
_SYMBOL_BITS = np.uint64(SYMBOL_BITS)


def decode_record(frame: Frame, target_ids: NDArray[np.int32], lookup: Lookup, coded: Coded) -> bool:
    """Decode a record into `coded`; False if the bytes are not what an encoder writes."""
    is_exact = lookup.weight_of_one == 0
    # Zeros for what a label of damaged bytes can read beyond the end before it is looked at how far that came.
    words = np.zeros(len(frame.words) + 2 * (lookup.size or MAX_SIZE) + 2, dtype=np.uint32)
    words[: len(frame.words)] = frame.words
    num_levels = lookup.exact_base + 2 if is_exact else len(lookup.log_of_level)
    labels = empty_round(num_levels, is_exact=is_exact, has_draws=len(coded.draw_counts) > 0)
    lane_starts = frame.lane_starts.astype(np.uint64)
    lanes = new_lanes(len(lane_starts) - 1)
    return _decode_labels(words, lane_starts, np.int64(frame.unit), target_ids, lookup, coded, lanes, labels)


@compiled
def _decode_labels(
    words: NDArray[np.uint32],
    lane_starts: NDArray[np.uint64],
    unit: int,
    target_ids: NDArray[np.int32],
    lookup: Lookup,
    coded: Coded,
    lanes: Lanes,
    labels: Round,
) -> bool:
    num_labels, num_lanes = len(target_ids), len(lane_starts) - 1
    num_words = lane_starts[num_lanes]
    for lane in range(num_lanes):
        start = lane_starts[lane]
        lanes.states[lane] = (np.uint64(words[start + _ONE]) << _WORD_BITS) | np.uint64(words[start])
        lanes.reads[lane] = start + _TWO
    offsets = coded.offsets
    offsets[0] = 0
    for n in range(0, num_labels, num_lanes):
        width = min(num_lanes, num_labels - n)
        if not _take_heads(lanes, width, n, words, num_words, lookup, labels, coded):
            return False
        # So many candidates of four labels are taken side by side, so that the lanes' waits overlap.
        together = _least_size(lanes) if width == NUM_LANES else _ZERO
        if not _take_places(lanes, width, together, words, num_words, lookup, labels.steps):
            return False
        for lane in range(width):
            if not _name_ids(lanes, lane, lookup, labels):
                return False
        if not _take_values(lanes, width, together, words, num_words, lookup, unit, labels):
            return False
        if not _take_rest(lanes, width, n, words, num_words, lookup, target_ids, labels, coded):
            return False
        place_labels(lanes, width, together, labels, lookup.log_of_level, coded)
    if offsets[num_labels] != len(coded.token_ids):
        return False
    for lane in range(num_lanes):
        if lanes.states[lane] != _LOW or lanes.reads[lane] != lane_starts[lane + 1]:
            return False
    return True


@inlined
def _unzigzag(n: int) -> int:
    return (n >> 1) ^ -(n & 1)


@inlined
def _take_heads(
    lanes: Lanes,
    width: int,
    n: int,
    words: NDArray[np.uint32],
    num_words: np.uint64,
    lookup: Lookup,
    labels: Round,
    coded: Coded,
) -> bool:
    """Read what stands before the ids of a label of each lane, a step in all lanes before the next one."""
    offsets, clusters, fits = coded.offsets, labels.clusters, labels.fits
    for lane in range(width):
        clusters[lane] = take_number(lanes, lane, CLUSTER_HIGH, lookup, words, num_words) << CLUSTER_LOW_BITS
    for lane in range(width):
        high = min(clusters[lane] >> CLUSTER_LOW_BITS, (MAX_CLUSTERS >> CLUSTER_LOW_BITS) - 1)
        clusters[lane] += take_number(lanes, lane, CLUSTER_LOW + high, lookup, words, num_words)
    for lane in range(width):
        lanes.shapes[lane] = take_number(lanes, lane, SHAPE, lookup, words, num_words)
    for lane in range(width):
        shape = min(np.int64(lanes.shapes[lane]), NUM_SHAPES - 1)
        fits[lane] = take_number(lanes, lane, FIT + shape, lookup, words, num_words)
    for lane in range(width):
        cluster, shape, fit = clusters[lane], np.int64(lanes.shapes[lane]), fits[lane]
        if cluster >= len(lookup.list_offsets) - 1 or shape >= NUM_SHAPES or fit >= NUM_FITS:
            return False
        size = lookup.size
        if size == 0:
            size = take_number(lanes, lane, SIZE + shape, lookup, words, num_words)
        first = offsets[n + lane]
        if size > MAX_SIZE or first + size > len(coded.token_ids):
            return False
        offsets[n + lane + 1] = first + size
        lanes.gap_contexts[lane] = GAP + fit * NUM_PLACES
        lanes.lists[lane] = lookup.list_offsets[cluster]
        lanes.num_listed[lane] = lookup.list_offsets[cluster + 1] - lookup.list_offsets[cluster]
        lanes.begins[lane] = 0
        lanes.firsts[lane], lanes.stops[lane] = first, first + size
    return True


@inlined
def _least_size(lanes: Lanes) -> np.uint64:
    """Return how many candidates each of the labels has at least."""
    first = min(lanes.stops[0] - lanes.firsts[0], lanes.stops[1] - lanes.firsts[1])
    return min(first, min(lanes.stops[2] - lanes.firsts[2], lanes.stops[3] - lanes.firsts[3]))


@inlined
def _are_inside(lanes: Lanes, num_words: np.uint64) -> bool:
    """Is the next word of each lane one of the record, or the one behind?"""
    last = max(max(lanes.reads[0], lanes.reads[1]), max(lanes.reads[2], lanes.reads[3]))
    return last <= num_words


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
    lanes: Lanes,
    width: int,
    together: np.uint64,
    words: NDArray[np.uint32],
    num_words: np.uint64,
    lookup: Lookup,
    places: NDArray[np.uint32],
) -> bool:
    """Read the places of a label of each lane, the first `together` of each lane side by side."""
    if together:
        if not _are_inside(lanes, num_words):
            return False
        # What the lanes change is held in variables, which become registers: a fifth less time than by arrays.
        state0, state1, state2, state3 = lanes.states[0], lanes.states[1], lanes.states[2], lanes.states[3]
        read0, read1, read2, read3 = lanes.reads[0], lanes.reads[1], lanes.reads[2], lanes.reads[3]
        gaps0, list0, listed0 = lanes.gap_contexts[0], lanes.lists[0], lanes.num_listed[0]
        gaps1, list1, listed1 = lanes.gap_contexts[1], lanes.lists[1], lanes.num_listed[1]
        gaps2, list2, listed2 = lanes.gap_contexts[2], lanes.lists[2], lanes.num_listed[2]
        gaps3, list3, listed3 = lanes.gap_contexts[3], lanes.lists[3], lanes.num_listed[3]
        begin0, begin1, begin2, begin3 = _ZERO, _ZERO, _ZERO, _ZERO
        for i in range(together):
            context = _gap_context(gaps0, begin0, list0, listed0, lookup)
            gap, state0, read0 = number_of(state0, read0, context, lookup, words)
            begin0 += gap
            places[i] = begin0
            begin0 += _ONE
            context = _gap_context(gaps1, begin1, list1, listed1, lookup)
            gap, state1, read1 = number_of(state1, read1, context, lookup, words)
            begin1 += gap
            places[i + _STRIDE] = begin1
            begin1 += _ONE
            context = _gap_context(gaps2, begin2, list2, listed2, lookup)
            gap, state2, read2 = number_of(state2, read2, context, lookup, words)
            begin2 += gap
            places[i + _STRIDE2] = begin2
            begin2 += _ONE
            context = _gap_context(gaps3, begin3, list3, listed3, lookup)
            gap, state3, read3 = number_of(state3, read3, context, lookup, words)
            begin3 += gap
            places[i + _STRIDE3] = begin3
            begin3 += _ONE
        lanes.states[0], lanes.states[1], lanes.states[2], lanes.states[3] = state0, state1, state2, state3
        lanes.reads[0], lanes.reads[1], lanes.reads[2], lanes.reads[3] = read0, read1, read2, read3
        lanes.begins[0], lanes.begins[1], lanes.begins[2], lanes.begins[3] = begin0, begin1, begin2, begin3
    for lane in range(width):
        begin, here = lanes.begins[lane], np.uint64(lane) * _STRIDE
        for i in range(here + together, here + lanes.stops[lane] - lanes.firsts[lane]):
            context = _gap_context(lanes.gap_contexts[lane], begin, lanes.lists[lane], lanes.num_listed[lane], lookup)
            begin += np.uint64(take_number(lanes, lane, np.int64(context >> _SYMBOL_BITS), lookup, words, num_words))
            places[i] = begin
            begin += _ONE
        lanes.begins[lane] = begin
    return True


@inlined
def _name_ids(lanes: Lanes, lane: int, lookup: Lookup, labels: Round) -> bool:
    """Turn a label's places into ids, and in `steps` into the contexts of their values."""
    steps, token_ids = labels.steps, labels.token_ids
    listed, num_listed = lanes.lists[lane], lanes.num_listed[lane]
    if lanes.begins[lane] > num_listed + np.uint64(len(lookup.id_of_rank)):  # behind the last place, the largest
        return False
    first_context = np.uint64(VALUE) + lanes.shapes[lane] * np.uint64(NUM_VALUE_PLACES)
    i = np.uint64(lane) * _STRIDE
    stop = i + lanes.stops[lane] - lanes.firsts[lane]
    while i < stop and steps[i] < num_listed:
        place = listed + np.uint64(steps[i])
        token_ids[i] = lookup.list_ids[place]
        steps[i] = (first_context + np.uint64(lookup.list_classes[place]) // _TWO) << _SYMBOL_BITS
        i += _ONE
    while i < stop:
        rank = np.uint64(steps[i]) - num_listed
        token_ids[i] = lookup.id_of_rank[rank]
        steps[i] = (first_context + np.uint64(value_place(rank_class(np.int64(rank))))) << _SYMBOL_BITS
        i += _ONE
    return True


@compiled
def _take_values(
    lanes: Lanes,
    width: int,
    together: np.uint64,
    words: NDArray[np.uint32],
    num_words: np.uint64,
    lookup: Lookup,
    unit: int,
    labels: Round,
) -> bool:
    """Read the levels of a label of each lane into `steps`; with exact values, also the bits behind each."""
    steps = labels.steps
    is_exact = lookup.weight_of_one == 0
    done = _ZERO
    if together and not is_exact:
        if not _are_inside(lanes, num_words):
            return False
        state0, state1, state2, state3 = lanes.states[0], lanes.states[1], lanes.states[2], lanes.states[3]
        read0, read1, read2, read3 = lanes.reads[0], lanes.reads[1], lanes.reads[2], lanes.reads[3]
        for i in range(together):
            level, state0, read0 = number_of(state0, read0, np.uint64(steps[i]), lookup, words)
            steps[i] = level
            level, state1, read1 = number_of(state1, read1, np.uint64(steps[i + _STRIDE]), lookup, words)
            steps[i + _STRIDE] = level
            level, state2, read2 = number_of(state2, read2, np.uint64(steps[i + _STRIDE2]), lookup, words)
            steps[i + _STRIDE2] = level
            level, state3, read3 = number_of(state3, read3, np.uint64(steps[i + _STRIDE3]), lookup, words)
            steps[i + _STRIDE3] = level
        lanes.states[0], lanes.states[1], lanes.states[2], lanes.states[3] = state0, state1, state2, state3
        lanes.reads[0], lanes.reads[1], lanes.reads[2], lanes.reads[3] = read0, read1, read2, read3
        done = together
    for lane in range(width):
        here = np.uint64(lane) * _STRIDE
        for i in range(here + done, here + lanes.stops[lane] - lanes.firsts[lane]):
            own = take_number(lanes, lane, np.int64(steps[i] >> SYMBOL_BITS), lookup, words, num_words)
            steps[i] = own
            if is_exact:
                if own > lookup.exact_base + 1:
                    return False
                bits = _take_exact(lanes, lane, words, num_words, own, unit, lookup.exact_base)
                labels.exact_bits[i] = bits
    return True


@inlined
def _take_exact(
    lanes: Lanes, lane: int, words: NDArray[np.uint32], num_words: np.uint64, level: int, unit: int, exact_base: int
) -> int:
    """Read what stands behind a level; return the bits of the float32."""
    high = exact_base + 1 - level
    zeros = min(max(unit - (high >> 3), 0), EXACT_REST_BITS)
    rest = take_bits(lanes, lane, 32 if level == 0 else EXACT_REST_BITS - zeros, words, num_words)
    return rest if level == 0 else (high << EXACT_REST_BITS) | (rest << zeros)


@compiled
def _take_rest(
    lanes: Lanes,
    width: int,
    n: int,
    words: NDArray[np.uint32],
    num_words: np.uint64,
    lookup: Lookup,
    target_ids: NDArray[np.int32],
    labels: Round,
    coded: Coded,
) -> bool:
    """Read what stands behind the values of a label of each lane, the first one's being label n.

    Each step is taken in all lanes before the next one, so that the lanes' waits overlap.
    """
    is_exact = lookup.weight_of_one == 0
    for lane in range(width):
        _sum_up(lanes, lane, target_ids[n + lane], labels)
        if not is_exact and lanes.highest[lane] >= np.uint64(len(lookup.log_of_level)):
            return False
    if len(coded.draw_counts):
        for lane in range(width):
            _take_draw_counts(lanes, lane, words, num_words, lookup, labels)
    for lane in range(width):
        tail = (
            _take_exact_tail(lanes, lane, words, num_words, lookup, labels)
            if is_exact
            else _take_tail(lanes, lane, words, num_words, lookup, labels)
        )
        if tail < 0:
            return False
        coded.tails[n + lane] = tail
    for lane in range(width):
        coded.ranks[n + lane] = _take_rank(lanes, lane, words, num_words, lookup, labels, len(coded.draw_counts) > 0)
    for lane in range(width):
        coded.targets[n + lane] = (
            _take_exact_target(lanes, lane, words, num_words, lookup, labels)
            if is_exact
            else _take_target(lanes, lane, words, num_words, lookup, labels)
        )
    if len(coded.entropies):
        for lane in range(width):
            coded.entropies[n + lane] = take_bits(lanes, lane, 32 if is_exact else 16, words, num_words)
    return True


@inlined
def _sum_up(lanes: Lanes, lane: int, target_id: int, labels: Round) -> None:
    """Find a label's target among its candidates, its highest and lowest level, and what its levels weigh."""
    size, here = lanes.stops[lane] - lanes.firsts[lane], np.uint64(lane) * _STRIDE
    squares, lowest, highest, target = _ZERO, np.uint32(0xFFFFFFFF), np.uint32(0), np.int32(-1)
    for i in range(size):
        own = labels.steps[here + i]
        squares += np.uint64(own) * np.uint64(own)
        lowest, highest = min(lowest, own), max(highest, own)
    for i in range(size):
        target = max(target, np.int32(i) if labels.token_ids[here + i] == target_id else np.int32(-1))
    lanes.highest[lane] = highest
    labels.lowest[lane] = lowest
    labels.weights[lane] = 12 * squares + size
    labels.targets[lane] = target
    labels.target_levels[lane] = np.int64(labels.steps[here + np.uint64(target)]) if target >= 0 else 0


@inlined
def _take_draw_counts(
    lanes: Lanes, lane: int, words: NDArray[np.uint32], num_words: np.uint64, lookup: Lookup, labels: Round
) -> None:
    """Read how often each candidate was drawn; where there is an exact head, only that has a weight."""
    here, head = np.uint64(lane) * _STRIDE, np.int64(0)
    for i in range(here, here + lanes.stops[lane] - lanes.firsts[lane]):
        level = np.int64(labels.steps[i])
        count = take_number(lanes, lane, COUNT + min(15, level), lookup, words, num_words)
        labels.draw_counts[i] = count
        if count == 0:
            head += 12 * level * level + 1
    if head:
        labels.weights[lane] = head


@inlined
def _take_tail(
    lanes: Lanes, lane: int, words: NDArray[np.uint32], num_words: np.uint64, lookup: Lookup, labels: Round
) -> int:
    """Read the code of the tail mass; -1 or less for damage."""
    weight = labels.weights[lane]
    expected = np.int64(expected_tail(weight, lookup.weight_of_one))
    tail = expected + _unzigzag(take_number(lanes, lane, TAIL + bit_length(expected), lookup, words, num_words))
    if tail < 0 or tail > TAIL_CODES:
        return -1
    labels.shifts[lane] = lookup.log_of_kept[tail] - ln_fixed_one(max(weight, 1))
    return tail


@inlined
def _take_exact_tail(
    lanes: Lanes, lane: int, words: NDArray[np.uint32], num_words: np.uint64, lookup: Lookup, labels: Round
) -> int:
    """Read the bits of the tail mass, then which of equal candidates at the top is the first; -1 for damage."""
    tail = take_bits(lanes, lane, 32, words, num_words)
    here = np.uint64(lane) * _STRIDE
    stop = here + lanes.stops[lane] - lanes.firsts[lane]
    top, num_equal, leader = np.uint32(0xFFFFFFFF), np.int64(0), np.int64(0)
    for i in range(here, stop):
        top = min(top, labels.exact_bits[i])
    for i in range(here, stop):
        num_equal += labels.exact_bits[i] == top
    if num_equal > 1:
        leader = take_number(lanes, lane, TAIL, lookup, words, num_words)
    labels.shifts[lane] = leader
    return tail if leader < max(num_equal, 1) else np.int64(-1)


@inlined
def _take_rank(
    lanes: Lanes,
    lane: int,
    words: NDArray[np.uint32],
    num_words: np.uint64,
    lookup: Lookup,
    labels: Round,
    has_draws: bool,
) -> int:
    size, here = lanes.stops[lane] - lanes.firsts[lane], np.uint64(lane) * _STRIDE
    context, above = RANK_OUTSIDE + np.int64(lanes.shapes[lane]), np.int64(size)
    if labels.targets[lane] >= 0 and not has_draws:
        own = np.uint32(labels.target_levels[lane])
        above, equal = np.int64(0), np.int64(0)
        for i in range(here, here + size):
            above += labels.steps[i] > own
            equal += labels.steps[i] == own
        context = RANK_INSIDE + bit_length(equal)
    rank = take_number(lanes, lane, context, lookup, words, num_words)
    return rank if has_draws else above + 1 + _unzigzag(rank)


@inlined
def _take_target(
    lanes: Lanes, lane: int, words: NDArray[np.uint32], num_words: np.uint64, lookup: Lookup, labels: Round
) -> int:
    """Read the code of the target's logprob."""
    guess, context, level = np.int64(0), TARGET_OUTSIDE + np.int64(lanes.shapes[lane]), labels.target_levels[lane]
    if labels.targets[lane] >= 0:
        guess = target_code(lookup.log_of_level[level] + labels.shifts[lane])
        context = TARGET_INSIDE + bit_length(level)
    elif lanes.stops[lane] > lanes.firsts[lane]:
        guess = target_code(lookup.log_of_level[labels.lowest[lane]] + labels.shifts[lane])
    return guess + _unzigzag(take_number(lanes, lane, context, lookup, words, num_words))


@inlined
def _take_exact_target(
    lanes: Lanes, lane: int, words: NDArray[np.uint32], num_words: np.uint64, lookup: Lookup, labels: Round
) -> int:
    """Read the bits of the target's logprob where they are not those of its candidate."""
    target = labels.targets[lane]
    if target >= 0 and take_number(lanes, lane, TARGET_INSIDE, lookup, words, num_words) == 0:
        return np.int64(labels.exact_bits[np.uint64(lane) * _STRIDE + np.uint64(target)])
    return take_bits(lanes, lane, 32, words, num_words)
