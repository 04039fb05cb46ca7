"""The labelled runs of a sequence, each of a kind, and which of them a job asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelgen.prompts.label_spans import LabelSpans
from labelstore.record import SPAN_KINDS, SpanKind

__all__ = ["TokenSpan", "choose_spans", "kinds_of", "positions_in"]

_KINDS: dict[LabelSpans, tuple[SpanKind, ...]] = {
    "all": SPAN_KINDS,
    "assistant": ("assistant", "tool_call", "reasoning", "answer"),
    "completion": ("completion", "reasoning", "answer"),
    "last": ("assistant", "tool_call", "reasoning", "answer"),
    "answer": ("answer",),
    "reasoning": ("reasoning",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSpan:
    """A run of tokens that may be labelled."""

    start: int  # position of the first one, at least 1
    stop: int
    kind: SpanKind
    is_last: bool = True  # of the last turn of its chat


def positions_in(spans: Sequence[TokenSpan]) -> NDArray[np.int64]:
    """Return the positions of all tokens in the spans [N], in order."""
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(span.start, span.stop) for span in spans)])


def kinds_of(which: LabelSpans) -> tuple[SpanKind, ...]:
    """Return the kinds of the spans that a job labels."""
    return _KINDS[which]


def choose_spans(spans: Sequence[TokenSpan], which: LabelSpans) -> list[TokenSpan]:
    """Return the spans that a job labels.

    Raises:
        ValueError: there is none.
    """
    chosen = [span for span in spans if span.kind in _KINDS[which] and (which != "last" or span.is_last)]
    if not chosen:
        found = ", ".join(dict.fromkeys(span.kind for span in spans)) or "nothing"
        raise ValueError(f"--label-spans {which}: there is none of {', '.join(_KINDS[which])}; what it has is {found}")
    return chosen
