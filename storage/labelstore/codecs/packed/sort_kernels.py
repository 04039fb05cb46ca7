"""Each label's candidates most likely first, compiled. numpy_sort.py does the same without numba, bit for bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.coded import Coded
from labelstore.codecs.packed.compiled import compiled

__all__ = ["sort_exact", "sort_grid"]


@compiled
def sort_grid(
    coded: Coded,
    log_of_level: NDArray[np.int64],
    token_ids: NDArray[np.int32],
    logprobs: NDArray[np.float32],
    draw_counts: NDArray[np.int32],
) -> None:
    """Fill ids and logprobs [C], each label's candidates most likely first; equals in coded order."""
    counts = np.zeros(len(log_of_level) + 1, np.int64)
    for n in range(len(coded.offsets) - 1):
        first, stop = coded.offsets[n], coded.offsets[n + 1]
        highest = 0
        for at in range(first, stop):
            level = coded.levels[at]
            counts[level] += 1
            highest = max(highest, level)
        place = first
        for level in range(highest, -1, -1):
            count = counts[level]
            counts[level] = place
            place += count
        for at in range(first, stop):
            level = coded.levels[at]
            to = counts[level]
            counts[level] = to + 1
            token_ids[to] = coded.token_ids[at]
            logprobs[to] = np.float32(coded.shifts[n] + log_of_level[level]) * np.float32(2.0**-24)
            if len(draw_counts):
                draw_counts[to] = coded.draw_counts[at]
        counts[: highest + 1] = 0


@compiled
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
