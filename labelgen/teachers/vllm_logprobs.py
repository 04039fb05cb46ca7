"""From vLLM's flat log-probabilities to labels. The only place that knows in which order vLLM gives them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from labelgen.teachers.teacher import EngineError
from labelstore.labels import Labels, top_k_labels

__all__ = ["labels_of"]


class FlatLogprobs(Protocol):
    """vLLM's own class (vllm.logprobs, 0.32): for each position K + 1 entries, the target's first, then the top K."""

    start_indices: list[int]
    end_indices: list[int]
    token_ids: list[int]
    logprobs: list[float]
    ranks: list[int | None]


def labels_of(flat: FlatLogprobs, targets: NDArray[np.int32], *, top_k: int, skip: int) -> Labels:
    """Return the labels of `targets` [N]; the first `skip` positions of `flat` are left out.

    A position's first entry is the target with its rank, and the target stands among the top K again if it is one of
    them.

    Raises:
        ValueError: the engine gave NaN or infinite log-probabilities.
        EngineError: the entries are not about these targets: vLLM's order has changed, labels would be wrong.
    """
    starts = np.array(flat.start_indices[skip:], dtype=np.int64)
    stops = np.array(flat.end_indices[skip:], dtype=np.int64)
    num_labels, width = len(targets), top_k + 1
    if len(starts) != num_labels or (stops - starts != width).any():
        raise EngineError(
            f"vLLM gave {len(starts)} positions of {sorted(set((stops - starts).tolist()))} entries for "
            f"{num_labels} tokens, wanted {width} entries each; this vLLM version is not supported"
        )
    first = int(starts[0]) if num_labels else 0
    last = first + num_labels * width
    token_ids = np.array(flat.token_ids[first:last], dtype=np.int32).reshape(num_labels, width)
    logprobs = np.array(flat.logprobs[first:last], dtype=np.float32).reshape(num_labels, width)
    ranks = np.array(flat.ranks[first:last:width], dtype=np.int32)
    if not np.array_equal(token_ids[:, 0], targets):
        raise EngineError("vLLM's log-probabilities are about other tokens than its text; labels would be shifted")
    return top_k_labels(
        token_ids=token_ids[:, 1:].copy(),
        logprobs=np.minimum(logprobs[:, 1:], 0.0),  # a float32 softmax of a sure thing can round to above 0
        target_logprobs=np.minimum(logprobs[:, 0], 0.0),
        target_ranks=ranks,
    )
