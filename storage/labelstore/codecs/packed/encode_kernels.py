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

_LOW_MASK = (1 << (40 - SYMBOL_BITS)) - 1
_MAX_MOVED = 32  # keys that are sorted by moving
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


@allocating
def assign_clusters(
    ranks: NDArray[np.int32],
    offsets: NDArray[np.int64],
    max_ids: int,
    scores: NDArray[np.int8],
    priors: NDArray[np.int16],
    clusters: NDArray[np.int32],
) -> None:
    """Find the cluster [N] that a label's likeliest ids, given as ranks [C], at most `max_ids`, speak for most."""
    num_scored, num_clusters = scores.shape
    sums = np.empty(num_clusters, np.int16)
    for n in range(len(offsets) - 1):
        sums[:] = priors
        for c in range(offsets[n], min(offsets[n + 1], offsets[n] + min(max_ids, _MAX_SUMMED_IDS))):
            if ranks[c] < num_scored:
                _add_row(sums, scores[ranks[c]])
        clusters[n] = _first_highest(sums)


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
    slots: NDArray[np.int64],
) -> None:
    """Fill each cluster's hash table of rank << 32 | place; `slots` is -1 everywhere.

    Cluster z has slot_offsets[z] : slot_offsets[z + 1], a power of two and more than the entries of its list.
    """
    for z in range(len(list_offsets) - 1):
        first, mask = slot_offsets[z], slot_offsets[z + 1] - slot_offsets[z] - 1
        for i in range(list_offsets[z], list_offsets[z + 1]):
            slot = _hash(np.int64(list_ranks[i])) & mask
            while slots[first + slot] >= 0:
                slot = (slot + 1) & mask
            slots[first + slot] = (np.int64(list_ranks[i]) << 32) | (i - list_offsets[z])


@compiled
def _hash(rank: int) -> int:
    return (rank * 0x9E3779B1) >> 12


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


@allocating
def find_places(
    ranks: NDArray[np.int32],
    offsets: NDArray[np.int64],
    clusters: NDArray[np.int32],
    list_offsets: NDArray[np.int32],
    slot_offsets: NDArray[np.int64],
    slots: NDArray[np.int64],
    places: NDArray[np.int64],
    order: NDArray[np.int64],
) -> int:
    """Fill each candidate's place in its label's cluster [C], rising in each label, and which candidate it is [C].

    Returns the first label that has an id twice, -1 if none has.
    """
    is_taken = np.zeros(MAX_LISTED >> 6, np.uint64)  # a bit for each place of the list
    owners = np.empty(MAX_LISTED, np.int64)
    unlisted = np.empty(MAX_SIZE, np.int64)
    for n in range(len(clusters)):
        cluster = clusters[n]
        num_listed = np.int64(list_offsets[cluster + 1] - list_offsets[cluster])
        first_slot, mask = slot_offsets[cluster], slot_offsets[cluster + 1] - slot_offsets[cluster] - 1
        at, stop = offsets[n], offsets[n + 1]
        for c in range(at, stop):  # apart from what follows, so that the waits for memory overlap
            rank = np.int64(ranks[c])
            slot = _hash(rank) & mask
            entry = slots[first_slot + slot]
            while entry >= 0 and entry >> 32 != rank:
                slot = (slot + 1) & mask
                entry = slots[first_slot + slot]
            places[c] = entry & 0xFFFFFFFF if entry >= 0 else num_listed + rank
        num_unlisted = 0
        for c in range(at, stop):
            place = places[c]
            if place >= num_listed:
                unlisted[num_unlisted] = place << 32 | c
                num_unlisted += 1
                continue
            bit = np.uint64(1) << np.uint64(place & 63)
            if is_taken[place >> 6] & bit:
                return n
            is_taken[place >> 6] |= bit
            owners[place] = c
        for block in range((num_listed + 63) >> 6):
            bits = is_taken[block]
            is_taken[block] = 0
            while bits:
                place = (block << 6) + bit_length(bits & (~bits + np.uint64(1))) - 1
                places[at], order[at] = place, owners[place]
                at += 1
                bits &= bits - np.uint64(1)
        _sort_few(unlisted[:num_unlisted])
        for i in range(num_unlisted):
            places[at], order[at] = unlisted[i] >> 32, unlisted[i] & 0xFFFFFFFF
            if i and places[at] == places[at - 1]:
                return n
            at += 1
    return -1


@allocating
def _sort_few(keys: NDArray[np.int64]) -> None:
    """Sort by moving each key a little, which is best for a handful; more are left to a general sort."""
    if len(keys) > _MAX_MOVED:
        keys.sort()
        return
    for i in range(1, len(keys)):
        key, at = keys[i], i
        while at > 0 and keys[at - 1] > key:
            keys[at] = keys[at - 1]
            at -= 1
        keys[at] = key


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
        for i in range(first, stop):
            place, symbol = value_place(classes[i]), number_symbol(levels[order[i]])[0]
            for s in range(NUM_SHAPES):
                shape_sums[s] += value_costs[place, symbol, s]
        shapes[n] = np.argmin(shape_sums)
        for f in range(NUM_FITS):
            fit_sums[f] = fit_costs[shapes[n], f]
        for i in range(first, stop):
            symbol = number_symbol(gaps[i])[0]
            for f in range(NUM_FITS):
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
    at = len(buffer)
    num_labels = len(step_offsets) - 1
    for lane in range(num_lanes - 1, -1, -1):
        end = at
        state = np.uint64(STATE_LOW)
        last = lane + (num_labels - 1 - lane) // num_lanes * num_lanes
        for n in range(last, -1, -num_lanes):
            for i in range(step_offsets[n + 1] - 1, step_offsets[n] - 1, -1):
                step = steps[i]
                context = (step >> 40) - 1
                if context >= 0:
                    symbol = step & ((1 << SYMBOL_BITS) - 1)
                    low = np.uint64((step >> SYMBOL_BITS) & _LOW_MASK)
                    width = np.uint64(DIRECT_BITS - 2 + ((symbol - DIRECT) >> 2)) if symbol >= DIRECT else np.uint64(0)
                    entry = entries[context, symbol]
                    if entry == 0:  # a symbol that training did not see
                        state, at = _with_bits(state, low, width, buffer, at)
                        low, width = np.uint64(symbol), np.uint64(SYMBOL_BITS)
                        entry = entries[context, ESCAPE]
                    frequency, start = np.uint64(entry >> 16), np.uint64(entry & 0xFFFF)
                    if state >= frequency << (np.uint64(64 - TABLE_BITS) - width):
                        at -= 1
                        buffer[at] = np.uint32(state & np.uint64(0xFFFFFFFF))
                        state >>= np.uint64(32)
                    state = (state << width) | low
                    state = (state // frequency << np.uint64(TABLE_BITS)) + state % frequency + start
                else:
                    state, at = _with_bits(state, np.uint64(step & 0xFFFFFFFF), np.uint64(step >> 32), buffer, at)
        at -= 1
        buffer[at] = np.uint32(state >> np.uint64(32))
        at -= 1
        buffer[at] = np.uint32(state & np.uint64(0xFFFFFFFF))
        lane_words[lane] = end - at
    return at


@compiled
def _with_bits(
    state: np.uint64, value: np.uint64, num_bits: np.uint64, buffer: NDArray[np.uint32], at: int
) -> tuple[np.uint64, int]:
    """Return a state with some bits as they are in it, and where the words in the buffer begin then."""
    if num_bits and state >> (np.uint64(64) - num_bits):
        at -= 1
        buffer[at] = np.uint32(state & np.uint64(0xFFFFFFFF))
        state >>= np.uint64(32)
    return (state << num_bits) | value, at
