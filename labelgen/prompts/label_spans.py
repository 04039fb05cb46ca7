"""Which tokens a job labels, of those that can be: the values of --label-spans."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["LABEL_SPANS", "LabelSpans"]

LabelSpans = Literal["all", "assistant", "completion", "last", "answer", "reasoning"]
LABEL_SPANS: tuple[LabelSpans, ...] = get_args(LabelSpans)
