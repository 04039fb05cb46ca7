"""Requests for tests: a text whose tokens are all labelled from one on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelgen.prompts.token_spans import TokenSpan
from labelgen.teachers.teacher import ScoreRequest

__all__ = ["score_request"]


def score_request(name: str, input_ids: NDArray[np.int32], *, first: int = 1) -> ScoreRequest:
    spans = (TokenSpan(start=first, stop=len(input_ids), kind="text"),)
    return ScoreRequest(request_id=name, input_ids=input_ids, spans=spans)
