"""From a prompt to the requests that it needs, and from the answers to records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from labelgen.job.fingerprint import response_seed
from labelgen.job.spec import RunSpec
from labelgen.prompts.given_sequence import GivenSequence
from labelgen.prompts.prompt import Prompt
from labelgen.prompts.scored_chat import encode_turns
from labelgen.prompts.scored_pair import encode_pair
from labelgen.prompts.thinking import ThinkTokens, thinking_spans
from labelgen.prompts.token_spans import TokenSpan, choose_spans, positions_in
from labelgen.prompts.tokenizer import PromptTokenizer, encode_prompt
from labelgen.prompts.windows import cut_windows
from labelgen.teachers.sampling import Sampling
from labelgen.teachers.teacher import Answer, GenerateRequest, Request, ScoreRequest, TeacherFacts
from labelstore.cut import take_labels
from labelstore.record import LabelRecord, record_id_of

__all__ = ["PromptRequests"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRequests:
    """Makes the requests of each prompt, and knows how to read their answers."""

    spec: RunSpec
    facts: TeacherFacts
    tokenizer: PromptTokenizer
    sampling: Sampling
    think_tokens: ThinkTokens | None  # of a reasoning teacher

    def make(self, prompt: Prompt, name: str) -> list[Request]:
        """Return a prompt's requests, named `<name>/<response index or document offset>`.

        Raises:
            ValueError: the prompt gives none, and why: too long, refused by the template, or without a token.
        """
        if self.spec.task == "score":
            return list(self._scores(prompt, name))
        prompt_ids = encode_prompt(prompt, self.tokenizer, prefill=self.spec.prefill)
        # A constrained response is read again when it is finished, so it may be no longer than what can be scored.
        context = self.facts.max_scored_tokens if self.sampling.is_constrained else self.facts.max_model_len
        room = context - len(prompt_ids)
        if len(prompt_ids) == 0:
            raise ValueError("the prompt has no tokens")
        if room < 1:
            raise ValueError(
                f"the prompt has {len(prompt_ids)} tokens, and the teacher's context of {context} "
                f"tokens must hold a response too; shorten it, or raise --max-model-len"
            )
        return [
            GenerateRequest(
                request_id=f"{name}/{response_index}",
                prompt_ids=prompt_ids,
                sampling=self.sampling,
                max_tokens=min(self.spec.max_tokens, room),
                seed=response_seed(self.spec.seed, prompt.prompt_id, response_index),
                kind="assistant" if prompt.messages is not None else "completion",
            )
            for response_index in range(self.spec.responses)
        ]

    def record_id(self, prompt: Prompt, request_id: str) -> str:
        """Return the id of the record that an answer to one of the prompt's requests gives."""
        return record_id_of(prompt.prompt_id, *self._identity(prompt, request_id))

    def to_record(self, prompt: Prompt, answer: Answer) -> LabelRecord:
        """Return the record of an answer to one of the prompt's requests.

        Raises:
            ValueError: it has none of the spans to be labelled, or its thinking cannot be told from its answer.
        """
        document_offset, response_index = self._identity(prompt, answer.request_id)
        given = _given(prompt, answer.request_id)
        spans = choose_spans(self._spans_of(answer), self.spec.label_spans)
        positions = positions_in(spans)
        labels, text = answer.labels, answer.text
        if len(positions) < len(labels):  # of a response, which is one run
            labels, text = take_labels(labels, positions - answer.first_label), None
        if given is not None:
            text = given.text if spans == list(given.spans) else None
        elif text is None and (self.spec.task == "generate" or len(spans) == 1):
            text = self.tokenizer.decode(answer.input_ids[positions], skip_special_tokens=document_offset is None)
        record = LabelRecord(
            prompt_id=prompt.prompt_id,
            response_index=response_index,
            document_offset=document_offset,
            input_ids=answer.input_ids,
            spans=np.array([[span.start, span.stop] for span in spans], dtype=np.int32),
            span_kinds=tuple(span.kind for span in spans),
            labels=labels,
            prompt=prompt.prompt,
            messages=prompt.messages,
            text=text,
            finish_reason=answer.finish_reason if given is None else given.finish_reason,
            kept=prompt.kept,
        )
        return record if self.spec.keep_positions is None else self.spec.keep_positions.thin(record)

    def _spans_of(self, answer: Answer) -> tuple[TokenSpan, ...]:
        """Return the labelled runs of an answer, all of them."""
        if self.spec.task == "score" or self.think_tokens is None:
            return answer.spans
        spans = thinking_spans(
            answer.input_ids,
            answer.first_label,
            self.think_tokens,
            tokenizer=self.tokenizer,
            budget=self.sampling.max_think_tokens,
        )
        return tuple(spans)

    def _identity(self, prompt: Prompt, request_id: str) -> tuple[int | None, int]:
        """Return a record's document_offset and response_index."""
        given = _given(prompt, request_id)
        if given is not None:
            return given.document_offset, given.response_index
        number = _number_of(request_id)
        return (number, 0) if prompt.text is not None else (None, number)

    def _scores(self, prompt: Prompt, name: str) -> Iterator[Request]:
        if prompt.text is not None:
            yield from self._windows(prompt.text, name)
        elif prompt.sequences:
            yield from self._given(prompt.sequences, name)
        elif prompt.completion is not None:
            assert prompt.prompt is not None, "a completion has a prompt"
            yield self._score(f"{name}/0", *encode_pair(prompt.prompt, prompt.completion, self.tokenizer))
        else:
            assert prompt.messages is not None, "what is scored is a text, a pair, a chat or sequences"
            ids, spans = encode_turns(
                prompt.messages, self.tokenizer, tools=prompt.tools, end_ids=self.facts.stop_ids.keys()
            )
            yield self._score(f"{name}/0", ids, self._with_thinking(ids, spans))

    def _with_thinking(self, input_ids: NDArray[np.int32], spans: Sequence[TokenSpan]) -> list[TokenSpan]:
        """Return a chat's spans, thinking and answer told apart in each turn where the teacher is one that thinks."""
        if self.think_tokens is None:
            return list(spans)
        told_apart: list[TokenSpan] = []
        for span in spans:
            if span.kind != "assistant":
                told_apart.append(span)
                continue
            parts = thinking_spans(input_ids[: span.stop], span.start, self.think_tokens, tokenizer=self.tokenizer)
            told_apart += [replace(part, is_last=span.is_last) for part in parts]
        return told_apart

    def _score(self, request_id: str, input_ids: NDArray[np.int32], spans: Sequence[TokenSpan]) -> ScoreRequest:
        """Return the request that labels the chosen spans of a sequence that is read whole."""
        if len(input_ids) > self._max_scored:
            raise ValueError(
                f"it has {len(input_ids)} tokens, and the teacher's context of {self.facts.max_model_len} tokens must "
                f"hold one more; shorten it, or raise --max-model-len"
            )
        chosen = tuple(choose_spans(spans, self.spec.label_spans))
        return ScoreRequest(request_id=request_id, input_ids=input_ids, spans=chosen)

    def _given(self, sequences: Sequence[GivenSequence], name: str) -> Iterator[Request]:
        """Yield the requests of those with a span to label; one that is too long is for the teacher to refuse."""
        chosen = {}
        for number, sequence in enumerate(sequences):
            try:
                chosen[number] = tuple(choose_spans(sequence.spans, self.spec.label_spans))
            except ValueError as error:
                reason = error
        if not chosen:
            raise reason
        for number, spans in chosen.items():
            input_ids = np.array(sequences[number].input_ids, dtype=np.int32)
            yield ScoreRequest(request_id=f"{name}/{number}", input_ids=input_ids, spans=spans)

    @property
    def _max_scored(self) -> int:
        return self.facts.max_model_len - 1  # the engine generates one token, which is thrown away

    def _windows(self, text: str, name: str) -> Iterator[Request]:
        document_ids = self.tokenizer.encode_text(text, with_special_tokens=False)
        lead_ids = self.tokenizer.lead_ids
        if len(document_ids) < (1 if len(lead_ids) else 2):
            raise ValueError(f"the text has {len(document_ids)} tokens, none of them with a token before it")
        for window in cut_windows(
            document_ids, lead_ids=lead_ids, max_tokens=self._max_scored, stride=self.spec.stride
        ):
            span = TokenSpan(start=window.first_label, stop=len(window.input_ids), kind="text")
            yield self._score(f"{name}/{window.document_offset}", window.input_ids, [span])


def _number_of(request_id: str) -> int:
    return int(request_id.rsplit("/", 1)[-1])


def _given(prompt: Prompt, request_id: str) -> GivenSequence | None:
    return prompt.sequences[_number_of(request_id)] if prompt.sequences else None
