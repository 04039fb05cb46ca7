"""From a record's bytes to labels, compiled. The lanes go side by side, so that their waits overlap.

N labels and C candidates of the record, L lanes. numpy_decoder.py does the same without numba, bit for bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.coded import Coded, Lookup
from labelstore.codecs.packed.compiled import (
    bit_length,
    compiled,
    expected_tail,
    ln_fixed_one,
    rank_class,
    target_code,
    value_place,
)
from labelstore.codecs.packed.frame import PADDING
from labelstore.codecs.packed.layout import (
    CLUSTER_HIGH,
    CLUSTER_LOW,
    COUNT,
    DIRECT,
    DROPPED,
    ESCAPE,
    EXACT_REST_BITS,
    FIT,
    GAP,
    KEPT_GAP,
    MAX_CLUSTERS,
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
    TAIL_CODES,
    TARGET_INSIDE,
    TARGET_OUTSIDE,
    VALUE,
)

__all__ = ["decode_steps"]

_LOW = np.uint64(STATE_LOW)
_ONE = np.uint64(1)
_ESCAPE = np.uint64(ESCAPE)
_SYMBOL_BITS = np.uint64(SYMBOL_BITS)
_WORD_BITS = np.uint64(32)
_TABLE_BITS = np.uint64(TABLE_BITS)
_SLOT_MASK = np.uint64((1 << TABLE_BITS) - 1)


# Where a lane stands, as columns of an array [lanes, fields].
_END = 0  # the word behind the last
_SHAPE, _FIT, _CLUSTER = 1, 2, 3
_LISTED, _NUM_LISTED = 4, 5  # the cluster's list
_OTHERS, _OTHERS_END = 6, 7  # the reference's candidates
_KEPT = 8  # how many ids the reference has too
_NEXT = 9  # where the next gap begins
_BELOW = 10  # how many of the reference's places are below that
_FIRST, _AT, _STOP = 11, 12, 13  # the label's candidates, and the next one
_NUM_FIELDS = 14


@compiled
def advanced(state: np.uint64, slot: np.uint64, entry: np.uint32) -> np.uint64:
    """Return the state behind a symbol of this table entry."""
    wide = np.uint64(entry)
    return (wide >> np.uint64(16)) * (state >> _TABLE_BITS) + slot - (wide & np.uint64(0xFFFF))


@compiled
def _refill(
    states: NDArray[np.uint64], reads: NDArray[np.uint64], words: NDArray[np.uint32], lane: int, state: np.uint64
) -> None:
    if state < _LOW:
        read = reads[lane]
        word = np.uint64(words[read]) if read < np.uint64(len(words)) else np.uint64(0)
        reads[lane] = read + _ONE
        state = (state << _WORD_BITS) | word
    states[lane] = state


@compiled
def _take_bits(
    states: NDArray[np.uint64], reads: NDArray[np.uint64], words: NDArray[np.uint32], lane: int, num_bits: int
) -> int:
    state = states[lane]
    width = np.uint64(num_bits)
    value = np.int64(state & ((np.uint64(1) << width) - np.uint64(1)))
    _refill(states, reads, words, lane, state >> width)
    return value


@compiled
def _take_symbol(
    states: NDArray[np.uint64],
    reads: NDArray[np.uint64],
    words: NDArray[np.uint32],
    slots: NDArray[np.uint8],
    entries: NDArray[np.uint32],
    lane: int,
    context: int,
) -> int:
    state = states[lane]
    slot = state & _SLOT_MASK
    symbol = np.int64(slots[(np.uint64(context) << _TABLE_BITS) | slot])
    _refill(states, reads, words, lane, advanced(state, slot, entries[(context << SYMBOL_BITS) | symbol]))
    return _take_bits(states, reads, words, lane, SYMBOL_BITS) if symbol == ESCAPE else symbol


@compiled
def _take_low_bits(
    states: NDArray[np.uint64], reads: NDArray[np.uint64], words: NDArray[np.uint32], lane: int, symbol: int
) -> int:
    """Return the number of a symbol that is not one: read the symbol behind an escape, and the low bits."""
    if symbol == ESCAPE:
        symbol = _take_bits(states, reads, words, lane, SYMBOL_BITS)
    if symbol < DIRECT:
        return symbol
    num_bits = 2 + ((symbol - DIRECT) >> 2)
    return ((4 + (symbol & 3)) << num_bits) | _take_bits(states, reads, words, lane, num_bits)


@compiled
def _take_number(
    states: NDArray[np.uint64],
    reads: NDArray[np.uint64],
    words: NDArray[np.uint32],
    slots: NDArray[np.uint8],
    entries: NDArray[np.uint32],
    lane: int,
    context: int,
) -> int:
    state = states[lane]
    slot = state & _SLOT_MASK
    symbol = np.int64(slots[(np.uint64(context) << _TABLE_BITS) | slot])
    _refill(states, reads, words, lane, advanced(state, slot, entries[(context << SYMBOL_BITS) | symbol]))
    return _take_low_bits(states, reads, words, lane, symbol) if symbol >= DIRECT else symbol


@compiled
def _unzigzag(n: int) -> int:
    return (n >> 1) ^ -(n & 1)


@compiled
def decode_steps(
    words: NDArray[np.uint32],
    lane_starts: NDArray[np.int64],
    unit: int,
    target_ids: NDArray[np.int32],
    lookup: Lookup,
    coded: Coded,
) -> bool:
    """Decode a record into `coded`; False if the bytes are not what an encoder writes."""
    # Arrays as variables of their own: a tuple handed on costs two counts of references an array.
    slots, entries, id_of_rank = lookup.slots, lookup.entries, lookup.id_of_rank
    list_offsets, list_ids, list_classes = lookup.list_offsets, lookup.list_ids, lookup.list_classes
    log_of_level, log_of_kept = lookup.log_of_level, lookup.log_of_kept
    offsets, places = coded.offsets, coded.places
    token_ids, levels, exact_bits = coded.token_ids, coded.levels, coded.exact_bits
    draw_counts, shifts, tails, ranks = coded.draw_counts, coded.shifts, coded.tails, coded.ranks
    targets, entropies = coded.targets, coded.entropies

    num_labels, num_lanes = len(target_ids), len(lane_starts) - 1
    num_words = np.uint64(len(words) - PADDING)  # a step reads two words at most before it is checked again
    is_exact = lookup.weight_of_one == 0
    states = np.empty(num_lanes, np.uint64)
    reads = np.empty(num_lanes, np.uint64)
    lanes = np.zeros((num_lanes, _NUM_FIELDS), np.int64)
    for lane in range(num_lanes):
        start = lane_starts[lane]
        states[lane] = (np.uint64(words[start + 1]) << _WORD_BITS) | np.uint64(words[start])
        reads[lane] = start + 2
        lanes[lane, _END] = lane_starts[lane + 1]
    last_of_cluster = np.full(len(list_offsets) - 1, -1, np.int64)
    contexts = np.empty(len(token_ids), np.uint16)
    is_kept = np.zeros((num_lanes, MAX_SIZE), np.uint8)
    offsets[0] = 0
    for first in range(0, num_labels, num_lanes):
        width = min(num_lanes, num_labels - first)
        largest, most_kept, most_others = np.int64(0), np.int64(0), np.int64(0)
        for lane in range(width):
            n = first + lane
            offsets[n + 1] = _take_head(
                states,
                reads,
                lanes,
                words,
                slots,
                entries,
                lane,
                n,
                lookup.size,
                last_of_cluster,
                list_offsets,
                offsets,
            )
            if not offsets[n] <= offsets[n + 1] <= len(token_ids):
                return False
            size = lanes[lane, _STOP] - lanes[lane, _FIRST]
            largest = max(largest, size)
            most_kept = max(most_kept, lanes[lane, _KEPT])
            most_others = max(most_others, size - lanes[lane, _KEPT])
        for i in range(most_kept):
            for lane in range(width):
                if i >= lanes[lane, _KEPT]:
                    continue
                # From one id of the reference that the label has too, to the next.
                index, end = lanes[lane, _NEXT], lanes[lane, _OTHERS_END]
                if index >= end:
                    return False
                place = places[index]
                if place < lanes[lane, _NUM_LISTED]:
                    context = KEPT_GAP + np.int64(list_classes[lanes[lane, _LISTED] + place])
                else:
                    context = KEPT_GAP + rank_class(place - lanes[lane, _NUM_LISTED])
                wide = np.uint64(context)  # unsigned, so that no index is looked at for its sign
                # _take_number, written out: handing arrays on costs more than the work.
                state = states[lane]
                slot = state & _SLOT_MASK
                symbol = np.uint64(slots[(wide << _TABLE_BITS) | slot])
                state = advanced(state, slot, entries[(wide << _SYMBOL_BITS) | symbol])
                read = reads[lane]
                if read > num_words:
                    return False
                filled = (state << _WORD_BITS) | np.uint64(words[read])
                is_low = state < _LOW
                state = filled if is_low else state  # no branch: it could not be predicted
                read += np.uint64(is_low)
                gap = np.int64(symbol)
                if gap >= DIRECT and gap != ESCAPE:
                    num_bits = np.uint64(2 + ((gap - DIRECT) >> 2))
                    gap = ((4 + (gap & 3)) << np.int64(num_bits)) | np.int64(state & ((_ONE << num_bits) - _ONE))
                    state >>= num_bits
                    if state < _LOW:
                        state = (state << _WORD_BITS) | np.uint64(words[read])
                        read += _ONE
                states[lane], reads[lane] = state, read
                if symbol == _ESCAPE:
                    gap = _take_low_bits(states, reads, words, lane, ESCAPE)
                index += gap
                if index >= end:
                    return False
                is_kept[lane, index - lanes[lane, _OTHERS]] = 1
                lanes[lane, _NEXT] = index + 1
        for lane in range(width):
            lanes[lane, _NEXT] = 0
        for i in range(most_others):
            for lane in range(width):
                if i >= lanes[lane, _STOP] - lanes[lane, _FIRST] - lanes[lane, _KEPT]:
                    continue
                # From one other id to the next; the reference's places do not count.
                free, below = lanes[lane, _NEXT], lanes[lane, _BELOW]
                num_listed = lanes[lane, _NUM_LISTED]
                context = GAP + lanes[lane, _FIT] * NUM_PLACES
                if free + below < num_listed:
                    context += np.int64(list_classes[lanes[lane, _LISTED] + free + below])
                else:
                    context += rank_class(free + below - num_listed)
                wide = np.uint64(context)
                state = states[lane]
                slot = state & _SLOT_MASK
                symbol = np.uint64(slots[(wide << _TABLE_BITS) | slot])
                state = advanced(state, slot, entries[(wide << _SYMBOL_BITS) | symbol])
                read = reads[lane]
                if read > num_words:
                    return False
                filled = (state << _WORD_BITS) | np.uint64(words[read])
                is_low = state < _LOW
                state = filled if is_low else state  # no branch: it could not be predicted
                read += np.uint64(is_low)
                gap = np.int64(symbol)
                if gap >= DIRECT and gap != ESCAPE:
                    num_bits = np.uint64(2 + ((gap - DIRECT) >> 2))
                    gap = ((4 + (gap & 3)) << np.int64(num_bits)) | np.int64(state & ((_ONE << num_bits) - _ONE))
                    state >>= num_bits
                    if state < _LOW:
                        state = (state << _WORD_BITS) | np.uint64(words[read])
                        read += _ONE
                states[lane], reads[lane] = state, read
                if symbol == _ESCAPE:
                    gap = _take_low_bits(states, reads, words, lane, ESCAPE)
                free += gap
                at, others = lanes[lane, _AT], lanes[lane, _OTHERS]
                end = lanes[lane, _OTHERS_END] - others
                while below < end and places[others + below] - below <= free:
                    places[at] = places[others + below]
                    at += is_kept[lane, below]
                    below += 1
                places[at] = free + below
                lanes[lane, _AT] = at + 1
                lanes[lane, _BELOW] = below
                lanes[lane, _NEXT] = free + 1
        for lane in range(width):
            _add_kept(lanes, lane, is_kept, places)
            if not _name_ids(lanes, lane, places, id_of_rank, list_ids, list_classes, token_ids, contexts):
                return False
        for i in range(largest):
            for lane in range(width):
                at = lanes[lane, _FIRST] + i
                if at >= lanes[lane, _STOP]:
                    continue
                value_context = np.uint64(contexts[at])
                state = states[lane]
                slot = state & _SLOT_MASK
                symbol = np.uint64(slots[(value_context << _TABLE_BITS) | slot])
                state = advanced(state, slot, entries[(value_context << _SYMBOL_BITS) | symbol])
                read = reads[lane]
                if read > num_words:
                    return False
                filled = (state << _WORD_BITS) | np.uint64(words[read])
                is_low = state < _LOW
                state = filled if is_low else state  # no branch: it could not be predicted
                read += np.uint64(is_low)
                level = np.int64(symbol)
                if level >= DIRECT and level != ESCAPE:
                    num_bits = np.uint64(2 + ((level - DIRECT) >> 2))
                    level = ((4 + (level & 3)) << np.int64(num_bits)) | np.int64(state & ((_ONE << num_bits) - _ONE))
                    state >>= num_bits
                    if state < _LOW:
                        state = (state << _WORD_BITS) | np.uint64(words[read])
                        read += _ONE
                states[lane], reads[lane] = state, read
                if symbol == _ESCAPE:
                    level = _take_low_bits(states, reads, words, lane, ESCAPE)
                levels[at] = level
                if is_exact:
                    if level > lookup.exact_base + 1:
                        return False
                    exact_bits[at] = _take_exact(states, reads, words, lane, level, unit, lookup.exact_base)
                elif level >= len(log_of_level):
                    return False
        for lane in range(width):
            n = first + lane
            if not _take_rest(
                states,
                reads,
                lanes,
                words,
                slots,
                entries,
                lane,
                target_ids[n],
                n,
                log_of_level,
                log_of_kept,
                lookup.weight_of_one,
                token_ids,
                levels,
                exact_bits,
                draw_counts,
                shifts,
                tails,
                ranks,
                targets,
                entropies,
            ):
                return False
            last_of_cluster[lanes[lane, _CLUSTER]] = n
    if offsets[num_labels] != len(token_ids):
        return False
    for lane in range(num_lanes):
        if states[lane] != _LOW or np.int64(reads[lane]) != lanes[lane, _END]:
            return False
    return True


@compiled
def _take_head(
    states: NDArray[np.uint64],
    reads: NDArray[np.uint64],
    lanes: NDArray[np.int64],
    words: NDArray[np.uint32],
    slots: NDArray[np.uint8],
    entries: NDArray[np.uint32],
    lane: int,
    n: int,
    size: int,
    last_of_cluster: NDArray[np.int64],
    list_offsets: NDArray[np.int32],
    offsets: NDArray[np.int64],
) -> int:
    """Read what stands before a label's ids; return where its candidates stop, -1 for damage."""
    high = _take_symbol(states, reads, words, slots, entries, lane, CLUSTER_HIGH)
    if high >= MAX_CLUSTERS // 16:
        return -1
    cluster = (high << 4) + _take_symbol(states, reads, words, slots, entries, lane, CLUSTER_LOW + high)
    shape = _take_symbol(states, reads, words, slots, entries, lane, SHAPE)
    if cluster >= len(last_of_cluster) or shape >= NUM_SHAPES:
        return -1
    fit = _take_symbol(states, reads, words, slots, entries, lane, FIT + shape)
    if fit >= NUM_FITS:
        return -1
    if size == 0:
        size = _take_number(states, reads, words, slots, entries, lane, SIZE + shape)
    others, others_end = np.int64(0), np.int64(0)
    reference = last_of_cluster[cluster]
    if reference >= 0:
        others, others_end = offsets[reference], offsets[reference + 1]
    kept = others_end - others
    if kept:
        kept -= _take_number(states, reads, words, slots, entries, lane, DROPPED + bit_length(kept))
    if kept < 0 or kept > size or size > MAX_SIZE:
        return -1
    lanes[lane, _SHAPE], lanes[lane, _FIT], lanes[lane, _CLUSTER] = shape, fit, cluster
    lanes[lane, _LISTED] = list_offsets[cluster]
    lanes[lane, _NUM_LISTED] = list_offsets[cluster + 1] - list_offsets[cluster]
    lanes[lane, _OTHERS], lanes[lane, _OTHERS_END], lanes[lane, _KEPT] = others, others_end, kept
    lanes[lane, _NEXT], lanes[lane, _BELOW] = others, 0
    lanes[lane, _FIRST], lanes[lane, _AT], lanes[lane, _STOP] = offsets[n], offsets[n], offsets[n] + size
    return offsets[n] + size


@compiled
def _add_kept(lanes: NDArray[np.int64], lane: int, is_kept: NDArray[np.uint8], places: NDArray[np.int64]) -> None:
    """Add the reference's places behind the last gap."""
    at, others = lanes[lane, _AT], lanes[lane, _OTHERS]
    for below in range(lanes[lane, _OTHERS_END] - others):
        if below >= lanes[lane, _BELOW] and is_kept[lane, below]:
            places[at] = places[others + below]
            at += 1
        is_kept[lane, below] = 0


@compiled
def _name_ids(
    lanes: NDArray[np.int64],
    lane: int,
    places: NDArray[np.int64],
    id_of_rank: NDArray[np.int32],
    list_ids: NDArray[np.int32],
    list_classes: NDArray[np.uint8],
    token_ids: NDArray[np.int32],
    contexts: NDArray[np.uint16],
) -> bool:
    """Turn a label's places into ids and the contexts of their values."""
    listed, num_listed = lanes[lane, _LISTED], lanes[lane, _NUM_LISTED]
    first_context = VALUE + lanes[lane, _SHAPE] * NUM_VALUE_PLACES
    for at in range(lanes[lane, _FIRST], lanes[lane, _STOP]):
        place = places[at]
        if place < num_listed:
            token_ids[at] = list_ids[listed + place]
            contexts[at] = first_context + value_place(list_classes[listed + place])
        else:
            rank = place - num_listed
            if rank >= len(id_of_rank):
                return False
            token_ids[at] = id_of_rank[rank]
            contexts[at] = first_context + value_place(rank_class(rank))
    return True


@compiled
def _take_exact(
    states: NDArray[np.uint64],
    reads: NDArray[np.uint64],
    words: NDArray[np.uint32],
    lane: int,
    level: int,
    unit: int,
    exact_base: int,
) -> int:
    if level == 0:
        return _take_bits(states, reads, words, lane, 32)
    high = exact_base + 1 - level
    zeros = min(max(unit - (high >> 3), 0), EXACT_REST_BITS)
    rest = np.int64(0)
    if zeros < EXACT_REST_BITS:
        rest = _take_bits(states, reads, words, lane, EXACT_REST_BITS - zeros)
    return (high << EXACT_REST_BITS) | (rest << zeros)


@compiled
def _take_rest(
    states: NDArray[np.uint64],
    reads: NDArray[np.uint64],
    lanes: NDArray[np.int64],
    words: NDArray[np.uint32],
    slots: NDArray[np.uint8],
    entries: NDArray[np.uint32],
    lane: int,
    target_id: int,
    n: int,
    log_of_level: NDArray[np.int64],
    log_of_kept: NDArray[np.int64],
    weight_of_one: int,
    token_ids: NDArray[np.int32],
    levels: NDArray[np.int32],
    exact_bits: NDArray[np.uint32],
    draw_counts: NDArray[np.int32],
    shifts: NDArray[np.int64],
    tails: NDArray[np.int64],
    ranks: NDArray[np.int64],
    targets: NDArray[np.int64],
    entropies: NDArray[np.uint32],
) -> bool:
    """Read what stands behind a label's values: draw counts, tail mass, target and entropy."""
    first, stop, shape = lanes[lane, _FIRST], lanes[lane, _STOP], lanes[lane, _SHAPE]
    is_exact = weight_of_one == 0
    target, lowest = np.int64(-1), np.int64(1 << 30)
    weight, head = np.int64(0), np.int64(0)
    for at in range(first, stop):
        level = np.int64(levels[at])
        weight += 12 * level * level + 1
        lowest = min(lowest, level)
        if token_ids[at] == target_id:
            target = at
    if len(draw_counts):
        for at in range(first, stop):
            level = np.int64(levels[at])
            count = _take_number(states, reads, words, slots, entries, lane, COUNT + min(15, level))
            draw_counts[at] = count
            if count == 0:
                head += 12 * level * level + 1
        if head:
            weight = head
    shift = np.int64(0)
    if is_exact:
        tails[n] = _take_bits(states, reads, words, lane, 32)
        highest, num_equal = np.uint32(0xFFFFFFFF), np.int64(0)
        for at in range(first, stop):
            highest = min(highest, exact_bits[at])
        for at in range(first, stop):
            num_equal += exact_bits[at] == highest
        if num_equal > 1:  # which of them is the first
            shift = _take_number(states, reads, words, slots, entries, lane, TAIL)
            if shift >= num_equal:
                return False
    else:
        expected = np.int64(expected_tail(weight, weight_of_one))
        tail = _take_number(states, reads, words, slots, entries, lane, TAIL + bit_length(expected))
        tail = expected + _unzigzag(tail)
        if tail < 0 or tail > TAIL_CODES:
            return False
        tails[n] = tail
        shift = log_of_kept[tail] - ln_fixed_one(max(weight, 1))
    shifts[n] = shift

    context = RANK_OUTSIDE + shape
    above, equal = stop - first, np.int64(0)
    if target >= 0 and len(draw_counts) == 0:
        above = np.int64(0)
        for at in range(first, stop):
            above += levels[at] > levels[target]
            equal += levels[at] == levels[target]
        context = RANK_INSIDE + bit_length(equal)
    rank = _take_number(states, reads, words, slots, entries, lane, context)
    ranks[n] = rank if len(draw_counts) else above + 1 + _unzigzag(rank)

    if is_exact:
        is_stored = target < 0
        if target >= 0:
            is_stored = _take_symbol(states, reads, words, slots, entries, lane, TARGET_INSIDE) > 0
            targets[n] = exact_bits[target]
        if is_stored:
            targets[n] = _take_bits(states, reads, words, lane, 32)
    else:
        expected, context = np.int64(0), TARGET_OUTSIDE + shape
        if target >= 0:
            expected = target_code(log_of_level[levels[target]] + shift)
            context = TARGET_INSIDE + bit_length(np.int64(levels[target]))
        elif stop > first:
            expected = target_code(log_of_level[lowest] + shift)
        difference = _take_number(states, reads, words, slots, entries, lane, context)
        targets[n] = expected + _unzigzag(difference)
    if len(entropies):
        entropies[n] = _take_bits(states, reads, words, lane, 32 if is_exact else 16)
    return True
