"""Cuts a document that is to be scored into windows that fit the teacher."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Window", "cut_windows", "window_stride"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """A run of a document, with something before it for the first label to be given."""

    input_ids: NDArray[np.int32]  # [T]
    first_label: int  # position in input_ids of the first labelled token; all after it are labelled too
    document_offset: int  # which token of the document that is


def window_stride(stride: int | None, *, max_tokens: int, num_lead: int) -> int:
    """Return how many tokens each window labels, but for the first, which labels all that it holds.

    None: seven eighths of what fits, so that a long document costs 8/7 of its length.

    Raises:
        ValueError: it is not in [1, what fits].
    """
    most = max_tokens - (num_lead or 1)
    if most < 1:
        raise ValueError(f"a window of {max_tokens} tokens has no room for a label")
    if stride is None:
        return max(most * 7 // 8, 1)
    if not 1 <= stride <= most:
        raise ValueError(f"--stride must be in [1, {most}] for windows of {max_tokens} tokens, got {stride}")
    return stride


def cut_windows(
    document_ids: NDArray[np.int32], *, lead_ids: NDArray[np.int32], max_tokens: int, stride: int | None = None
) -> Iterator[Window]:
    """Yield windows of at most `max_tokens` tokens that label every token of a document once.

    The first window labels all that fits. Each one after it labels `stride` tokens at most, and what room it has left
    holds the tokens before them, which are read again and not labelled: so these labels are given at least
    max_tokens - stride tokens, the lead among them. Each window begins with the tokenizer's lead (BOS). Where it has
    none, the document's first token stays unlabelled: nothing precedes it.

    Raises:
        ValueError: as `window_stride`.
    """
    step = window_stride(stride, max_tokens=max_tokens, num_lead=len(lead_ids))
    room = max_tokens - len(lead_ids)  # for tokens of the document
    start = first = 0 if len(lead_ids) else 1
    while start < len(document_ids):
        stop = min(room if start == first else start + step, len(document_ids))
        before = max(0, stop - room)
        yield Window(
            input_ids=np.concatenate([lead_ids, document_ids[before:stop]]),
            first_label=len(lead_ids) + start - before,
            document_offset=start,
        )
        start = stop
