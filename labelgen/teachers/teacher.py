"""The protocol that every teacher follows: requests in, answers out, in any order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from labelgen.prompts.token_spans import TokenSpan
from labelgen.prompts.tokenizer import PromptTokenizer
from labelgen.teachers.sampling import Sampling
from labelstore.labels import Labels
from labelstore.record import SpanKind
from labelstore.selection import Selection

__all__ = [
    "Answer",
    "EngineDeathError",
    "EngineError",
    "GenerateRequest",
    "Refusal",
    "Request",
    "ScoreRequest",
    "Teacher",
    "TeacherFacts",
]


class EngineError(RuntimeError):
    """The engine did not start, or gave what labels must not be made of."""


class EngineDeathError(EngineError):
    """The engine died while it worked. Closed and started again, the teacher goes on."""

    def __init__(self, message: str, *, cause: str) -> None:
        super().__init__(message)
        self.cause = cause  # what is known of why, without advice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GenerateRequest:
    """Answer a prompt and label the answer.

    Labels are what the teacher believes of the tokens, whatever shaped the sampling: where that masks or favours tokens
    (`sampling.is_constrained`), the teacher reads the finished answer again, and the labels are of that reading.
    """

    request_id: str
    prompt_ids: NDArray[np.int32]  # [P], at least one
    sampling: Sampling
    max_tokens: int
    seed: int  # in [0, 2^63)
    kind: SpanKind = "completion"  # what the response is: that, or an assistant's turn of a chat


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoreRequest:
    """Label given text, token by token, where spans say so."""

    request_id: str
    input_ids: NDArray[np.int32]  # [T]
    spans: tuple[TokenSpan, ...]  # at least one; rising, not overlapping, in [1, T]


Request = GenerateRequest | ScoreRequest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What the teacher wrote or read, and its labels of the tokens in spans."""

    request_id: str
    input_ids: NDArray[np.int32]  # [T]
    spans: tuple[TokenSpan, ...]
    labels: Labels  # N = the spans' summed length
    finish_reason: str | None = None  # generated: "stop" or "length"
    text: str | None = None  # where the engine knows better than the ids: cut at a stop string

    @property
    def first_label(self) -> int:
        """The position of the first labelled token."""
        return self.spans[0].start


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that the teacher cannot answer, and why. The others go on."""

    request_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherFacts:
    """What is known of a teacher before it is started."""

    name: str  # as the user gave it
    vocab_size: int  # rows of the output layer
    max_model_len: int  # tokens, prompt and response together
    max_scored_tokens: int  # of a text to score; an engine that generates has less memory for it; 0: it cannot
    stop_ids: Mapping[int, str]  # token ids that end a response, and who says so
    sampling_defaults: Mapping[str, float]  # what the model's generation_config asks for
    fingerprint_fields: Mapping[str, Any]  # what of it changes labels
    recorded: Mapping[str, Any]  # versions, device, parallel sizes: kept with each block
    notes: tuple[str, ...] = ()  # for whoever starts a job: bounds that were set

    @property
    def scoring_problem(self) -> str | None:
        """Why no given text can be scored; None where it can."""
        if self.max_scored_tokens:
            return None
        return (
            "the engine gives no log-probabilities of given text with --adapter; merge the adapter into the weights, "
            "and give the merged folder as --teacher"
        )


class Teacher(Protocol):
    """Turns requests into labels. Facts come cheap: the engine starts later, with `start`."""

    @property
    def facts(self) -> TeacherFacts: ...
    @property
    def selection(self) -> Selection:
        """What is kept of each distribution."""

    @property
    def tokenizer(self) -> PromptTokenizer: ...
    def check_sampling(self, sampling: Sampling) -> None:
        """Refuse what this teacher cannot sample with, before it is started; ValueError names the option."""

    def start(self) -> None:
        """Load what labelling needs; a second call does nothing. EngineError if it does not start."""

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        """Yield one answer or refusal for each request, as they come.

        Requests are drawn as the teacher has room for them, ahead of need; a slow one holds up none of the others.
        EngineDeathError if the engine dies; whatever was drawn and is not answered was in flight.
        """

    def close(self) -> None:
        """Stop the engine, if there is one, and wait until it is gone."""
