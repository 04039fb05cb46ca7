"""From a prompt to the requests that it needs, and from the answers to records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from labelgen.job.fingerprint import response_seed
from labelgen.job.spec import RunSpec
from labelgen.prompts.prompt import Prompt
from labelgen.prompts.token_spans import TokenSpan, choose_spans
from labelgen.prompts.tokenizer import PromptTokenizer, encode_prompt
from labelgen.prompts.windows import cut_windows
from labelgen.teachers.sampling import Sampling
from labelgen.teachers.teacher import Answer, GenerateRequest, Request, ScoreRequest, TeacherFacts
from labelstore.record import LabelRecord, SpanKind, record_id_of

__all__ = ["PromptRequests"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRequests:
    """Makes the requests of each prompt, and knows how to read their answers."""

    spec: RunSpec
    facts: TeacherFacts
    tokenizer: PromptTokenizer
    sampling: Sampling

    def make(self, prompt: Prompt, name: str) -> list[Request]:
        """Return a prompt's requests, named `<name>/<response index or document offset>`.

        Raises:
            ValueError: the prompt gives none, and why: too long, refused by the template, or without a token.
        """
        if self.spec.task == "score":
            return list(self._scores(prompt, name))
        prompt_ids = encode_prompt(prompt, self.tokenizer)
        room = self.facts.max_model_len - len(prompt_ids)
        if len(prompt_ids) == 0:
            raise ValueError("the prompt has no tokens")
        if room < 1:
            raise ValueError(
                f"the prompt has {len(prompt_ids)} tokens, and the teacher's context of {self.facts.max_model_len} "
                f"tokens must hold a response too; shorten it, or raise --max-model-len"
            )
        return [
            GenerateRequest(
                request_id=f"{name}/{response_index}",
                prompt_ids=prompt_ids,
                sampling=self.sampling,
                max_tokens=min(self.spec.max_tokens, room),
                seed=response_seed(self.spec.seed, prompt.prompt_id, response_index),
            )
            for response_index in range(self.spec.responses)
        ]

    def record_id(self, prompt: Prompt, request_id: str) -> str:
        """Return the id of the record that an answer to one of the prompt's requests gives."""
        number = int(request_id.rsplit("/", 1)[-1])
        return record_id_of(prompt.prompt_id, *((number, 0) if self.spec.task == "score" else (None, number)))

    def to_record(self, prompt: Prompt, answer: Answer) -> LabelRecord:
        """Return the record of an answer to one of the prompt's requests."""
        number = int(answer.request_id.rsplit("/", 1)[-1])
        is_score = self.spec.task == "score"
        labelled_ids = answer.input_ids[answer.first_label :]
        spans = choose_spans(self._spans_of(prompt, answer), self.spec.label_spans)
        text = answer.text
        if text is None:
            text = self.tokenizer.decode(labelled_ids, skip_special_tokens=not is_score)
        return LabelRecord(
            prompt_id=prompt.prompt_id,
            response_index=0 if is_score else number,
            document_offset=number if is_score else None,
            input_ids=answer.input_ids,
            spans=np.array([[span.start, span.stop] for span in spans], dtype=np.int32),
            span_kinds=tuple(span.kind for span in spans),
            labels=answer.labels,
            prompt=prompt.prompt,
            messages=prompt.messages,
            text=text,
            finish_reason=answer.finish_reason,
            kept=prompt.kept,
        )

    def _spans_of(self, prompt: Prompt, answer: Answer) -> list[TokenSpan]:
        """Return the labelled runs of an answer, all of them."""
        kind: SpanKind = "assistant" if prompt.messages is not None else "completion"
        if self.spec.task == "score":
            kind = "text"
        return [TokenSpan(start=answer.first_label, stop=len(answer.input_ids), kind=kind)]

    def _scores(self, prompt: Prompt, name: str) -> Iterator[Request]:
        assert prompt.text is not None, "a prompt to score has a text"
        document_ids = self.tokenizer.encode_text(prompt.text, with_special_tokens=False)
        lead_ids = self.tokenizer.lead_ids
        if len(document_ids) < (1 if len(lead_ids) else 2):
            raise ValueError(f"the text has {len(document_ids)} tokens, none of them with a token before it")
        # One token less than the context: the engine generates one, which is thrown away.
        max_tokens = self.facts.max_model_len - 1
        for window in cut_windows(document_ids, lead_ids=lead_ids, max_tokens=max_tokens):
            yield ScoreRequest(
                request_id=f"{name}/{window.document_offset}",
                input_ids=window.input_ids,
                first_label=window.first_label,
            )
