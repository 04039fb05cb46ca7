"""Each label's candidates most likely first, in numpy: the same order as sort_kernels.py gives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.coded import Coded
from labelstore.codecs.packed.layout import MAX_SIZE

__all__ = ["sort_exact", "sort_grid"]

_Ints = NDArray[np.int64]

_MAX_PADDED = 4  # times the candidates: ragged rows are padded up to there
_WITHIN_BITS = 12  # of a candidate's number in its label


def sort_grid(coded: Coded, levels: NDArray[np.int32], shifts: _Ints, log_of_level: _Ints) -> None:
    """Sort candidates [C] by place, each label's most likely first, and fill their logprobs; equals stay by place."""
    row = np.repeat(np.arange(len(coded.offsets) - 1), np.diff(coded.offsets))
    order = _order(coded.offsets, row, len(log_of_level) - levels.astype(np.int64))
    coded.token_ids[:] = coded.token_ids[order]
    coded.logprobs[:] = (shifts[row] + log_of_level[levels[order]]).astype(np.float32) * np.float32(2.0**-24)
    if len(coded.draw_counts):
        coded.draw_counts[:] = coded.draw_counts[order]


def sort_exact(coded: Coded, leaders: _Ints) -> None:
    """Sort candidates [C] by place, each label's most likely first, of equals at its top the `leaders`-th [N]."""
    sizes = np.diff(coded.offsets)
    row = np.repeat(np.arange(len(sizes)), sizes)
    order = _order(coded.offsets, row, coded.exact_bits.astype(np.int64))
    for n in np.flatnonzero((leaders > 0) & (leaders < sizes)):
        first = coded.offsets[n]
        run = order[first : first + leaders[n] + 1]
        run[:] = np.roll(run, 1)
    coded.token_ids[:] = coded.token_ids[order]
    coded.exact_bits[:] = coded.exact_bits[order]
    if len(coded.draw_counts):
        coded.draw_counts[:] = coded.draw_counts[order]


def _order(offsets: _Ints, row: _Ints, keys: _Ints) -> _Ints:
    """Return the order by row and key, keys below 2^32; equals keep theirs."""
    sizes = np.diff(offsets)
    width = int(sizes.max(initial=0))
    if len(sizes) * width > _MAX_PADDED * (len(keys) + 1000):
        return np.asarray(np.lexsort((keys, row)))
    # Rows of 64 uint32, each with its place in the low bits, sort 10 to 20 times as fast as an argsort of all.
    wide = (keys << _WITHIN_BITS) | (np.arange(len(keys)) - np.repeat(offsets[:-1], sizes))
    dtype = np.uint32 if len(keys) == 0 or keys.max() < (1 << (32 - _WITHIN_BITS)) - 1 else np.int64
    rows = np.full((len(sizes), width), np.iinfo(dtype).max, dtype=dtype)
    is_there = np.arange(width) < sizes[:, None]
    rows[is_there] = wide
    rows.sort(axis=1)
    order: _Ints = np.repeat(offsets[:-1], sizes) + (rows[is_there] & (MAX_SIZE - 1))
    return order
