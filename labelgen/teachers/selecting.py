"""From captured entries to the labels of a selection: what is kept of each distribution.

An engine captures, for each of N positions, a head of the most likely tokens and then random draws; the selection says
how many. Draws alone are from the full distribution, draws beside a head from what the head leaves (the tail).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelstore.labels import Labels, tail_mass_of, top_k_labels
from labelstore.schema import offsets_of
from labelstore.selection import Selection

__all__ = ["check_selection", "head_width", "keep_smallest_sets", "select_labels"]


def check_selection(selection: Selection, *, vocab_size: int) -> None:
    """Refuse a selection that is wider than the teacher's distribution.

    Raises:
        ValueError: the message names the option.
    """
    for name in ("top_k", "min_k", "max_k"):
        value = getattr(selection, name)
        if value is not None and not 1 <= value <= vocab_size:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} must be between 1 and the teacher's {vocab_size} rows, got {value}")


def head_width(selection: Selection) -> int:
    """Return how many of the most likely tokens an engine must capture for a selection; 0 for draws alone."""
    if selection.keep_mass is not None:
        assert selection.max_k is not None, "a selection by mass is bounded when it is made"
        return selection.max_k
    return selection.top_k or 0


def select_labels(
    selection: Selection,
    *,
    token_ids: NDArray[np.int32],
    logprobs: NDArray[np.float32],
    target_logprobs: NDArray[np.float32],
    target_ranks: NDArray[np.int32],
    entropy: NDArray[np.float32] | None = None,
) -> Labels:
    """Return the labels of a selection from what was captured: [N, head + draws] ids and logprobs, the head first.

    Where the tail is empty, an engine fills the draws with ids of the head; they are dropped.

    Raises:
        ValueError: a value is not what a label may hold.
    """
    if selection.draws is None:
        labels = top_k_labels(
            token_ids=token_ids, logprobs=logprobs, target_logprobs=target_logprobs, target_ranks=target_ranks
        )
        if selection.keep_mass is not None:
            labels = keep_smallest_sets(labels, mass=selection.keep_mass, min_k=selection.min_k or 1)
        if entropy is None:
            return labels
        names = [name for name in Labels.__slots__ if name != "entropy"]
        return Labels(entropy=entropy, **{name: getattr(labels, name) for name in names})
    num_head = head_width(selection)
    ids, values, counts, offsets = _fold_draws(token_ids, logprobs, num_head=num_head)
    if num_head:
        head = np.ascontiguousarray(logprobs[:, :num_head])
        tail_mass = tail_mass_of(head, np.arange(len(head) + 1, dtype=np.int64) * num_head)
    else:
        tail_mass = tail_mass_of(values, offsets)
    return Labels(
        token_ids=ids,
        logprobs=values,
        candidate_offsets=offsets,
        target_logprobs=target_logprobs,
        target_ranks=target_ranks,
        tail_mass=tail_mass,
        draw_counts=counts,
        entropy=entropy,
    )


def keep_smallest_sets(labels: Labels, *, mass: float, min_k: int) -> Labels:
    """Cut each label [N, K] to its fewest candidates with at least `mass`, no fewer than `min_k`, K at most.

    Masses are summed in float64, most likely first.
    """
    width = labels.token_ids.shape[1]
    reached = np.cumsum(np.exp(labels.logprobs.astype(np.float64)), axis=1) >= mass
    counts = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, width)
    counts = np.clip(counts, min(min_k, width), width)
    is_kept = np.arange(width)[None, :] < counts[:, None]
    offsets = offsets_of(counts)
    logprobs = labels.logprobs[is_kept]
    return Labels(
        token_ids=labels.token_ids[is_kept],
        logprobs=logprobs,
        candidate_offsets=offsets,
        target_logprobs=labels.target_logprobs,
        target_ranks=labels.target_ranks,
        tail_mass=tail_mass_of(logprobs, offsets),
    )


def _fold_draws(
    token_ids: NDArray[np.int32], logprobs: NDArray[np.float32], *, num_head: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
    """Fold the draws of N positions into distinct ids.

    Takes [N, head + draws] ids and logprobs; returns ids, logprobs and counts (0 for the head), all flat [C], and the
    candidate_offsets [N + 1].
    """
    num_labels, num_draws = len(token_ids), token_ids.shape[1] - num_head
    order = np.argsort(token_ids[:, num_head:], axis=1, kind="stable")
    drawn = np.take_along_axis(token_ids[:, num_head:], order, axis=1)
    is_first = np.ones(drawn.shape, dtype=bool)
    is_first[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
    starts = np.flatnonzero(is_first)
    counts = np.diff(np.append(starts, drawn.size))  # a run ends where the next one begins; every row begins one
    label_of, ids = starts // num_draws, drawn.reshape(-1)[starts]
    values = np.take_along_axis(logprobs[:, num_head:], order, axis=1).reshape(-1)[starts]
    if num_head:
        head_ids, head_values = token_ids[:, :num_head], logprobs[:, :num_head]
        is_in_tail = ~(head_ids[label_of] == ids[:, None]).any(axis=1)
        label_of = np.concatenate([np.repeat(np.arange(num_labels), num_head), label_of[is_in_tail]])
        ids = np.concatenate([head_ids.reshape(-1), ids[is_in_tail]])
        values = np.concatenate([head_values.reshape(-1), values[is_in_tail]])
        counts = np.concatenate([np.zeros(head_ids.size, dtype=counts.dtype), counts[is_in_tail]])
    by_label = np.lexsort((counts > 0, -values, label_of))  # most likely first; of equals, the head first
    offsets = offsets_of(np.bincount(label_of, minlength=num_labels))
    return ids[by_label], values[by_label], counts[by_label].astype(np.int32), offsets
