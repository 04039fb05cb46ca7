"""The one check that every teacher passes: fake, Transformers, vLLM."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from score_requests import score_request

from labelgen.prompts.token_spans import TokenSpan
from labelgen.teachers.sampling import SamplingChoice
from labelgen.teachers.teacher import Answer, GenerateRequest, Refusal, Request, ScoreRequest, Teacher
from labelstore.record import LabelRecord
from labelstore.record_checks import find_problems

__all__ = ["check_teacher"]

TEXTS = ["The library opens at nine.", "def double(x):\n    return 2 * x\n", "Zwei Katzen schlafen."]


def check_teacher(teacher: Teacher, *, top_k: int, generates: bool, tolerance_nats: float) -> None:
    """Raise AssertionError where a teacher does not keep the protocol.

    `tolerance_nats` is how far two computations of one log-probability may differ: zero for the fake, the noise of
    batching for an engine.
    """
    facts = teacher.facts
    assert facts.vocab_size >= top_k
    for name in ("weights", "vocab_size", "tokenizer", "chat_template"):
        assert name in facts.fingerprint_fields
    texts = [teacher.tokenizer.encode_text(text, with_special_tokens=True) for text in TEXTS]
    scores: list[Request] = [score_request(f"s{i}", ids, first=1 + i) for i, ids in enumerate(texts)]
    answers = _answers(teacher, scores)
    assert answers.keys() == {"s0", "s1", "s2"}
    for i, ids in enumerate(texts):
        answer = answers[f"s{i}"]
        assert isinstance(answer, Answer)
        np.testing.assert_array_equal(answer.input_ids, ids)
        assert answer.first_label == 1 + i and answer.finish_reason is None
        _check_labels(answer, teacher, top_k)
    _check_same(answers, _answers(teacher, scores[::-1]), tolerance_nats)  # order and batch change nothing
    _check_several_spans(teacher, np.tile(texts[0], 4)[:12], tolerance_nats)
    too_long = np.tile(texts[0], facts.max_model_len)[: facts.max_model_len + 1]
    refused = _answers(teacher, [score_request("long", too_long, first=1), scores[0]])
    assert isinstance(refused["long"], Refusal) and isinstance(refused["s0"], Answer)
    assert list(teacher.label([])) == []
    sampling, _ = SamplingChoice(temperature=0.8).resolve(facts.sampling_defaults)
    prompts: list[Request] = [
        GenerateRequest(request_id=f"g{i}", prompt_ids=ids, sampling=sampling, max_tokens=12 + i, seed=5 + i)
        for i, ids in enumerate(texts)
    ]
    responses = _answers(teacher, prompts)
    if not generates:
        assert all(isinstance(response, Refusal) for response in responses.values())
        return
    _check_generating(teacher, prompts, responses, top_k, tolerance_nats)


def _check_several_spans(teacher: Teacher, input_ids: NDArray[np.int32], tolerance_nats: float) -> None:
    """A request with several spans has the labels of all, and of no other token."""
    spans = (TokenSpan(start=2, stop=4, kind="reasoning"), TokenSpan(start=6, stop=7, kind="answer"))
    asked = ScoreRequest(request_id="spans", input_ids=input_ids, spans=spans)
    answers = _answers(teacher, [asked, score_request("whole", input_ids)])
    some, whole = answers["spans"], answers["whole"]
    assert isinstance(some, Answer) and isinstance(whole, Answer) and some.spans == spans
    rows = np.array([2, 3, 6]) - 1
    np.testing.assert_allclose(some.labels.logprobs, whole.labels.logprobs[rows], rtol=0, atol=tolerance_nats)
    np.testing.assert_allclose(
        some.labels.target_logprobs, whole.labels.target_logprobs[rows], rtol=0, atol=tolerance_nats
    )


def _check_generating(
    teacher: Teacher,
    prompts: Sequence[Request],
    responses: dict[str, Answer | Refusal],
    top_k: int,
    tolerance_nats: float,
) -> None:
    for i, request in enumerate(prompts):
        response = responses[f"g{i}"]
        assert isinstance(response, Answer) and isinstance(request, GenerateRequest)
        num_prompt = len(request.prompt_ids)
        np.testing.assert_array_equal(response.input_ids[:num_prompt], request.prompt_ids)
        assert response.first_label == num_prompt
        response_ids = response.input_ids[num_prompt:].tolist()
        is_ended = response_ids[-1] in teacher.facts.stop_ids
        assert response.finish_reason == ("stop" if is_ended else "length")
        assert len(response_ids) == request.max_tokens or is_ended
        assert not set(response_ids[:-1]) & set(teacher.facts.stop_ids)
        _check_labels(response, teacher, top_k)
        # Reading what was written gives the labels that were given when it was written.
        reading = score_request("r", response.input_ids, first=num_prompt)
        _check_same({"r": dataclasses.replace(response, request_id="r")}, _answers(teacher, [reading]), tolerance_nats)
    _check_same(responses, _answers(teacher, list(prompts)[::-1]), tolerance_nats)
    first = prompts[0]
    assert isinstance(first, GenerateRequest)
    reseeded = [dataclasses.replace(first, request_id=f"x{seed}", seed=seed) for seed in range(100, 104)]
    texts = {
        answer.input_ids.tobytes() for answer in _answers(teacher, reseeded).values() if isinstance(answer, Answer)
    }
    assert len(texts) > 1, "the seed changes nothing"


def _answers(teacher: Teacher, requests: Sequence[Request]) -> dict[str, Answer | Refusal]:
    answers = list(teacher.label(requests))
    assert len(answers) == len(requests)
    return {answer.request_id: answer for answer in answers}


def _check_labels(answer: Answer, teacher: Teacher, top_k: int) -> None:
    labels = answer.labels
    assert labels.token_ids.shape == (len(answer.input_ids) - answer.first_label, top_k)
    record = LabelRecord(
        prompt_id=answer.request_id,
        input_ids=answer.input_ids,
        spans=np.array([[answer.first_label, len(answer.input_ids)]], dtype=np.int32),
        span_kinds=("text",),
        labels=labels,
    )
    assert list(find_problems(record, vocab_size=teacher.facts.vocab_size)) == []


def _check_same(left: dict[str, Answer | Refusal], right: dict[str, Answer | Refusal], tolerance_nats: float) -> None:
    for name, one in left.items():
        other = right[name]
        assert isinstance(one, Answer) and isinstance(other, Answer)
        np.testing.assert_array_equal(one.input_ids, other.input_ids)
        for field in ("logprobs", "target_logprobs"):
            a, b = getattr(one.labels, field), getattr(other.labels, field)
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance_nats)
