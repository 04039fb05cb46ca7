"""A teacher without a model: seeded, of any vocabulary size, in microseconds. For tests and fault injection."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen.prompts.token_spans import TokenSpan, positions_in
from labelgen.teachers.full_softmax import full_softmax_labels, request_seed
from labelgen.teachers.sampling import Sampling
from labelgen.teachers.selecting import check_selection
from labelgen.teachers.teacher import Answer, GenerateRequest, Refusal, Request, ScoreRequest, TeacherFacts
from labelstore.selection import Selection

__all__ = ["FakeTeacher", "FakeTokenizer"]

_EOS = 0
_FIRST_BYTE = 1  # ids 1 to 256 are bytes; ids above are never written by the tokenizer


class FakeTokenizer:
    """One token a byte. Its chat template is `role: content` lines; it puts nothing before a text."""

    has_chat_template = True

    @property
    def fingerprint_fields(self) -> Mapping[str, Any]:
        return {"tokenizer": "bytes", "tokenizer_lead_ids": [], "chat_template": "fake", "chat_template_args": {}}

    @property
    def lead_ids(self) -> NDArray[np.int32]:
        return np.zeros(0, dtype=np.int32)

    def encode_text(self, text: str, /, *, with_special_tokens: bool) -> NDArray[np.int32]:
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int32) + _FIRST_BYTE

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], /, *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> NDArray[np.int32]:
        rendered = self.render_chat(messages, tools=tools, add_generation_prompt=True)
        return self.encode_text(rendered, with_special_tokens=True)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool,
    ) -> str:
        lines = [f"tool: {tool}\n" for tool in tools or ()]
        lines += [f"{message['role']}: {message.get('content')}\n" for message in messages]
        return "".join(lines) + ("assistant: " if add_generation_prompt else "")

    def generation_marks(
        self, messages: Sequence[Mapping[str, Any]], /, *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[tuple[int, int]] | None:
        return None

    def decode(self, token_ids: Sequence[int] | NDArray[np.int32], /, *, skip_special_tokens: bool = False) -> str:
        data = bytes(int(i) - _FIRST_BYTE for i in token_ids if _FIRST_BYTE <= int(i) < _FIRST_BYTE + 256)
        return data.decode(errors="replace")


class FakeTeacher:
    """Believes something arbitrary but fixed, given the last token and its position."""

    def __init__(
        self,
        *,
        selection: Selection,
        vocab_size: int = 1000,
        max_model_len: int = 512,
        seed: int = 0,
        name: str = "fake",
    ) -> None:
        check_selection(selection, vocab_size=vocab_size)
        self._selection = selection
        self._seed = seed
        self._tokenizer = FakeTokenizer()
        self._facts = TeacherFacts(
            name=name,
            vocab_size=vocab_size,
            max_model_len=max_model_len,
            max_scored_tokens=max_model_len - 1,
            stop_ids={_EOS: "tokenizer"},
            sampling_defaults={},
            fingerprint_fields={
                "weights": f"fake-{seed}",
                "vocab_size": vocab_size,
                "max_model_len": max_model_len,
                **self._tokenizer.fingerprint_fields,
            },
            recorded={"engine": "fake"},
        )

    @property
    def facts(self) -> TeacherFacts:
        return self._facts

    @property
    def selection(self) -> Selection:
        return self._selection

    @property
    def tokenizer(self) -> FakeTokenizer:
        return self._tokenizer

    def check_sampling(self, sampling: Sampling) -> None:
        if sampling.constraint is not None or sampling.bad_words or sampling.max_think_tokens:
            raise ValueError("the fake teacher knows neither grammars nor bad words, and does not think")

    def start(self) -> None:
        pass

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        for request in requests:
            yield self._score(request) if isinstance(request, ScoreRequest) else self._generate(request)

    def close(self) -> None:
        pass

    def full_logprobs(self, input_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the log-probabilities of every next token [T, V], in nats."""
        return np.stack([self._next_logprobs(int(token), place) for place, token in enumerate(input_ids)])

    def _next_logprobs(self, last_token: int, place: int) -> NDArray[np.float32]:
        digest = hashlib.blake2b(f"{self._seed} {last_token} {place}".encode(), digest_size=8).digest()
        logits = 3 * np.random.default_rng(int.from_bytes(digest, "little")).normal(size=self._facts.vocab_size)
        peak = logits.max()
        logprobs: NDArray[np.float32] = (logits - peak - np.log(np.exp(logits - peak).sum())).astype(np.float32)
        return logprobs

    def _score(self, request: ScoreRequest) -> Answer | Refusal:
        if len(request.input_ids) > self._facts.max_model_len - 1:
            return Refusal(request_id=request.request_id, reason=f"it has {len(request.input_ids)} tokens, too many")
        positions = positions_in(request.spans)
        logprobs = self.full_logprobs(request.input_ids)[positions - 1]
        labels = full_softmax_labels(
            logprobs, request.input_ids[positions], self._selection, seed=request_seed(request.request_id)
        )
        return Answer(request_id=request.request_id, input_ids=request.input_ids, spans=request.spans, labels=labels)

    def _generate(self, request: GenerateRequest) -> Answer | Refusal:
        if len(request.prompt_ids) + 1 > self._facts.max_model_len:
            return Refusal(request_id=request.request_id, reason=f"it has {len(request.prompt_ids)} tokens, too many")
        rng = np.random.default_rng(request.seed)
        input_ids = [int(token) for token in request.prompt_ids]
        rows: list[NDArray[np.float32]] = []
        finish_reason = "length"
        stop_ids = [*self._facts.stop_ids, *request.sampling.stop_ids]
        for place in range(min(request.max_tokens, self._facts.max_model_len - len(request.prompt_ids))):
            logprobs = self._next_logprobs(input_ids[-1], len(input_ids) - 1)
            rows.append(logprobs)
            scores = logprobs.copy()
            for token, bias in request.sampling.logit_bias.items():
                scores[token] += bias
            if place < request.sampling.min_tokens:
                scores[stop_ids] = -np.inf
            if request.sampling.temperature == 0:
                token = int(scores.argmax())
            else:  # Gumbel's trick: the largest of the disturbed logits is a draw
                token = int((scores / request.sampling.temperature + rng.gumbel(size=len(scores))).argmax())
            input_ids.append(token)
            if token in stop_ids:
                finish_reason = "stop"
                break
        ids = np.array(input_ids, dtype=np.int32)
        first = len(request.prompt_ids)
        return Answer(
            request_id=request.request_id,
            input_ids=ids,
            spans=(TokenSpan(start=first, stop=len(ids), kind=request.kind),),
            labels=full_softmax_labels(
                np.stack(rows), ids[first:], self._selection, seed=request_seed(request.request_id)
            ),
            finish_reason=finish_reason,
        )
