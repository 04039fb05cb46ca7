"""Each label's candidates most likely first, compiled. numpy_sort.py does the same without numba, bit for bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.coded import Coded
from labelstore.codecs.packed.compiled import compiled, inlined
from labelstore.codecs.packed.lane_kernels import LANE_STRIDE, Lanes, Round

__all__ = ["place_labels"]

_ZERO, _ONE, _TWO, _THREE, _FOUR = (np.uint64(n) for n in range(5))
_STRIDE, _STRIDE2, _STRIDE3 = (np.uint64(n * LANE_STRIDE) for n in (1, 2, 3))
_NEXT = np.uint16(1)
_UNIT = np.float32(2.0**-24)


@compiled
def place_labels(
    lanes: Lanes, width: int, together: np.uint64, labels: Round, log_of_level: NDArray[np.int64], coded: Coded
) -> None:
    """Write a label of each lane into `coded`; equals stay by place.

    Sorts by counting, the first `together` candidates of each lane side by side: a count waits for the one before it.
    """
    levels, starts, sorted_ids, sorted_values = labels.steps, labels.starts, labels.sorted_ids, labels.sorted_values
    token_ids, exact_bits, draw_counts = labels.token_ids, labels.exact_bits, labels.draw_counts
    is_exact, has_draws = len(exact_bits) > 0, len(draw_counts) > 0
    num_levels = _count_levels(lanes, width, together, labels)
    done = _ZERO
    if not (is_exact or has_draws):
        done = together
        for i in range(done):
            _place(i, _ZERO, levels, starts, token_ids, log_of_level, sorted_ids, sorted_values)
            _place(i, _ONE, levels, starts, token_ids, log_of_level, sorted_ids, sorted_values)
            _place(i, _TWO, levels, starts, token_ids, log_of_level, sorted_ids, sorted_values)
            _place(i, _THREE, levels, starts, token_ids, log_of_level, sorted_ids, sorted_values)
    for lane in range(width):
        here, first = np.uint64(lane) * _STRIDE, lanes.firsts[lane]
        size = lanes.stops[lane] - first
        for i in range(here + done, here + size):
            level = np.uint64(levels[i])
            start = _FOUR * level + np.uint64(lane)
            to = np.uint64(starts[start])
            starts[start] += _NEXT
            sorted_ids[here + to] = token_ids[i]
            sorted_values[here + to] = exact_bits[i] if is_exact else log_of_level[level]
            if has_draws:
                coded.draw_counts[first + to] = draw_counts[i]
        for i in range(size):
            coded.token_ids[first + i] = sorted_ids[here + i]
        if is_exact:
            for i in range(size):
                coded.exact_bits[first + i] = sorted_values[here + i]
            _order_equals(first, first + size, np.uint64(labels.shifts[lane]), coded)
        else:
            shift = np.int32(labels.shifts[lane])
            for i in range(size):
                coded.logprobs[first + i] = np.float32(np.int32(sorted_values[here + i] + shift)) * _UNIT
    labels.starts_of_level[:num_levels] = 0


@inlined
def _count_levels(lanes: Lanes, width: int, together: np.uint64, labels: Round) -> np.uint64:
    """Turn `starts` from zeros into where in its label the first of a level belongs; return how many levels."""
    levels, starts, starts_of_level = labels.steps, labels.starts, labels.starts_of_level
    for i in range(together):
        starts[_FOUR * np.uint64(levels[i])] += _NEXT
        starts[_FOUR * np.uint64(levels[i + _STRIDE]) + _ONE] += _NEXT
        starts[_FOUR * np.uint64(levels[i + _STRIDE2]) + _TWO] += _NEXT
        starts[_FOUR * np.uint64(levels[i + _STRIDE3]) + _THREE] += _NEXT
    highest = _ZERO
    for lane in range(width):
        highest = max(highest, lanes.highest[lane])
        here = np.uint64(lane) * _STRIDE
        for i in range(here + together, here + lanes.stops[lane] - lanes.firsts[lane]):
            starts[_FOUR * np.uint64(levels[i]) + np.uint64(lane)] += _NEXT
    sums, level = _ZERO, highest + _ONE
    while level:  # from the highest level to the lowest; the sums of all lanes are parts of one number
        level -= _ONE
        counts = starts_of_level[level]
        starts_of_level[level] = sums
        sums += counts
    return highest + _ONE


@inlined
def _place(
    i: int,
    lane: np.uint64,
    levels: NDArray[np.uint32],
    starts: NDArray[np.uint16],
    token_ids: NDArray[np.int32],
    log_of_level: NDArray[np.int64],
    sorted_ids: NDArray[np.int32],
    sorted_values: NDArray[np.int32],
) -> None:
    level = np.uint64(levels[i + lane * _STRIDE])
    to = np.uint64(starts[_FOUR * level + lane])
    starts[_FOUR * level + lane] += _NEXT
    sorted_ids[to + lane * _STRIDE] = token_ids[i + lane * _STRIDE]
    sorted_values[to + lane * _STRIDE] = log_of_level[level]


@compiled
def _order_equals(first: int, stop: int, leader: int, coded: Coded) -> None:
    """Sort a label's exact values, whose levels are in order; put the leading one of equals at the top to the front."""
    for at in range(first + _ONE, stop):
        to = at
        while to > first and coded.exact_bits[to - _ONE] > coded.exact_bits[at]:
            to -= _ONE
        _move(at, to, coded)
    if leader:
        _move(first + leader, first, coded)


@inlined
def _move(at: int, to: int, coded: Coded) -> None:
    """Move a candidate forward to a place, and those from there on by one."""
    _move_value(at, to, coded.exact_bits)
    _move_value(at, to, coded.token_ids)
    if len(coded.draw_counts):
        _move_value(at, to, coded.draw_counts)


@inlined
def _move_value(at: int, to: int, values: NDArray[np.generic]) -> None:
    moved = values[at]
    while at > to:
        values[at] = values[at - _ONE]
        at -= _ONE
    values[to] = moved
