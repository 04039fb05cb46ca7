"""From captured labels, a wide exact head and draws from its tail, to those of any smaller selection.

N labels, each with the same head of H candidates and D draws from what the head leaves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelgen.teachers.selecting import keep_smallest_sets, select_labels
from labelstore.labels import Labels, top_k_labels
from labelstore.selection import Selection

__all__ = ["cut_labels", "head_of"]


def cut_labels(captured: Labels, selection: Selection, *, seed: int = 0) -> Labels:
    """Return the labels of `top_k`, `keep_mass` or `draws` as the teacher would have given them; tail masses are exact.

    n draws from the whole distribution follow from draws of its tail: each of the n falls into the tail with the tail's
    probability, and takes one of the recorded draws, or else is drawn from the head here. So the n draws are
    distributed exactly as the teacher's own.

    Raises:
        ValueError: the capture is too narrow for the selection, or the selection is of several kinds at once.
    """
    head = head_of(captured)
    width = head.token_ids.shape[1]
    if selection.entropy or (selection.top_k is not None and selection.draws is not None):
        raise ValueError(f"labels are cut to top_k, keep_mass or draws alone, not to {selection}")
    if selection.draws is not None:
        return _cut_draws(captured, head, selection, np.random.default_rng(seed))
    wanted = selection.top_k or selection.max_k
    assert wanted is not None, "a selection without draws has top_k, or keep_mass with its max_k"
    if wanted > width:
        raise ValueError(f"{selection} needs {wanted} candidates a label, the capture has {width}")
    top = top_k_labels(
        token_ids=head.token_ids[:, :wanted],
        logprobs=head.logprobs[:, :wanted],
        target_logprobs=head.target_logprobs,
        target_ranks=head.target_ranks,
    )
    if selection.keep_mass is None:
        return top
    return keep_smallest_sets(top, mass=selection.keep_mass, min_k=selection.min_k or 1)


def head_of(captured: Labels) -> Labels:
    """Return the exact head of captured labels as [N, H].

    Raises:
        ValueError: the labels have no head of one width.
    """
    counts = captured.draw_counts
    is_head = np.ones(captured.token_ids.size, dtype=bool) if counts is None else counts == 0
    widths = np.bincount(captured.candidate_positions()[is_head], minlength=len(captured))
    if len(widths) == 0 or widths.min() != widths.max() or widths[0] == 0:
        raise ValueError(f"captured labels must have a head of one width, got {sorted(set(widths.tolist()))[:5]}")
    return top_k_labels(
        token_ids=captured.token_ids.reshape(-1)[is_head].reshape(len(captured), -1),
        logprobs=captured.logprobs.reshape(-1)[is_head].reshape(len(captured), -1),
        target_logprobs=captured.target_logprobs,
        target_ranks=captured.target_ranks,
    )


def _cut_draws(captured: Labels, head: Labels, selection: Selection, rng: np.random.Generator) -> Labels:
    num_draws, num_labels = selection.draws, len(head)
    assert num_draws is not None and captured.draw_counts is not None, "draws are cut from captured draws"
    tail_ids, tail_logprobs, num_tail = _shuffled_tail(captured, num_draws, rng)
    # The tail can be empty of draws where its mass is a rounding error.
    from_tail = np.minimum(rng.binomial(num_draws, captured.tail_mass.astype(np.float64)), num_tail)
    cumulative = np.cumsum(np.exp(head.logprobs.astype(np.float64)), axis=1)
    thresholds = rng.random((num_labels, num_draws)) * cumulative[:, -1:]
    ranks = np.stack([np.searchsorted(row, wanted) for row, wanted in zip(cumulative, thresholds, strict=True)])
    is_tail = np.arange(num_draws)[None, :] < from_tail[:, None]
    return select_labels(
        selection,
        token_ids=np.where(is_tail, tail_ids, np.take_along_axis(head.token_ids, ranks, axis=1)),
        logprobs=np.where(is_tail, tail_logprobs, np.take_along_axis(head.logprobs, ranks, axis=1)),
        target_logprobs=captured.target_logprobs,
        target_ranks=captured.target_ranks,
    )


def _shuffled_tail(
    captured: Labels, num_draws: int, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
    """Return the first `num_draws` tail draws in random order, ids and logprobs [N, num_draws], and how many there are.

    Raises:
        ValueError: fewer draws were captured.
    """
    assert captured.draw_counts is not None, "draws were captured"
    counts = captured.draw_counts
    labels = np.repeat(captured.candidate_positions(), counts)
    num_tail = np.bincount(labels, minlength=len(captured))
    if num_tail.max() < num_draws:
        raise ValueError(f"--draws {num_draws} is more than the {num_tail.max()} that were captured")
    order = np.lexsort((rng.random(len(labels)), labels))  # by label, then at random
    place = np.arange(len(labels)) - np.repeat(np.cumsum(num_tail) - num_tail, num_tail)
    is_kept = place < num_draws
    ids = np.zeros((len(captured), num_draws), dtype=np.int32)
    logprobs = np.zeros((len(captured), num_draws), dtype=np.float32)
    ids[labels[is_kept], place[is_kept]] = np.repeat(captured.token_ids.reshape(-1), counts)[order][is_kept]
    logprobs[labels[is_kept], place[is_kept]] = np.repeat(captured.logprobs.reshape(-1), counts)[order][is_kept]
    return ids, logprobs, np.minimum(num_tail, num_draws)
