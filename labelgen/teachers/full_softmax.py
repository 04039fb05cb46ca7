"""Labels from a whole distribution, in plain numpy: the reference that faster paths are compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelstore.labels import Labels, top_k_labels

__all__ = ["full_softmax_labels"]


def full_softmax_labels(logprobs: NDArray[np.float32], targets: NDArray[np.int32], *, top_k: int) -> Labels:
    """Return top-k labels of N targets from the log-probabilities of all tokens [N, V]."""
    rows = np.arange(len(targets))
    top = np.argpartition(-logprobs, top_k - 1, axis=1)[:, :top_k]
    order = np.argsort(-np.take_along_axis(logprobs, top, axis=1), axis=1, kind="stable")
    token_ids = np.take_along_axis(top, order, axis=1).astype(np.int32)
    target_logprobs = logprobs[rows, targets]
    return top_k_labels(
        token_ids=token_ids,
        logprobs=np.minimum(np.take_along_axis(logprobs, token_ids.astype(np.int64), axis=1), 0.0),
        target_logprobs=np.minimum(target_logprobs, 0.0),
        target_ranks=(logprobs >= target_logprobs[:, None]).sum(axis=1).astype(np.int32),
    )
