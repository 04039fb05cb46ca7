"""Thinking and answer are told apart by token ids, or the response is rejected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import labelgen
import labelstore
from labelgen.prompts.thinking import ThinkTokens, find_think_tokens, thinking_spans
from labelgen.teachers.fake import FakeTeacher, FakeTokenizer
from labelgen.teachers.sampling import SamplingChoice
from labelstore.selection import Selection
from rejected_rows import rejected_rows

TOKENIZER = FakeTokenizer()
TOKENS = ThinkTokens(start_id=ord("[") + 1, end_id=ord("]") + 1)


def spans_of(prompt: str, response: str, *, budget: int | None = None) -> list[tuple[str, str]]:
    """Return the parts of a response by kind, as text."""
    ids = TOKENIZER.encode_text(prompt + response, with_special_tokens=True)
    spans = thinking_spans(ids, len(prompt), TOKENS, tokenizer=TOKENIZER, budget=budget)
    return [(span.kind, (prompt + response)[span.start : span.stop]) for span in spans]


@pytest.mark.parametrize(
    ("prompt", "response", "wanted"),
    [
        ("ask", "[well] yes", [("reasoning", "[well]"), ("answer", " yes")]),
        ("ask", "\n[well]yes", [("reasoning", "\n[well]"), ("answer", "yes")]),
        ("ask[", "well]yes", [("reasoning", "well]"), ("answer", "yes")]),
        ("ask[ so", "well]", [("reasoning", "well]")]),
        ("ask[", "well", [("reasoning", "well")]),
        ("ask", "[well", [("reasoning", "[well")]),
        ("ask", "yes", [("answer", "yes")]),
        ("ask[]", "yes", [("answer", "yes")]),
        ("[old]ask[", "well]yes", [("reasoning", "well]"), ("answer", "yes")]),
    ],
)
def test_thinking_is_told_from_the_answer(prompt: str, response: str, wanted: list[tuple[str, str]]) -> None:
    assert spans_of(prompt, response) == wanted


@pytest.mark.parametrize(
    ("prompt", "response", "message"),
    [
        ("ask", "[one]two[three]", "its thinking begins 2 times and ends 2 times"),
        ("ask[", "one[two]", "its thinking begins 2 times and ends 1 times"),
        ("ask", "[one]two]", "its thinking begins 1 times and ends 2 times"),
        ("ask", "yes]", "its thinking ends, and has not begun"),
        ("ask", "yes [well]", "its thinking begins behind 4 tokens of something else"),
        ("ask", " ]\n[", "its thinking begins behind 3 tokens of something else"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(prompt: str, response: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spans_of(prompt, response)


def test_an_end_that_the_budget_forced_is_in_no_span() -> None:
    assert spans_of("ask[", "abc]yes", budget=3) == [("reasoning", "abc"), ("answer", "yes")]
    assert spans_of("ask[", "abc]yes", budget=4) == [("reasoning", "abc]"), ("answer", "yes")]
    assert spans_of("ask", "[abc]yes", budget=3) == [("reasoning", "[abc"), ("answer", "yes")]


def test_think_tokens_are_one_token_each() -> None:
    assert find_think_tokens(TOKENIZER, ("[", "]")) == TOKENS
    assert find_think_tokens(TOKENIZER, None) is None  # nothing that reasoning teachers are known by
    with pytest.raises(ValueError, match="--think-tokens 'x' 'yz': must be one token each, and two different ones"):
        find_think_tokens(TOKENIZER, ("x", "yz"))
    with pytest.raises(ValueError, match="two different ones"):
        find_think_tokens(TOKENIZER, ("x", "x"))
    with pytest.raises(ValueError, match="--max-think-tokens needs --think-tokens START END"):
        labelgen.RunSpec(
            task="generate",
            sources=("p",),
            output_dir=Path("o"),
            teacher="t",
            sampling=SamplingChoice(max_think_tokens=5),
        )


def label(root: Path, **changes: Any) -> Path:
    prompts = root / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"id": f"p{i}", "prompt": f"prompt {i}"}) + "\n" for i in range(30)))
    selection = Selection(top_k=4)
    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(prompts),),
        output_dir=root / "labels",
        teacher="fake",
        selection=selection,
        codec="open",
        max_tokens=40,
        think_tokens=("[", "]"),
        prefill="[",
        **changes,
    )
    summary = labelgen.run(spec, teacher=FakeTeacher(selection=selection, vocab_size=120))
    assert summary.rescored is not None and summary.rescored.problems == ()  # prompts are compared, prefill and all
    assert labelstore.verify_dataset(root / "labels").findings == []
    return root / "labels"


def test_a_job_labels_what_it_is_asked_for_and_rejects_the_rest(tmp_path: Path) -> None:
    for which in ("all", "answer"):
        (tmp_path / which).mkdir()
    whole = list(labelstore.open_dataset(label(tmp_path / "all")))
    kinds = {record.span_kinds for record in whole}
    assert ("reasoning", "answer") in kinds and ("reasoning",) in kinds
    both = {record.record_id: record for record in whole if record.span_kinds == ("reasoning", "answer")}
    answers = labelstore.open_dataset(label(tmp_path / "answer", label_spans="answer"))
    assert {record.record_id for record in answers} == both.keys()
    for record in answers:
        assert record.span_kinds == ("answer",)
        of_whole = both[record.record_id]
        start = int(np.searchsorted(of_whole.positions, record.positions[0]))
        np.testing.assert_array_equal(record.logprobs, of_whole.logprobs[start:])
        assert record.text is not None and of_whole.text is not None and of_whole.text.endswith(record.text)
    rejected = rejected_rows(tmp_path / "answer/labels")
    assert any(
        "--label-spans answer: there is none of answer; what it has is reasoning" in row["reason"] for row in rejected
    )
    fields = answers.header.fingerprint_fields
    assert fields["think_tokens"] == [TOKENS.start_id, TOKENS.end_id] and fields["label_spans"] == "answer"
