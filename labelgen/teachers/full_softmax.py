"""Labels from a whole distribution, in plain numpy: the reference that faster paths are compared with."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from labelgen.teachers.selecting import head_width, select_labels
from labelstore.labels import Labels
from labelstore.selection import Selection

__all__ = ["full_softmax_labels", "request_seed"]


def full_softmax_labels(
    logprobs: NDArray[np.float32], targets: NDArray[np.int32], selection: Selection, *, seed: int = 0
) -> Labels:
    """Return the labels of N targets from the log-probabilities of all tokens [N, V]; `seed` is for draws."""
    rows = np.arange(len(targets))
    width = head_width(selection)
    ids = _most_likely(logprobs, width)
    if selection.draws is not None:
        ids = np.concatenate([ids, _draw(logprobs, ids, selection.draws, seed=seed)], axis=1)
    target_logprobs = logprobs[rows, targets]
    entropy = None
    if selection.entropy:
        wide = logprobs.astype(np.float64)
        entropy = np.maximum(-(np.exp(wide) * wide).sum(axis=1), 0.0).astype(np.float32)
    return select_labels(
        selection,
        token_ids=ids.astype(np.int32),
        logprobs=np.minimum(np.take_along_axis(logprobs, ids, axis=1), 0.0),
        target_logprobs=np.minimum(target_logprobs, 0.0),
        target_ranks=(logprobs >= target_logprobs[:, None]).sum(axis=1).astype(np.int32),
        entropy=entropy,
    )


def request_seed(request_id: str) -> int:
    """Return a seed for a request's draws."""
    return int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest(), "little")


def _most_likely(logprobs: NDArray[np.float32], width: int) -> NDArray[np.int64]:
    if width == 0:
        return np.zeros((len(logprobs), 0), dtype=np.int64)
    top = np.argpartition(-logprobs, width - 1, axis=1)[:, :width]
    order = np.argsort(-np.take_along_axis(logprobs, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1).astype(np.int64)


def _draw(logprobs: NDArray[np.float32], head: NDArray[np.int64], num_draws: int, *, seed: int) -> NDArray[np.int64]:
    """Draw ids [N, num_draws] from what the head leaves; ids of the head where it leaves nothing."""
    rng = np.random.default_rng(seed)
    probabilities = np.exp(logprobs.astype(np.float64))
    np.put_along_axis(probabilities, head, 0.0, axis=1)
    sums = np.cumsum(probabilities, axis=1)
    points = rng.random((len(logprobs), num_draws)) * sums[:, -1:]
    drawn = np.stack([np.searchsorted(row, point, side="right") for row, point in zip(sums, points, strict=True)])
    if head.shape[1]:
        drawn = np.where(sums[:, -1:] > 0, drawn, head[:, :1])
    return drawn.astype(np.int64)
