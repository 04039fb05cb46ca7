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
    ESCAPE,
    FIT,
    GAP,
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
from labelstore.codecs.packed.tables import FREQUENCY_SHIFT, WIDTH_SHIFT

__all__ = [
    "Values",
    "assign_clusters",
    "choose_classes",
    "code_steps",
    "fill_hashes",
    "find_gaps",
    "find_places",
    "label_steps",
]

_WIDTH_SHIFT, _WIDTH_MASK = np.uint64(WIDTH_SHIFT), np.uint64(31)
_FREQUENCY_SHIFT = np.uint64(FREQUENCY_SHIFT)
_SLOT_MASK = np.uint64((1 << TABLE_BITS) - 1)
_LOW_MASK = (1 << (40 - SYMBOL_BITS)) - 1
_MAX_BUCKET_SORT = 256  # candidates
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
                row = scores[ranks[c]]
                for z in range(num_clusters):
                    sums[z] += row[z]
        best = 0
        for z in range(1, num_clusters):
            if sums[z] > sums[best]:
                best = z
        clusters[n] = best


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
) -> None:
    """Fill each candidate's place in its label's cluster [C], rising in each label, and which candidate it is [C]."""
    starts = np.empty(65, np.int64)
    keys = np.empty(_MAX_BUCKET_SORT, np.int64)
    for n in range(len(clusters)):
        cluster = clusters[n]
        num_listed = np.int64(list_offsets[cluster + 1] - list_offsets[cluster])
        first_slot, mask = slot_offsets[cluster], slot_offsets[cluster + 1] - slot_offsets[cluster] - 1
        first, stop = offsets[n], offsets[n + 1]
        for c in range(first, stop):  # apart from the sorting, so that the waits for memory overlap
            rank = np.int64(ranks[c])
            place = num_listed + rank
            slot = _hash(rank) & mask
            entry = slots[first_slot + slot]
            while entry >= 0:
                if entry >> 32 == rank:
                    place = entry & 0xFFFFFFFF
                    break
                slot = (slot + 1) & mask
                entry = slots[first_slot + slot]
            places[c] = place
        if stop - first > _MAX_BUCKET_SORT:
            order[first:stop] = first + np.argsort(places[first:stop], kind="mergesort")
            places[first:stop] = places[first:stop][order[first:stop] - first]
            continue
        # By buckets, then by moving each a little: half the time of a sort that knows nothing of the values.
        shift = max(0, bit_length(num_listed) - 6)
        starts[:] = 0
        for c in range(first, stop):
            starts[min(places[c] >> shift, 63) + 1] += 1
        for bucket in range(64):
            starts[bucket + 1] += starts[bucket]
        for c in range(first, stop):
            bucket = min(places[c] >> shift, 63)
            keys[starts[bucket]] = (places[c] << 13) | (c - first)
            starts[bucket] += 1
        for i in range(stop - first):
            key, at = keys[i], i
            while at > 0 and keys[at - 1] > key:
                keys[at] = keys[at - 1]
                at -= 1
            keys[at] = key
        for i in range(stop - first):
            places[first + i], order[first + i] = keys[i] >> 13, first + (keys[i] & 8191)


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
            begins[i] = list_classes[listed + begin] if begin < num_listed else rank_class(begin - num_listed)
            classes[i] = list_classes[listed + place] if place < num_listed else rank_class(place - num_listed)
            gaps[i] = place - begin
            begin = place + 1


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
def label_steps(
    token_ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
    draw_counts: NDArray[np.int32],
    target_ids: NDArray[np.int32],
    target_ranks: NDArray[np.int32],
    clusters: NDArray[np.int32],
    shapes: NDArray[np.int64],
    fits: NDArray[np.int64],
    gaps: NDArray[np.int64],
    begins: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    order: NDArray[np.int64],
    values: Values,
    is_constant_size: bool,
    steps: NDArray[np.int64],
    step_offsets: NDArray[np.int64],
) -> None:
    """Write the coding steps of one record's labels; those of label n are step_offsets[n] : step_offsets[n + 1].

    `draw_counts` is [C], or [0] where nothing was drawn.
    """
    # Arrays as variables of their own: a tuple handed on costs two counts of references an array.
    levels, rests, rest_bits, exact_bits = values.levels, values.rests, values.rest_bits, values.exact_bits
    log_of_level, log_of_kept, weight_of_one = values.log_of_level, values.log_of_kept, values.weight_of_one
    tails, targets, entropies = values.tails, values.targets, values.entropies
    at = np.int64(0)
    step_offsets[0] = 0
    for n in range(len(clusters)):
        first, stop = offsets[n], offsets[n + 1]
        cluster, shape = np.int64(clusters[n]), shapes[n]
        high = cluster >> CLUSTER_LOW_BITS
        steps[at] = _number_step(CLUSTER_HIGH, high)
        steps[at + 1] = _number_step(CLUSTER_LOW + high, cluster & ((1 << CLUSTER_LOW_BITS) - 1))
        steps[at + 2] = _number_step(SHAPE, shape)
        steps[at + 3] = _number_step(FIT + shape, fits[n])
        at += 4
        if not is_constant_size:
            steps[at] = _number_step(SIZE + shape, stop - first)
            at += 1
        for i in range(first, stop):
            steps[at] = _number_step(GAP + fits[n] * NUM_PLACES + begins[i], gaps[i])
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
        at = _put_rest(
            n,
            first,
            stop,
            shape,
            token_ids,
            order,
            levels,
            exact_bits,
            draw_counts,
            target_ids,
            target_ranks,
            log_of_level,
            log_of_kept,
            weight_of_one,
            tails,
            targets,
            entropies,
            steps,
            at,
        )
        step_offsets[n + 1] = at


@compiled
def _put_rest(
    n: int,
    first: int,
    stop: int,
    shape: int,
    token_ids: NDArray[np.int32],
    order: NDArray[np.int64],
    levels: NDArray[np.int32],
    exact_bits: NDArray[np.int64],
    draw_counts: NDArray[np.int32],
    target_ids: NDArray[np.int32],
    target_ranks: NDArray[np.int32],
    log_of_level: NDArray[np.int64],
    log_of_kept: NDArray[np.int64],
    weight_of_one: int,
    tails: NDArray[np.int64],
    targets: NDArray[np.int64],
    entropies: NDArray[np.uint32],
    steps: NDArray[np.int64],
    at: int,
) -> int:
    """Write a label's tail mass, target and entropy."""
    is_exact = weight_of_one == 0
    target, lowest = np.int64(-1), np.int64(1 << 30)
    weight, head = np.int64(0), np.int64(0)
    for c in range(first, stop):
        level = np.int64(levels[c])
        if token_ids[c] == target_ids[n]:
            target = c
        lowest = min(lowest, level)
        weight += 12 * level * level + 1
        if len(draw_counts) and draw_counts[c] == 0:
            head += 12 * level * level + 1
    if head:
        weight = head
    shift = np.int64(0)
    if is_exact:
        steps[at] = _raw_step(32, tails[n])
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
        expected = np.int64(expected_tail(weight, weight_of_one))
        steps[at] = _number_step(TAIL + bit_length(expected), _zigzag(tails[n] - expected))
        at += 1
        shift = log_of_kept[tails[n]] - ln_fixed_one(max(weight, 1))

    rank = np.int64(target_ranks[n])
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
            is_stored = targets[n] != exact_bits[target]
            steps[at] = _number_step(TARGET_INSIDE, np.int64(is_stored))
            at += 1
        if is_stored:
            steps[at] = _raw_step(32, targets[n])
            at += 1
    else:
        expected, context = np.int64(0), TARGET_OUTSIDE + shape
        if target >= 0:
            expected = target_code(log_of_level[levels[target]] + shift)
            context = TARGET_INSIDE + bit_length(np.int64(levels[target]))
        elif stop > first:
            expected = target_code(log_of_level[lowest] + shift)
        steps[at] = _number_step(context, _zigzag(targets[n] - expected))
        at += 1
    if len(entropies):
        steps[at] = _raw_step(32 if is_exact else 16, np.int64(entropies[n]))
        at += 1
    return at


@compiled
def code_steps(
    steps: NDArray[np.int64],
    step_offsets: NDArray[np.int64],
    num_lanes: int,
    entries: NDArray[np.uint64],
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
                    entry = entries[context, symbol]
                    width = (entry >> _WIDTH_SHIFT) & _WIDTH_MASK
                    low = np.uint64((step >> SYMBOL_BITS) & _LOW_MASK)
                    frequency = entry >> _FREQUENCY_SHIFT
                    if frequency == 0:  # a symbol that training did not see
                        state, at = _with_bits(state, low, width, buffer, at)
                        low, width = np.uint64(symbol), np.uint64(SYMBOL_BITS)
                        entry = entries[context, ESCAPE]
                        frequency = entry >> _FREQUENCY_SHIFT
                    if state >= frequency << (np.uint64(64 - TABLE_BITS) - width):
                        at -= 1
                        buffer[at] = np.uint32(state & np.uint64(0xFFFFFFFF))
                        state >>= np.uint64(32)
                    state = (state << width) | low
                    state = (state // frequency << np.uint64(TABLE_BITS)) + state % frequency + (entry & _SLOT_MASK)
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
