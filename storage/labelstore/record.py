"""A label record: one sequence, the tokens of it that are labelled, and their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from labelstore.labels import Labels

__all__ = ["SPAN_KINDS", "LabelRecord", "SpanKind", "prompt_id_of", "record_id_of"]

SpanKind = Literal[
    "text",  # text that was given to be read, for its own sake
    "completion",  # what follows a prompt that was plain text, written or given
    "assistant",  # an assistant's turn of a chat, or what is left of it beside the kinds below
    "tool_call",  # the tool calls of such a turn
    "reasoning",  # the thinking before an answer
    "answer",  # what follows the thinking
]
SPAN_KINDS: tuple[SpanKind, ...] = get_args(SpanKind)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: arrays have no truth value
class LabelRecord:
    """The teacher's labels for one sequence: T tokens, N of them labelled, C candidates in all.

    Label n is about the token input_ids[positions[n]]: the teacher's distribution given the tokens before it. In a
    trainer's terms it belongs to the student's logits[positions[n] - 1].

    Raises:
        ValueError: the parts contradict each other; the message names the prompt.
    """

    prompt_id: str
    input_ids: NDArray[np.int32]  # [T], prompt and response, special tokens as the teacher read and wrote them
    spans: NDArray[np.int32]  # [S, 2], (start, stop) of the labelled runs, rising, not overlapping, start >= 1
    span_kinds: tuple[SpanKind, ...]  # [S], what each span is
    labels: Labels  # N = the spans' summed length, or that of label_positions
    label_positions: NDArray[np.int32] | None = None  # [N], rising: where only these of the spans' tokens have a label
    response_index: int = 0
    document_offset: int | None = None  # scored text: which token of the document the first label is about
    prompt: str | None = None  # the prompt, where it was text
    messages: Sequence[Mapping[str, object]] | None = None  # the prompt, where it was a chat
    text: str | None = None  # the labelled text, for people: the response, or what was scored
    finish_reason: str | None = None  # generated: "stop" or "length"
    kept: Mapping[str, object] = field(default_factory=dict)  # columns kept from the prompt set

    def __post_init__(self) -> None:
        if self.input_ids.dtype != np.int32 or self.input_ids.ndim != 1:
            raise self._error(f"input_ids must be int32 [T], got {self.input_ids.dtype} {self.input_ids.shape}")
        if self.spans.dtype != np.int32 or self.spans.ndim != 2 or self.spans.shape[1] != 2:
            raise self._error(f"spans must be int32 [S, 2], got {self.spans.dtype} {self.spans.shape}")
        is_negative = self.input_ids < 0
        if is_negative.any():
            raise self._error(f"input_ids must be >= 0, got {self.input_ids[is_negative][0]}")
        edges = self.spans.reshape(-1)
        if (np.diff(edges) < 0).any() or (self.spans[:, 0] == self.spans[:, 1]).any():
            raise self._error(f"spans must be non-empty, rising and not overlap, got {self.spans.tolist()}")
        if len(edges) and (edges[0] < 1 or edges[-1] > len(self.input_ids)):
            raise self._error(
                f"spans must lie in [1, {len(self.input_ids)}], as token 0 has no context; got {self.spans.tolist()}"
            )
        if self.label_positions is not None:
            self._check_label_positions(self.label_positions)
        elif (num_tokens := int((self.spans[:, 1] - self.spans[:, 0]).sum())) != len(self.labels):
            raise self._error(f"spans cover {num_tokens} tokens, but there are {len(self.labels)} labels")
        if len(self.span_kinds) != len(self.spans):
            raise self._error(f"{len(self.spans)} spans need as many span_kinds, got {len(self.span_kinds)}")
        for kind in self.span_kinds:
            if kind not in SPAN_KINDS:
                raise self._error(f"a span's kind must be one of {', '.join(SPAN_KINDS)}, got {kind!r}")

    def _error(self, message: str) -> ValueError:
        return ValueError(f"prompt {self.prompt_id!r}: {message}")

    @property
    def record_id(self) -> str:
        """The record's name, unique in a dataset: prompt#response, or document@offset for scored text."""
        return record_id_of(self.prompt_id, self.document_offset, self.response_index)

    def _check_label_positions(self, chosen: NDArray[np.int32]) -> None:
        if chosen.dtype != np.int32 or chosen.ndim != 1:
            raise self._error(f"label_positions must be int32 [N], got {chosen.dtype} {chosen.shape}")
        if len(chosen) != len(self.labels):
            raise self._error(f"{len(chosen)} label_positions need as many labels, got {len(self.labels)}")
        is_bad = ~np.isin(chosen, self.span_positions)
        is_bad[1:] |= chosen[1:] <= chosen[:-1]
        if is_bad.any():
            raise self._error(f"label_positions must rise and lie in the spans, got {chosen[is_bad][0]}")

    @property
    def positions(self) -> NDArray[np.int64]:
        """Where each label's target stands in input_ids [N]."""
        return self.span_positions if self.label_positions is None else self.label_positions.astype(np.int64)

    @property
    def span_positions(self) -> NDArray[np.int64]:
        """Where the tokens of all spans stand in input_ids: the hard labels, whether they have a label or not."""
        if len(self.spans) == 0:
            return np.zeros(0, dtype=np.int64)
        return np.concatenate([np.arange(start, stop, dtype=np.int64) for start, stop in self.spans])

    @property
    def target_ids(self) -> NDArray[np.int32]:
        """The token that each label is about [N]."""
        return self.input_ids[self.positions]

    @property
    def token_ids(self) -> NDArray[np.int32]:
        """The candidates' ids, most likely first: [N, K], or flat [C] where K differs."""
        return self.labels.token_ids

    @property
    def logprobs(self) -> NDArray[np.float32]:
        """The candidates' log-probabilities in nats, as token_ids."""
        return self.labels.logprobs

    @property
    def candidate_offsets(self) -> NDArray[np.int64]:
        """Where each label's candidates begin in the flattened arrays [N + 1]."""
        return self.labels.candidate_offsets

    @property
    def target_logprobs(self) -> NDArray[np.float32]:
        """The targets' own log-probabilities in nats [N]."""
        return self.labels.target_logprobs

    @property
    def target_ranks(self) -> NDArray[np.int32]:
        """The targets' ranks [N], from 1; ties count against the target."""
        return self.labels.target_ranks

    @property
    def tail_mass(self) -> NDArray[np.float32]:
        """The probability outside the candidates [N]."""
        return self.labels.tail_mass

    @property
    def draw_counts(self) -> NDArray[np.int32] | None:
        """How often each candidate was drawn [C]; None where nothing was drawn."""
        return self.labels.draw_counts

    @property
    def entropy(self) -> NDArray[np.float32] | None:
        """The full distribution's entropy in nats [N]; None where it was not asked for."""
        return self.labels.entropy


def record_id_of(prompt_id: str, document_offset: int | None, response_index: int) -> str:
    """Return the name of a record: prompt#response, or document@offset for scored text."""
    if document_offset is not None:
        return f"{prompt_id}@{document_offset}"
    return f"{prompt_id}#{response_index}"


def prompt_id_of(record_id: str) -> str:
    """Return the prompt's part of a record's name."""
    return record_id[: max(record_id.rfind("#"), record_id.rfind("@"))]
