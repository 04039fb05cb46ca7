"""From labels to bytes, compiled: each label becomes a run of coding steps, each lane's steps a run of words.

A coding step is a symbol in a context, or (context -1) some bits as they are. Arrays: N labels and C candidates of
a record, S ids that training saw, Z clusters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.compiled import (
    bit_length,
    compiled,
    int_sqrt,
    ln_fixed_one,
    number_symbol,
    rank_class,
    target_code,
    value_place,
)
from labelstore.codecs.packed.layout import (
    CLUSTER_HIGH,
    CLUSTER_LOW,
    COUNT,
    DROPPED,
    ESCAPE,
    FIT,
    GAP,
    KEPT_GAP,
    NUM_FITS,
    NUM_PLACES,
    NUM_SHAPES,
    NUM_VALUE_PLACES,
    RANK_INSIDE,
    RANK_OUTSIDE,
    SHAPE,
    SIZE,
    STATE_LOW,
    TABLE_BITS,
    TAIL,
    TARGET_INSIDE,
    TARGET_OUTSIDE,
    VALUE,
)

__all__ = ["Costs", "Places", "Steps", "Values", "assign_clusters", "code_steps", "fill_hashes", "label_steps"]

ASSIGN_IDS = 24  # a label's likeliest ids decide its cluster


class Steps(NamedTuple):
    """Coding steps, one after the other."""

    contexts: NDArray[np.int16]  # -1: bits as they are
    values: NDArray[np.uint32]  # a symbol, or the bits
    num_bits: NDArray[np.uint8]


class Places(NamedTuple):
    """Where ids stand in the clusters' lists."""

    rank_of_id: NDArray[np.int32]  # [V], by falling frequency
    list_offsets: NDArray[np.int32]  # [Z + 1]
    list_classes: NDArray[np.uint8]  # place class of each list entry
    hash_keys: NDArray[np.int32]  # [Z, H], rank or -1
    hash_places: NDArray[np.int32]  # [Z, H]


class Values(NamedTuple):
    """One record's values as integers; see values.py."""

    levels: NDArray[np.int32]  # [C], the more the likelier
    rests: NDArray[np.uint32]  # [C], low bits of an exact value
    rest_bits: NDArray[np.uint8]  # [C], how many
    exact_bits: NDArray[np.int64]  # [C] or [0], of exact values
    log_of_level: NDArray[np.int64]  # logarithm of a level's weight
    log_of_kept: NDArray[np.int64]  # [257], logarithm of 1 - tail mass by its code
    tails: NDArray[np.int64]  # [N], code of the tail mass, or its bits
    targets: NDArray[np.int64]  # [N], code of the target's logprob, or its bits
    entropies: NDArray[np.uint32]  # [N] or [0], as they are
    weight_of_one: int  # what the weights of all candidates and the tail add up to; 0: exact values


class Costs(NamedTuple):
    """What symbols cost in bits, to choose a label's shape and fit."""

    values: NDArray[np.float32]  # [value places, symbols, shapes]
    shapes: NDArray[np.float32]  # [shapes]
    gaps: NDArray[np.float32]  # [places, symbols, fits]
    fits: NDArray[np.float32]  # [shapes, fits]


@compiled
def assign_clusters(
    token_ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
    rank_of_id: NDArray[np.int32],
    scores: NDArray[np.int8],
    priors: NDArray[np.int32],
    clusters: NDArray[np.int32],
) -> None:
    """Find the cluster [N] whose ids a label's likeliest candidates are most like."""
    num_seen, num_clusters = scores.shape
    sums = np.empty(num_clusters, np.int32)
    for n in range(len(offsets) - 1):
        sums[:] = priors
        for c in range(offsets[n], min(offsets[n + 1], offsets[n] + ASSIGN_IDS)):
            rank = rank_of_id[token_ids[c]]
            if rank < num_seen:
                row = scores[rank]
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
    keys: NDArray[np.int32],
    found: NDArray[np.int32],
) -> None:
    """Fill the hash tables of Places; `keys` is -1 everywhere."""
    mask = keys.shape[1] - 1
    for z in range(len(list_offsets) - 1):
        for i in range(list_offsets[z], list_offsets[z + 1]):
            slot = (np.int64(list_ranks[i]) * 40503) & mask
            while keys[z, slot] >= 0:
                slot = (slot + 1) & mask
            keys[z, slot] = list_ranks[i]
            found[z, slot] = i - list_offsets[z]


@compiled
def _symbol(steps: Steps, at: int, context: int, symbol: int) -> int:
    steps.contexts[at] = context
    steps.values[at] = symbol
    return at + 1


@compiled
def _raw(steps: Steps, at: int, num_bits: int, value: int) -> int:
    steps.contexts[at] = -1
    steps.values[at] = value
    steps.num_bits[at] = num_bits
    return at + 1


@compiled
def _number(steps: Steps, at: int, context: int, n: int) -> int:
    symbol, num_bits = number_symbol(n)
    at = _symbol(steps, at, context, symbol)
    if num_bits:
        at = _raw(steps, at, num_bits, n & ((1 << num_bits) - 1))
    return at


@compiled
def _zigzag(n: int) -> int:
    return 2 * n if n >= 0 else -2 * n - 1


@compiled
def _place_ids(token_ids: NDArray[np.int32], cluster: int, places: Places, keys: NDArray[np.int64]) -> None:
    """Fill keys [K] with each id's place in its cluster's order, above 13 bits of its index; sorted."""
    mask = places.hash_keys.shape[1] - 1
    num_listed = places.list_offsets[cluster + 1] - places.list_offsets[cluster]
    for k in range(len(token_ids)):
        rank = np.int64(places.rank_of_id[token_ids[k]])
        place = np.int64(num_listed + rank)
        slot = (rank * 40503) & mask
        while places.hash_keys[cluster, slot] >= 0:
            if places.hash_keys[cluster, slot] == rank:
                place = np.int64(places.hash_places[cluster, slot])
                break
            slot = (slot + 1) & mask
        keys[k] = (place << 13) | k
    keys.sort()


class _Scratch(NamedTuple):
    """One label's candidates by rising place, and the gaps that say which they are."""

    keys: NDArray[np.int64]  # place and index of each candidate
    own: NDArray[np.int64]  # place of each candidate
    gaps: NDArray[np.int64]  # first those in the reference, then those of the other ids
    gap_classes: NDArray[np.uint8]  # class of the place where each gap begins
    value_places: NDArray[np.uint8]  # context of each candidate's value
    value_symbols: NDArray[np.uint8]


@compiled
def _class_of(place: int, cluster: int, places: Places) -> int:
    start = places.list_offsets[cluster]
    num_listed = places.list_offsets[cluster + 1] - start
    if place < num_listed:
        return int(places.list_classes[start + place])
    return rank_class(place - num_listed)


@compiled
def _find_gaps(size: int, other: NDArray[np.int64], cluster: int, places: Places, scratch: _Scratch) -> int:
    """Write the gaps between the ids that the reference has too, then those between the others; count the first.

    Gaps between the others are counted without the reference's places.
    """
    num_kept, i, start = 0, 0, 0
    for j in range(len(other)):
        while i < size and scratch.own[i] < other[j]:
            i += 1
        if i < size and scratch.own[i] == other[j]:
            scratch.gap_classes[num_kept] = _class_of(other[start], cluster, places)
            scratch.gaps[num_kept] = j - start
            start = j + 1
            num_kept += 1
    at, j, begin = num_kept, 0, np.int64(0)  # j: places of the reference below
    free = np.int64(0)  # the first place that can be next, without the reference's
    for i in range(size):
        while j < len(other) and other[j] < scratch.own[i]:
            j += 1
        if j < len(other) and other[j] == scratch.own[i]:
            continue
        scratch.gap_classes[at] = _class_of(begin, cluster, places)
        scratch.gaps[at] = scratch.own[i] - j - free
        begin = scratch.own[i] + 1
        free = begin - j
        at += 1
    return num_kept


@compiled
def _choose_fit(num_kept: int, size: int, base: NDArray[np.float32], costs: Costs, scratch: _Scratch) -> int:
    sums = base.copy()
    for i in range(num_kept, size):
        row = costs.gaps[scratch.gap_classes[i], number_symbol(scratch.gaps[i])[0]]
        for f in range(NUM_FITS):
            sums[f] += row[f]
    return int(np.argmin(sums))


@compiled
def _choose_shape(size: int, costs: Costs, scratch: _Scratch) -> int:
    sums = costs.shapes.copy()
    for i in range(size):
        row = costs.values[scratch.value_places[i], scratch.value_symbols[i]]
        for s in range(NUM_SHAPES):
            sums[s] += row[s]
    return int(np.argmin(sums))


@compiled
def label_steps(
    token_ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
    draw_counts: NDArray[np.int32],
    target_ids: NDArray[np.int32],
    target_ranks: NDArray[np.int32],
    clusters: NDArray[np.int32],
    values: Values,
    places: Places,
    costs: Costs,
    num_lanes: int,
    is_constant_size: bool,
    steps: Steps,
    step_offsets: NDArray[np.int64],
) -> int:
    """Write the coding steps of one record's labels; those of label n are step_offsets[n] : step_offsets[n + 1].

    `draw_counts` is [C], or [0] where nothing was drawn. Returns the first label that has an id twice, or -1.
    """
    num_labels = len(offsets) - 1
    max_size = 1
    for n in range(num_labels):
        max_size = max(max_size, offsets[n + 1] - offsets[n])
    scratch = _Scratch(
        np.empty(max_size, np.int64),
        np.empty(max_size, np.int64),
        np.empty(max_size, np.int64),
        np.empty(max_size, np.uint8),
        np.empty(max_size, np.uint8),
        np.empty(max_size, np.uint8),
    )
    order = np.empty(max_size, np.int64)  # the candidate at the i-th place
    all_places = np.empty(offsets[-1], np.int64)
    last_of_cluster = np.full(len(places.list_offsets) - 1, -1, np.int64)
    at = np.int64(0)
    step_offsets[0] = 0
    for n in range(num_labels):
        if n % num_lanes == 0:  # the lanes go side by side: only labels of earlier rounds can be referred to
            for m in range(max(0, n - num_lanes), n):
                last_of_cluster[clusters[m]] = m
        first, stop = offsets[n], offsets[n + 1]
        cluster, size = clusters[n], stop - first
        _place_ids(token_ids[first:stop], cluster, places, scratch.keys[:size])
        for i in range(size):
            scratch.own[i] = scratch.keys[i] >> 13
            if i > 0 and scratch.own[i] == scratch.own[i - 1]:
                return n
        all_places[first:stop] = scratch.own[:size]
        reference = last_of_cluster[cluster]
        other = all_places[0:0]
        if reference >= 0:
            other = all_places[offsets[reference] : offsets[reference + 1]]
        num_kept = _find_gaps(size, other, cluster, places, scratch)
        for i in range(size):
            order[i] = first + (scratch.keys[i] & 8191)
            scratch.value_places[i] = value_place(_class_of(scratch.own[i], cluster, places))
            scratch.value_symbols[i] = number_symbol(values.levels[order[i]])[0]
        shape = _choose_shape(size, costs, scratch)
        fit = _choose_fit(num_kept, size, costs.fits[shape], costs, scratch)

        at = _symbol(steps, at, CLUSTER_HIGH, cluster >> 4)
        at = _symbol(steps, at, CLUSTER_LOW + (cluster >> 4), cluster & 15)
        at = _symbol(steps, at, SHAPE, shape)
        at = _symbol(steps, at, FIT + shape, fit)
        if not is_constant_size:
            at = _number(steps, at, SIZE + shape, size)
        if len(other):
            at = _number(steps, at, DROPPED + bit_length(len(other)), len(other) - num_kept)
        for i in range(size):
            context = KEPT_GAP if i < num_kept else GAP + fit * NUM_PLACES
            at = _number(steps, at, context + scratch.gap_classes[i], scratch.gaps[i])
        for i in range(size):
            candidate = order[i]
            context = VALUE + shape * NUM_VALUE_PLACES + scratch.value_places[i]
            at = _number(steps, at, context, values.levels[candidate])
            if values.rest_bits[candidate]:
                at = _raw(steps, at, values.rest_bits[candidate], values.rests[candidate])
        if len(draw_counts):
            for i in range(size):
                level = np.int64(values.levels[order[i]])
                at = _number(steps, at, COUNT + min(15, level), draw_counts[order[i]])
        at = _other_steps(n, order[:size], token_ids, draw_counts, target_ids, target_ranks, shape, values, steps, at)
        step_offsets[n + 1] = at
    return -1


@compiled
def head_weight(levels: NDArray[np.int32], order: NDArray[np.int64], draw_counts: NDArray[np.int32]) -> int:
    """Return the summed weights of those whose mass is 1 - tail: the exact head, or all where there is none."""
    weight, head = np.int64(0), np.int64(0)
    for candidate in order:
        level = np.int64(levels[candidate])
        weight += 12 * level * level + 1
        if len(draw_counts) and draw_counts[candidate] == 0:
            head += 12 * level * level + 1
    return head if head else weight


@compiled
def _other_steps(
    n: int,
    order: NDArray[np.int64],
    token_ids: NDArray[np.int32],
    draw_counts: NDArray[np.int32],
    target_ids: NDArray[np.int32],
    target_ranks: NDArray[np.int32],
    shape: int,
    values: Values,
    steps: Steps,
    at: int,
) -> int:
    """Write a label's tail mass, target and entropy."""
    is_exact = values.weight_of_one == 0
    target, lowest = np.int64(-1), np.int64(0)
    for i in range(len(order)):
        if token_ids[order[i]] == target_ids[n]:
            target = order[i]
        if i == 0 or values.levels[order[i]] < lowest:
            lowest = np.int64(values.levels[order[i]])
    shift = np.int64(0)
    if is_exact:
        at = _raw(steps, at, 32, values.tails[n])
        # Which of equal candidates at the top is the first: the order in which the labels came, kept for argmax.
        highest, num_equal, first = np.int64(1 << 40), 0, 0
        for candidate in order:
            highest = min(highest, values.exact_bits[candidate])
        lowest_index = order.min() if len(order) else np.int64(0)
        for candidate in order:
            if values.exact_bits[candidate] == highest:
                if candidate == lowest_index:
                    first = num_equal
                num_equal += 1
        if num_equal > 1:
            at = _number(steps, at, TAIL, first)
    else:
        weight = head_weight(values.levels, order, draw_counts)
        expected = np.int64(0)
        if weight < values.weight_of_one:
            expected = int_sqrt((values.weight_of_one - weight) * 65536 // values.weight_of_one)
        at = _number(steps, at, TAIL + bit_length(expected), _zigzag(values.tails[n] - expected))
        shift = values.log_of_kept[values.tails[n]] - ln_fixed_one(max(weight, 1))

    rank = np.int64(target_ranks[n])
    if len(draw_counts):
        at = _number(steps, at, RANK_OUTSIDE + shape, rank)
    elif target >= 0:
        above, equal = 0, 0
        for candidate in order:
            above += values.levels[candidate] > values.levels[target]
            equal += values.levels[candidate] == values.levels[target]
        at = _number(steps, at, RANK_INSIDE + bit_length(equal), _zigzag(rank - above - 1))
    else:
        at = _number(steps, at, RANK_OUTSIDE + shape, _zigzag(rank - len(order) - 1))

    if is_exact:
        if target >= 0:
            is_other = values.targets[n] != values.exact_bits[target]
            at = _symbol(steps, at, TARGET_INSIDE, np.int64(is_other))
            if is_other:
                at = _raw(steps, at, 32, values.targets[n])
        else:
            at = _raw(steps, at, 32, values.targets[n])
    elif target >= 0:
        expected = target_code(values.log_of_level[values.levels[target]] + shift)
        context = TARGET_INSIDE + bit_length(values.levels[target])
        at = _number(steps, at, context, _zigzag(values.targets[n] - expected))
    else:
        expected = target_code(values.log_of_level[lowest] + shift) if len(order) else np.int64(0)
        at = _number(steps, at, TARGET_OUTSIDE + shape, _zigzag(values.targets[n] - expected))
    if len(values.entropies):
        at = _raw(steps, at, 32 if is_exact else 16, values.entropies[n])
    return at


@compiled
def code_steps(
    steps: Steps,
    step_offsets: NDArray[np.int64],
    num_lanes: int,
    tables: NDArray[np.uint32],
    buffer: NDArray[np.uint32],
    lane_words: NDArray[np.int64],
) -> int:
    """Code a record's steps into the end of a buffer of words; return where they start.

    `tables` holds frequency << 16 | start of each symbol [contexts, symbols]. The words of lane 0 stand first; each
    lane's are its last state's two words, low one first, and then what the decoder reads, in the order it does.
    """
    at = len(buffer)
    num_labels = len(step_offsets) - 1
    for lane in range(num_lanes - 1, -1, -1):
        end = at
        state = np.uint64(STATE_LOW)
        last = lane + (num_labels - 1 - lane) // num_lanes * num_lanes
        for n in range(last, -1, -num_lanes):
            for i in range(step_offsets[n + 1] - 1, step_offsets[n] - 1, -1):
                context, value = steps.contexts[i], np.uint64(steps.values[i])
                num_bits = np.uint64(steps.num_bits[i])
                if context >= 0:
                    entry = tables[context, value]
                    if entry == 0:  # a symbol that training did not see
                        if state >> np.uint64(64 - 7):
                            at -= 1
                            buffer[at] = np.uint32(state & np.uint64(0xFFFFFFFF))
                            state >>= np.uint64(32)
                        state = (state << np.uint64(7)) | value
                        entry = tables[context, ESCAPE]
                    frequency, start = np.uint64(entry >> 16), np.uint64(entry & 0xFFFF)
                    if state >= frequency << np.uint64(64 - TABLE_BITS):
                        at -= 1
                        buffer[at] = np.uint32(state & np.uint64(0xFFFFFFFF))
                        state >>= np.uint64(32)
                    state = (state // frequency << np.uint64(TABLE_BITS)) + state % frequency + start
                else:
                    if state >> (np.uint64(64) - num_bits):
                        at -= 1
                        buffer[at] = np.uint32(state & np.uint64(0xFFFFFFFF))
                        state >>= np.uint64(32)
                    state = (state << num_bits) | value
        at -= 1
        buffer[at] = np.uint32(state >> np.uint64(32))
        at -= 1
        buffer[at] = np.uint32(state & np.uint64(0xFFFFFFFF))
        lane_words[lane] = end - at
    return at
