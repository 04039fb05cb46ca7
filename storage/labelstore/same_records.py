"""Is a record that was written the one that was read? Ids, ranks, counts and hard columns as they were, values near.

N labels, C candidates.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.layout import ENTROPY_STEPS
from labelstore.labels import Labels
from labelstore.record import LabelRecord

__all__ = ["find_difference"]

_HARD_FIELDS = (
    "prompt_id",
    "response_index",
    "document_offset",
    "span_kinds",
    "prompt",
    "text",
    "finish_reason",
)
_ENTROPY_TOLERANCE_NATS = 1e-3  # of a lossy codec: its step is 1/2048 nat, in 16 bits
_MAX_ENTROPY_NATS = 0xFFFF / ENTROPY_STEPS


def find_difference(got: LabelRecord, wanted: LabelRecord, *, tolerance: NDArray[np.float64] | None) -> str | None:
    """Return what differs, in a few words; None if nothing does.

    `tolerance` [N] is by how much the square root of a probability may be off; None: by nothing.
    """
    for name in _HARD_FIELDS:
        if getattr(got, name) != getattr(wanted, name):
            return f"{name} is {getattr(got, name)!r}, was {getattr(wanted, name)!r}"
    for name in ("messages", "kept"):
        left, right = getattr(got, name), getattr(wanted, name)
        if left != right and _spelled(left) != _spelled(right):  # NaN differs from itself
            return f"{name} differs"
    for name in ("input_ids", "spans", "positions"):
        if not np.array_equal(getattr(got, name), getattr(wanted, name)):
            return f"{name} differs"
    return _find_label_difference(got.labels, wanted.labels, tolerance)


def _find_label_difference(got: Labels, wanted: Labels, tolerance: NDArray[np.float64] | None) -> str | None:
    for name in ("candidate_offsets", "target_ranks"):
        if not np.array_equal(getattr(got, name), getattr(wanted, name)):
            return f"{name} differs"
    if (got.draw_counts is None, got.entropy is None) != (wanted.draw_counts is None, wanted.entropy is None):
        return "draw_counts or entropy came or went"
    # Equal values may change places, but for the first, so candidates are compared by id.
    got_order, wanted_order = _by_id(got), _by_id(wanted)
    for name in ("token_ids", "draw_counts"):
        left, right = getattr(got, name), getattr(wanted, name)
        if left is not None and not np.array_equal(left.reshape(-1)[got_order], right.reshape(-1)[wanted_order]):
            return f"{name} differs"
    sizes = np.diff(wanted.candidate_offsets)
    firsts = wanted.candidate_offsets[:-1][sizes > 0]
    if not np.array_equal(got.token_ids.reshape(-1)[firsts], wanted.token_ids.reshape(-1)[firsts]):
        return "a label's most likely token differs"
    by_label, by_candidate = tolerance, None if tolerance is None else np.repeat(tolerance, sizes)
    logprobs = got.logprobs.reshape(-1)[got_order], wanted.logprobs.reshape(-1)[wanted_order]
    is_near = {
        "logprobs": _are_near(*logprobs, by_candidate, root=_root_of_logprob),
        "target_logprobs": _are_near(got.target_logprobs, wanted.target_logprobs, by_label, root=_root_of_logprob),
        "tail_mass": _are_near(got.tail_mass, wanted.tail_mass, by_label, root=np.sqrt),
    }
    if got.entropy is not None and wanted.entropy is not None:
        allowed = None if tolerance is None else np.full(len(wanted), _ENTROPY_TOLERANCE_NATS)
        most = np.float32(np.inf if tolerance is None else _MAX_ENTROPY_NATS)
        is_near["entropy"] = _are_near(got.entropy, np.minimum(wanted.entropy, most), allowed, root=np.asarray)
    return next(
        (f"{name} is off by more than the codec allows" for name, is_good in is_near.items() if not is_good), None
    )


def _are_near(
    got: NDArray[np.float32],
    wanted: NDArray[np.float32],
    tolerance: NDArray[np.float64] | None,
    *,
    root: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> bool:
    """Return whether values are equal, or, where something is allowed, roots of probabilities near each other."""
    if tolerance is None:
        return np.array_equal(got, wanted)
    return bool((np.abs(root(got) - root(wanted)) <= tolerance).all())


def _by_id(labels: Labels) -> NDArray[np.int64]:
    """Return the order [C] in which each label's candidates stand by rising id."""
    ids = labels.token_ids
    if ids.ndim == 2:
        # The id above the place: one sort of whole numbers is much faster than argsort.
        width = max(ids.shape[1], 1)
        keys = (ids.astype(np.int64) << 20) | np.arange(width, dtype=np.int64)[: ids.shape[1]]
        keys.sort(axis=1)
        starts = np.arange(len(ids), dtype=np.int64)[:, None] * ids.shape[1]
        return np.asarray(((keys & 0xFFFFF) + starts).reshape(-1))
    order: NDArray[np.int64] = np.lexsort((ids, labels.candidate_positions())).astype(np.int64)
    return order


def _root_of_logprob(logprobs: NDArray[np.float32]) -> NDArray[np.float32]:
    roots: NDArray[np.float32] = np.exp(logprobs / 2)
    return roots


def _spelled(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=dict)
