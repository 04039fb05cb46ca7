"""Fewer candidates than a label has: what the teacher would have given for a smaller selection."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from labelstore.header import Header
from labelstore.labels import Labels, tail_mass_of
from labelstore.selection import Selection

__all__ = ["cut_header", "cut_labels", "cut_selection", "take_labels"]


def cut_selection(selection: Selection, top_k: int) -> Selection:
    """Return what a selection becomes when each label keeps its `top_k` most likely candidates.

    Of a set by mass, it bounds the size: the first K of the smallest set with a mass are the set with max_k = K.

    Raises:
        ValueError: there is nothing to cut, or a cut would mean nothing.
    """
    if top_k < 1:
        raise ValueError(f"--top-k must be at least 1, got {top_k}")
    if selection.draws is not None:
        raise ValueError(
            f"--top-k cannot cut labels of the selection {selection}: random draws have no order, and fewer of them "
            f"would no longer estimate the teacher's distribution. Convert them without --top-k."
        )
    if selection.keep_mass is not None:
        assert selection.min_k is not None and selection.max_k is not None, "keep_mass sets both"
        if top_k < selection.min_k or top_k >= selection.max_k:
            raise ValueError(
                f"--top-k {top_k} cannot cut labels of the selection {selection}: it takes the place of max_k, and "
                f"must be below {selection.max_k} and at least {selection.min_k}"
            )
        return replace(selection, max_k=top_k)
    assert selection.top_k is not None, "a selection has one of the three"
    if top_k >= selection.top_k:
        raise ValueError(f"--top-k {top_k} must be smaller than the {selection.top_k} candidates that the labels have")
    return replace(selection, top_k=top_k)


def cut_header(header: Header, top_k: int) -> Header:
    """Return the header of a dataset whose labels are cut: selection and fingerprint are another's.

    Raises:
        ValueError: as `cut_selection`.
    """
    return header.with_selection(cut_selection(header.selection, top_k))


def take_labels(labels: Labels, rows: NDArray[np.int64]) -> Labels:
    """Return some of the labels of a record, in the order of `rows`."""
    sizes = np.diff(labels.candidate_offsets)[rows]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    candidates = np.repeat(labels.candidate_offsets[:-1][rows] - offsets[:-1], sizes) + np.arange(offsets[-1])
    return Labels(
        token_ids=labels.token_ids.reshape(-1)[candidates],
        logprobs=labels.logprobs.reshape(-1)[candidates],
        candidate_offsets=offsets,
        target_logprobs=labels.target_logprobs[rows],
        target_ranks=labels.target_ranks[rows],
        tail_mass=labels.tail_mass[rows],
        draw_counts=None if labels.draw_counts is None else labels.draw_counts.reshape(-1)[candidates],
        entropy=None if labels.entropy is None else labels.entropy[rows],
    )


def cut_labels(labels: Labels, top_k: int) -> Labels:
    """Return each label's `top_k` most likely candidates, or all where it has fewer, and the tail mass that follows."""
    sizes = np.diff(labels.candidate_offsets)
    ranks = np.arange(labels.token_ids.size) - np.repeat(labels.candidate_offsets[:-1], sizes)
    is_kept = ranks < top_k
    offsets = np.concatenate([[0], np.cumsum(np.minimum(sizes, top_k))]).astype(np.int64)
    logprobs = labels.logprobs.reshape(-1)[is_kept]
    return replace(
        labels,
        token_ids=labels.token_ids.reshape(-1)[is_kept],
        logprobs=logprobs,
        candidate_offsets=offsets,
        tail_mass=tail_mass_of(logprobs, offsets),
    )
