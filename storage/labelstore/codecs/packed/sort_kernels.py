"""Each label's candidates most likely first, compiled. numpy_sort.py does the same without numba, bit for bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.coded import Coded
from labelstore.codecs.packed.compiled import allocating, compiled

__all__ = ["sort_exact", "sort_grid"]


def sort_grid(
    coded: Coded,
    log_of_level: NDArray[np.int64],
    token_ids: NDArray[np.int32],
    logprobs: NDArray[np.float32],
    draw_counts: NDArray[np.int32],
) -> None:
    """Fill ids and logprobs [C], each label's candidates most likely first; equals in coded order."""
    _sort_by_level(coded, log_of_level, np.zeros(len(log_of_level), np.uint32), token_ids, logprobs, draw_counts)


@compiled
def _sort_by_level(
    coded: Coded,
    log_of_level: NDArray[np.int64],
    starts: NDArray[np.uint32],
    token_ids: NDArray[np.int32],
    logprobs: NDArray[np.float32],
    draw_counts: NDArray[np.int32],
) -> None:
    """Sort by counting; `starts`, by level, is 0 everywhere before and behind."""
    one = np.uint64(1)
    for n in range(len(coded.offsets) - 1):
        first, stop = np.uint64(coded.offsets[n]), np.uint64(coded.offsets[n + 1])
        highest = np.uint64(0)
        for at in range(first, stop):
            level = np.uint64(coded.levels[at])
            starts[level] += np.uint32(1)
            highest = max(highest, level)
        place, lowest = first, highest + one
        while place < stop:  # from the highest level to the lowest
            lowest -= one
            count = np.uint64(starts[lowest])
            starts[lowest] = place
            place += count
        shift = coded.shifts[n]
        for at in range(first, stop):
            own = np.uint64(coded.levels[at])
            to = np.uint64(starts[own])
            starts[own] = to + one
            token_ids[to] = coded.token_ids[at]
            logprobs[to] = np.float32(shift + log_of_level[own]) * np.float32(2.0**-24)
            if len(draw_counts):
                draw_counts[to] = coded.draw_counts[at]
        starts[lowest : highest + one] = 0


@allocating
def sort_exact(
    coded: Coded, token_ids: NDArray[np.int32], bits: NDArray[np.uint32], draw_counts: NDArray[np.int32]
) -> None:
    """Fill ids and float bits [C], each label's candidates most likely first; equals in coded order."""
    for n in range(len(coded.offsets) - 1):
        first, stop = coded.offsets[n], coded.offsets[n + 1]
        order = np.argsort(coded.exact_bits[first:stop], kind="mergesort")
        top = coded.shifts[n]
        if 0 < top < stop - first:  # the first of equals to the front
            leader = order[top]
            for i in range(top, 0, -1):
                order[i] = order[i - 1]
            order[0] = leader
        for i in range(stop - first):
            at = first + order[i]
            token_ids[first + i] = coded.token_ids[at]
            bits[first + i] = coded.exact_bits[at]
            if len(draw_counts):
                draw_counts[first + i] = coded.draw_counts[at]
