"""Cuts a document that is to be scored into windows that fit the teacher."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Window", "cut_windows"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """A run of a document, with something before it for the first label to be given."""

    input_ids: NDArray[np.int32]  # [T]
    first_label: int  # position in input_ids of the first labelled token; all after it are labelled too
    document_offset: int  # which token of the document that is


def cut_windows(document_ids: NDArray[np.int32], *, lead_ids: NDArray[np.int32], max_tokens: int) -> Iterator[Window]:
    """Yield windows of at most `max_tokens` tokens that label every token of a document once.

    Each window begins with the tokenizer's lead (BOS). Where it has none, a window begins with the last token of the
    one before, and the document's first token stays unlabelled: nothing precedes it.

    Raises:
        ValueError: `max_tokens` leaves no room for a label.
    """
    context = len(lead_ids) or 1
    if max_tokens <= context:
        raise ValueError(f"a window of {max_tokens} tokens has no room for a label")
    start = 0 if len(lead_ids) else 1
    while start < len(document_ids):
        stop = min(start + max_tokens - context, len(document_ids))
        before = lead_ids if len(lead_ids) else document_ids[start - 1 : start]
        yield Window(
            input_ids=np.concatenate([before, document_ids[start:stop]]),
            first_label=context,
            document_offset=start,
        )
        start = stop
