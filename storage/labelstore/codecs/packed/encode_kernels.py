"""From labels to bytes, compiled: each label becomes a run of coding steps, each lane's steps a run of words.

A coding step is (context + 1) << 40 | low bits << 7 | symbol for a number, or number of bits << 32 | bits for some
bits as they are. Arrays: N
labels and C candidates of a record, S ids that training saw, Z clusters. A label's candidates are coded by rising
place in its cluster's order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.compiled import (
    allocating,
    bit_length,
    compiled,
    expected_tail,
    inlined,
    ln_fixed_one,
    number_symbol,
    rank_class,
    target_code,
    value_place,
)
from labelstore.codecs.packed.layout import (
    CLUSTER_HIGH,
    CLUSTER_LOW,
    CLUSTER_LOW_BITS,
    COUNT,
    DIRECT,
    DIRECT_BITS,
    ESCAPE,
    FIT,
    GAP,
    MAX_LISTED,
    MAX_SIZE,
    NUM_FITS,
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
    TARGET_INSIDE,
    TARGET_OUTSIDE,
    VALUE,
)

__all__ = [
    "EMPTY_SLOT",
    "Chosen",
    "Values",
    "assign_clusters",
    "choose_classes",
    "code_steps",
    "fill_hashes",
    "find_gaps",
    "find_places",
    "label_steps",
]

_CONTEXT_SHIFT, _LOW_MASK = np.uint64(40), np.uint64((1 << (40 - SYMBOL_BITS)) - 1)
_SYMBOL_WIDTH, _SYMBOL_MASK, _DIRECT = np.uint64(SYMBOL_BITS), np.uint64((1 << SYMBOL_BITS) - 1), np.uint64(DIRECT)
_WORD_WIDTH, _WORD_MASK = np.uint64(32), np.uint64(0xFFFFFFFF)
EMPTY_SLOT = np.uint64(0xFFFFFFFFFFFFFFFF)  # of a cluster's hash table
_ZERO, _ONE, _THREE = np.uint64(0), np.uint64(1), np.uint64(3)
_NUM_SHAPES, _NUM_FITS = np.uint64(NUM_SHAPES), np.uint64(NUM_FITS)
_PLACE_WIDTH, _PLACE_MASK = np.uint64(32), np.uint64(0xFFFFFFFF)
_MAX_SUMMED_IDS = 250  # so many scores fit 16 bits


class Values(NamedTuple):
    """One record's values as integers; see values.py."""

    levels: NDArray[np.int32]  # [C], the more the likelier
    rests: NDArray[np.uint32]  # [C], low bits of an exact value
    rest_bits: NDArray[np.uint8]  # [C], how many
    exact_bits: NDArray[np.int64]  # [C] or [0], of exact values
    log_of_level: NDArray[np.int64]  # logarithm of a level's weight
    log_of_kept: NDArray[np.int64]  # [513], logarithm of 1 - tail mass by its code
    tails: NDArray[np.int64]  # [N], code of the tail mass, or its bits
    targets: NDArray[np.int64]  # [N], code of the target's logprob, or its bits
    entropies: NDArray[np.uint32]  # [N] or [0], as they are
    weight_of_one: int  # what the weights of all candidates and the tail add up to; 0: exact values


class Chosen(NamedTuple):
    """What one record's labels hold, and how each label is to be coded. By place: as `order` says, in each label."""

    token_ids: NDArray[np.int32]  # [C]
    offsets: NDArray[np.int64]  # [N + 1]
    draw_counts: NDArray[np.int32]  # [C] or [0]
    target_ids: NDArray[np.int32]  # [N]
    target_ranks: NDArray[np.int32]  # [N]
    clusters: NDArray[np.int32]  # [N]
    shapes: NDArray[np.int64]  # [N]
    fits: NDArray[np.int64]  # [N]
    gaps: NDArray[np.int64]  # [C], by place
    begins: NDArray[np.uint8]  # [C], by place: the class of the place where a gap begins
    classes: NDArray[np.uint8]  # [C], by place: the class of a candidate's own place
    order: NDArray[np.int64]  # [C], by place: which candidate it is
    is_constant_size: bool


def assign_clusters(
    ranks: NDArray[np.int32],
    offsets: NDArray[np.int64],
    max_ids: int,
    scores: NDArray[np.int8],
    priors: NDArray[np.int16],
    clusters: NDArray[np.int32],
) -> None:
    """Find the cluster [N] that a label's likeliest ids, given as ranks [C], at most `max_ids`, speak for most."""
    rows = np.empty(min(max_ids, _MAX_SUMMED_IDS), np.int64)
    _assign_clusters(ranks, offsets, scores, priors, np.empty_like(priors), rows, clusters)


@compiled
def _assign_clusters(
    ranks: NDArray[np.int32],
    offsets: NDArray[np.int64],
    scores: NDArray[np.int8],
    priors: NDArray[np.int16],
    sums: NDArray[np.int16],
    rows: NDArray[np.int64],
    clusters: NDArray[np.int32],
) -> None:
    for n in range(len(offsets) - 1):
        for z in range(len(priors)):
            sums[z] = priors[z]
        num_rows = 0
        for c in range(offsets[n], min(offsets[n + 1], offsets[n] + len(rows))):
            if ranks[c] < len(scores):
                rows[num_rows] = ranks[c]
                num_rows += 1
        first = 0
        while first + 4 <= num_rows:  # four at once: the sums are read and written a fourth as often
            _add_rows(sums, scores, rows[first], rows[first + 1], rows[first + 2], rows[first + 3])
            first += 4
        for i in range(first, num_rows):
            _add_row(sums, scores[rows[i]])
        clusters[n] = _first_highest(sums)


@compiled
def _add_rows(sums: NDArray[np.int16], scores: NDArray[np.int8], a: int, b: int, c: int, d: int) -> None:
    row_a, row_b, row_c, row_d = scores[a], scores[b], scores[c], scores[d]
    for z in range(np.uint64(len(sums))):
        sums[z] += (np.int16(row_a[z]) + np.int16(row_b[z])) + (np.int16(row_c[z]) + np.int16(row_d[z]))


@compiled
def _add_row(sums: NDArray[np.int16], row: NDArray[np.int8]) -> None:
    for z in range(np.uint64(len(sums))):
        sums[z] += np.int16(row[z])


@compiled
def _first_highest(sums: NDArray[np.int16]) -> int:
    highest = sums[0]
    for z in range(np.uint64(len(sums))):  # apart from the search, as this becomes vector instructions
        highest = max(highest, sums[z])
    z = 0
    while sums[z] != highest:
        z += 1
    return z


@compiled
def fill_hashes(
    list_offsets: NDArray[np.int32],
    list_ranks: NDArray[np.int32],
    slot_offsets: NDArray[np.int64],
    slots: NDArray[np.uint64],
) -> None:
    """Fill each cluster's hash table of rank << 32 | place; `slots` is EMPTY_SLOT everywhere.

    Cluster z has slot_offsets[z] : slot_offsets[z + 1], a power of two and more than the entries of its list.
    """
    for z in range(len(list_offsets) - 1):
        first, mask = slot_offsets[z], np.uint64(slot_offsets[z + 1] - slot_offsets[z] - 1)
        for i in range(list_offsets[z], list_offsets[z + 1]):
            rank = np.uint64(list_ranks[i])
            slot = _hash(rank) & mask
            while slots[np.uint64(first) + slot] != EMPTY_SLOT:
                slot = (slot + _ONE) & mask
            slots[np.uint64(first) + slot] = (rank << _PLACE_WIDTH) | np.uint64(i - list_offsets[z])


@inlined
def _hash(rank: np.uint64) -> np.uint64:
    return (rank * np.uint64(0x9E3779B1)) >> np.uint64(12)


@compiled
def _raw_step(num_bits: int, value: int) -> int:
    return (num_bits << 32) | value


@compiled
def _number_step(context: int, n: int) -> int:
    symbol, num_bits = number_symbol(n)
    return ((context + 1) << 40) | ((n & ((1 << num_bits) - 1)) << SYMBOL_BITS) | symbol


@compiled
def _zigzag(n: int) -> int:
    return 2 * n if n >= 0 else -2 * n - 1


def find_places(
    ranks: NDArray[np.int32],
    offsets: NDArray[np.int64],
    clusters: NDArray[np.int32],
    list_offsets: NDArray[np.int32],
    slot_offsets: NDArray[np.int64],
    slots: NDArray[np.uint64],
    places: NDArray[np.int64],
    order: NDArray[np.int64],
) -> int:
    """Fill each candidate's place in its label's cluster [C], rising in each label, and which candidate it is [C].

    Returns the first label that has an id twice, -1 if none has.
    """
    is_taken = np.zeros(MAX_LISTED >> 6, np.uint64)
    owners, unlisted = np.empty(MAX_LISTED, np.int64), np.empty(MAX_SIZE, np.uint64)
    return _find_places(
        ranks, offsets, clusters, list_offsets, slot_offsets, slots, is_taken, owners, unlisted, places, order
    )


@compiled
def _find_places(
    ranks: NDArray[np.int32],
    offsets: NDArray[np.int64],
    clusters: NDArray[np.int32],
    list_offsets: NDArray[np.int32],
    slot_offsets: NDArray[np.int64],
    slots: NDArray[np.uint64],
    is_taken: NDArray[np.uint64],
    owners: NDArray[np.int64],
    unlisted: NDArray[np.uint64],
    places: NDArray[np.int64],
    order: NDArray[np.int64],
) -> int:
    # `is_taken` has a bit for each place of the list, and is 0 before and behind. Indices are unsigned: a signed one
    # is looked at for its sign at each use.
    for n in range(len(clusters)):
        cluster = np.uint64(clusters[n])
        num_listed = np.uint64(list_offsets[cluster + _ONE] - list_offsets[cluster])
        first_slot = np.uint64(slot_offsets[cluster])
        mask = np.uint64(slot_offsets[cluster + _ONE]) - first_slot - _ONE
        at, stop = np.uint64(offsets[n]), np.uint64(offsets[n + 1])
        for c in range(at, stop):  # apart from what follows, so that the waits for memory overlap
            rank = np.uint64(ranks[c])
            slot = _hash(rank) & mask
            entry = slots[first_slot + slot]
            while entry != EMPTY_SLOT and entry >> _PLACE_WIDTH != rank:
                slot = (slot + _ONE) & mask
                entry = slots[first_slot + slot]
            places[c] = num_listed + rank if entry == EMPTY_SLOT else entry & _PLACE_MASK
        num_unlisted = _ZERO
        for c in range(at, stop):
            place = np.uint64(places[c])
            if place >= num_listed:
                unlisted[num_unlisted] = (place << _PLACE_WIDTH) | c
                num_unlisted += _ONE
                continue
            bit = _ONE << (place & np.uint64(63))
            if is_taken[place >> np.uint64(6)] & bit:
                return n
            is_taken[place >> np.uint64(6)] |= bit
            owners[place] = c
        for block in range((num_listed + np.uint64(63)) >> np.uint64(6)):
            bits = is_taken[block]
            is_taken[block] = 0
            while bits:
                place = (block << np.uint64(6)) + np.uint64(bit_length(np.int64(bits & (~bits + _ONE))) - 1)
                places[at], order[at] = place, owners[place]
                at += _ONE
                bits &= bits - _ONE
        _sort(unlisted, num_unlisted)
        for i in range(num_unlisted):
            places[at], order[at] = unlisted[i] >> _PLACE_WIDTH, unlisted[i] & _PLACE_MASK
            if i and places[at] == places[at - _ONE]:
                return n
            at += _ONE
    return -1


@compiled
def _sort(keys: NDArray[np.uint64], num_keys: np.uint64) -> None:
    """Sort in place: a handful by moving each key a little, more of them over falling distances first."""
    distance = _ONE
    while distance * _THREE < num_keys:
        distance = distance * _THREE + _ONE
    while distance > _ZERO:
        for i in range(distance, num_keys):
            key, to = keys[i], i
            while to >= distance and keys[to - distance] > key:
                keys[to] = keys[to - distance]
                to -= distance
            keys[to] = key
        distance //= _THREE


@compiled
def find_gaps(
    offsets: NDArray[np.int64],
    clusters: NDArray[np.int32],
    places: NDArray[np.int64],
    list_offsets: NDArray[np.int32],
    list_classes: NDArray[np.uint8],
    gaps: NDArray[np.int64],
    begins: NDArray[np.uint8],
    classes: NDArray[np.uint8],
) -> None:
    """Fill the gaps [C] between a label's places, and the classes [C] of where they begin and of the places."""
    for n in range(len(clusters)):
        listed = np.int64(list_offsets[clusters[n]])
        num_listed = np.int64(list_offsets[clusters[n] + 1]) - listed
        begin = np.int64(0)
        for i in range(offsets[n], offsets[n + 1]):
            place = places[i]
            begins[i] = _class_of(begin, listed, num_listed, list_classes)
            classes[i] = _class_of(place, listed, num_listed, list_classes)
            gaps[i] = place - begin
            begin = place + 1


@compiled
def _class_of(place: int, listed: int, num_listed: int, list_classes: NDArray[np.uint8]) -> int:
    return np.int64(list_classes[listed + place]) if place < num_listed else rank_class(place - num_listed)


@allocating
def choose_classes(
    offsets: NDArray[np.int64],
    gaps: NDArray[np.int64],
    begins: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    order: NDArray[np.int64],
    levels: NDArray[np.int32],
    value_costs: NDArray[np.float32],
    shape_costs: NDArray[np.float32],
    gap_costs: NDArray[np.float32],
    fit_costs: NDArray[np.float32],
    shapes: NDArray[np.int64],
    fits: NDArray[np.int64],
) -> None:
    """Fill the shape [N] and the fit [N] with which each label costs least."""
    shape_sums = np.empty(NUM_SHAPES, np.float32)
    fit_sums = np.empty(NUM_FITS, np.float32)
    for n in range(len(shapes)):
        first, stop = offsets[n], offsets[n + 1]
        shape_sums[:] = shape_costs
        for i in range(np.uint64(first), np.uint64(stop)):
            level = np.int64(levels[np.uint64(order[i])])
            place, symbol = np.uint64(value_place(classes[i])), np.uint64(number_symbol(level)[0])
            for s in range(_NUM_SHAPES):
                shape_sums[s] += value_costs[place, symbol, s]
        shapes[n] = np.argmin(shape_sums)
        for f in range(NUM_FITS):
            fit_sums[f] = fit_costs[shapes[n], f]
        for i in range(np.uint64(first), np.uint64(stop)):
            symbol = np.uint64(number_symbol(gaps[i])[0])
            for f in range(_NUM_FITS):
                fit_sums[f] += gap_costs[begins[i], symbol, f]
        fits[n] = np.argmin(fit_sums)


@compiled
def label_steps(chosen: Chosen, values: Values, steps: NDArray[np.int64], step_offsets: NDArray[np.int64]) -> None:
    """Write the coding steps of one record's labels; those of label n are step_offsets[n] : step_offsets[n + 1]."""
    order, begins, classes, draw_counts = chosen.order, chosen.begins, chosen.classes, chosen.draw_counts
    levels, rests, rest_bits = values.levels, values.rests, values.rest_bits
    at = np.int64(0)
    step_offsets[0] = 0
    for n in range(len(chosen.clusters)):
        first, stop = chosen.offsets[n], chosen.offsets[n + 1]
        cluster, shape, fit = np.int64(chosen.clusters[n]), chosen.shapes[n], chosen.fits[n]
        high = cluster >> CLUSTER_LOW_BITS
        steps[at] = _number_step(CLUSTER_HIGH, high)
        steps[at + 1] = _number_step(CLUSTER_LOW + high, cluster & ((1 << CLUSTER_LOW_BITS) - 1))
        steps[at + 2] = _number_step(SHAPE, shape)
        steps[at + 3] = _number_step(FIT + shape, fit)
        at += 4
        if not chosen.is_constant_size:
            steps[at] = _number_step(SIZE + shape, stop - first)
            at += 1
        for i in range(first, stop):
            steps[at] = _number_step(GAP + fit * NUM_PLACES + begins[i], chosen.gaps[i])
            at += 1
        for i in range(first, stop):
            candidate = order[i]
            context = VALUE + shape * NUM_VALUE_PLACES + value_place(classes[i])
            steps[at] = _number_step(context, np.int64(levels[candidate]))
            at += 1
            if rest_bits[candidate]:
                steps[at] = _raw_step(np.int64(rest_bits[candidate]), np.int64(rests[candidate]))
                at += 1
        for i in range(first, stop if len(draw_counts) else first):
            level = np.int64(levels[order[i]])
            steps[at] = _number_step(COUNT + min(15, level), np.int64(draw_counts[order[i]]))
            at += 1
        at = _put_rest(n, chosen, values, steps, at)
        step_offsets[n + 1] = at


@compiled
def _put_rest(n: int, chosen: Chosen, values: Values, steps: NDArray[np.int64], at: int) -> int:
    """Write a label's tail mass, target and entropy."""
    first, stop, shape = chosen.offsets[n], chosen.offsets[n + 1], chosen.shapes[n]
    draw_counts, order, levels, exact_bits = chosen.draw_counts, chosen.order, values.levels, values.exact_bits
    is_exact = values.weight_of_one == 0
    target, lowest = np.int64(-1), np.int64(1 << 30)
    weight, head = np.int64(0), np.int64(0)
    for c in range(first, stop):
        level = np.int64(levels[c])
        if chosen.token_ids[c] == chosen.target_ids[n]:
            target = c
        lowest = min(lowest, level)
        weight += 12 * level * level + 1
        if len(draw_counts) and draw_counts[c] == 0:
            head += 12 * level * level + 1
    if head:
        weight = head
    shift = np.int64(0)
    if is_exact:
        steps[at] = _raw_step(32, values.tails[n])
        at += 1
        # Which of equal candidates at the top is the first, counted by place: argmax is to stay what it was.
        num_equal, leader = np.int64(0), np.int64(0)
        for i in range(first, stop):
            if exact_bits[order[i]] == exact_bits[first]:
                if order[i] == first:
                    leader = num_equal
                num_equal += 1
        if num_equal > 1:
            steps[at] = _number_step(TAIL, leader)
            at += 1
    else:
        expected = np.int64(expected_tail(weight, values.weight_of_one))
        steps[at] = _number_step(TAIL + bit_length(expected), _zigzag(values.tails[n] - expected))
        at += 1
        shift = values.log_of_kept[values.tails[n]] - ln_fixed_one(max(weight, 1))

    rank = np.int64(chosen.target_ranks[n])
    if len(draw_counts):
        steps[at] = _number_step(RANK_OUTSIDE + shape, rank)
        at += 1
    elif target >= 0:
        above, equal = np.int64(0), np.int64(0)
        for c in range(first, stop):
            above += levels[c] > levels[target]
            equal += levels[c] == levels[target]
        steps[at] = _number_step(RANK_INSIDE + bit_length(equal), _zigzag(rank - above - 1))
        at += 1
    else:
        steps[at] = _number_step(RANK_OUTSIDE + shape, _zigzag(rank - (stop - first) - 1))
        at += 1

    if is_exact:
        is_stored = True
        if target >= 0:
            is_stored = values.targets[n] != exact_bits[target]
            steps[at] = _number_step(TARGET_INSIDE, np.int64(is_stored))
            at += 1
        if is_stored:
            steps[at] = _raw_step(32, values.targets[n])
            at += 1
    else:
        expected, context = np.int64(0), TARGET_OUTSIDE + shape
        if target >= 0:
            expected = target_code(values.log_of_level[levels[target]] + shift)
            context = TARGET_INSIDE + bit_length(np.int64(levels[target]))
        elif stop > first:
            expected = target_code(values.log_of_level[lowest] + shift)
        steps[at] = _number_step(context, _zigzag(values.targets[n] - expected))
        at += 1
    if len(values.entropies):
        steps[at] = _raw_step(32 if is_exact else 16, np.int64(values.entropies[n]))
        at += 1
    return at


@compiled
def code_steps(
    steps: NDArray[np.int64],
    step_offsets: NDArray[np.int64],
    num_lanes: int,
    entries: NDArray[np.uint32],
    buffer: NDArray[np.uint32],
    lane_words: NDArray[np.int64],
) -> int:
    """Code a record's steps into the end of a buffer of words; return where they start.

    `entries` is what tables.coding_entries returns. The words of lane 0 stand first; each lane's are its last state's
    two words, low one first, and then what the decoder reads, in the order it does.
    """
    at = np.uint64(len(buffer))
    num_labels = len(step_offsets) - 1
    for lane in range(num_lanes - 1, -1, -1):
        end = at
        state = np.uint64(STATE_LOW)
        last = lane + (num_labels - 1 - lane) // num_lanes * num_lanes
        for n in range(last, -1, -num_lanes):
            i, first = np.uint64(step_offsets[n + 1]), np.uint64(step_offsets[n])
            while i > first:
                i -= _ONE
                step = np.uint64(steps[i])
                context = step >> _CONTEXT_SHIFT
                if context > _ZERO:
                    symbol = step & _SYMBOL_MASK
                    low = (step >> _SYMBOL_WIDTH) & _LOW_MASK
                    width = _ZERO
                    if symbol >= _DIRECT:
                        width = np.uint64(DIRECT_BITS - 2) + ((symbol - _DIRECT) >> np.uint64(2))
                    entry = np.uint64(entries[context - _ONE, symbol])
                    if entry == _ZERO:  # a symbol that training did not see
                        state, at = _with_bits(state, low, width, buffer, at)
                        low, width = symbol, _SYMBOL_WIDTH
                        entry = np.uint64(entries[context - _ONE, np.uint64(ESCAPE)])
                    frequency, start = entry >> np.uint64(16), entry & np.uint64(0xFFFF)
                    if state >= frequency << (np.uint64(64 - TABLE_BITS) - width):
                        at -= _ONE
                        buffer[at] = state & _WORD_MASK
                        state >>= _WORD_WIDTH
                    state = (state << width) | low
                    state = (state // frequency << np.uint64(TABLE_BITS)) + state % frequency + start
                else:
                    state, at = _with_bits(state, step & _WORD_MASK, step >> _WORD_WIDTH, buffer, at)
        at -= _ONE
        buffer[at] = state >> _WORD_WIDTH
        at -= _ONE
        buffer[at] = state & _WORD_MASK
        lane_words[lane] = end - at
    return np.int64(at)


@inlined
def _with_bits(
    state: np.uint64, value: np.uint64, num_bits: np.uint64, buffer: NDArray[np.uint32], at: np.uint64
) -> tuple[np.uint64, np.uint64]:
    """Return a state with some bits as they are in it, and where the words in the buffer begin then."""
    if num_bits and state >> (np.uint64(64) - num_bits):
        at -= _ONE
        buffer[at] = state & _WORD_MASK
        state >>= _WORD_WIDTH
    return (state << num_bits) | value, at
