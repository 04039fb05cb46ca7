"""Ids that are not what the teacher's tokenizer and template make of prompts and texts are found, and named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from damage import sequence
from numpy.typing import NDArray

from labelgen.prompts.prompt import Prompt
from labelgen.rescore.prompt_check import find_prompt_problems
from labelgen.teachers.fake import FakeTokenizer
from labelstore.record import LabelRecord

BOS = 299


class LeadingTokenizer(FakeTokenizer):
    """Puts a BOS before a text; its template writes a date."""

    date = "26 Jul 2024"

    @property
    def lead_ids(self) -> NDArray[np.int32]:
        return np.array([BOS], dtype=np.int32)

    def encode_text(self, text: str, /, *, with_special_tokens: bool) -> NDArray[np.int32]:
        ids = super().encode_text(text, with_special_tokens=with_special_tokens)
        return np.concatenate([self.lead_ids, ids]) if with_special_tokens else ids

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], /, *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> NDArray[np.int32]:
        dated = [{"role": "system", "content": f"Today is {self.date}."}, *messages]
        return super().encode_chat(dated, tools=tools)


TOKENIZER = LeadingTokenizer()
PROMPT = Prompt(prompt_id="p0", content_hash="0", source="s", line=1, prompt="Why is the sky blue?")
CHAT = Prompt(
    prompt_id="p0", content_hash="0", source="s", line=1, messages=[{"role": "user", "content": "Why is the sky blue?"}]
)


def record_of(prompt_ids: NDArray[np.int32], *, text: str = "It is not, at night.") -> LabelRecord:
    """A record with a prompt and a response of 20 tokens."""
    response = FakeTokenizer().encode_text(text, with_special_tokens=False)
    ids = np.concatenate([prompt_ids, response]).astype(np.int32)
    spans = np.array([[len(prompt_ids), len(ids)]], dtype=np.int32)
    template = sequence(0, num_tokens=len(ids), first_label=len(prompt_ids))
    return replace(template, input_ids=ids, spans=spans, text=text, finish_reason="stop")


def problems_of(record: LabelRecord, prompt: Prompt | None = PROMPT) -> str:
    prompts = {} if prompt is None else {record.prompt_id: prompt}
    return "; ".join(find_prompt_problems([record], TOKENIZER, prompts=prompts))


SOUND = TOKENIZER.encode_text("Why is the sky blue?", with_special_tokens=True)


def test_what_the_teachers_own_tokenizer_made_is_right() -> None:
    assert problems_of(record_of(SOUND)) == ""
    assert problems_of(record_of(TOKENIZER.encode_chat(CHAT.messages or [])), CHAT) == ""


def test_a_doubled_and_a_missing_bos_are_named() -> None:
    assert "a doubled BOS: the prompts of 1 of 1 records" in problems_of(record_of(np.insert(SOUND, 0, BOS)))
    assert "no BOS: the prompts of 1 of 1 records" in problems_of(record_of(SOUND[1:]))


def test_another_template_is_named() -> None:
    bare = FakeTokenizer().encode_chat(CHAT.messages or [])
    assert problems_of(record_of(bare), CHAT).startswith("another template: the prompts of 1 of 1 records")
    assert problems_of(record_of(SOUND), CHAT).startswith("another template")
    assert problems_of(record_of(bare), None) == ""  # no snapshot, nothing to compare with


def test_a_template_that_refuses_the_prompt_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NDArray[np.int32]:
        raise ValueError("the template wants a system message")

    sound = record_of(TOKENIZER.encode_chat(CHAT.messages or []))
    monkeypatch.setattr(LeadingTokenizer, "encode_chat", refuse)
    assert problems_of(sound, CHAT).startswith("another template")


def test_a_template_that_writes_the_date_is_no_other_one() -> None:
    yesterday = LeadingTokenizer()
    yesterday.date = "25 Jul 2024"
    assert problems_of(record_of(yesterday.encode_chat(CHAT.messages or [])), CHAT) == ""
    yesterday.date = "a day without a number"
    assert "another template" in problems_of(record_of(yesterday.encode_chat(CHAT.messages or [])), CHAT)


@pytest.mark.parametrize("prompt", [PROMPT, None], ids=["snapshot", "no snapshot"])
def test_ids_of_another_tokenizer_are_named(prompt: Prompt | None) -> None:
    sound = record_of(SOUND)
    other = replace(sound, input_ids=np.where(sound.input_ids < 256, sound.input_ids + 1, sound.input_ids))
    assert problems_of(other, prompt).startswith("another tokenizer: the ids of 1 of 1 records do not decode")


def test_a_text_that_a_stop_string_cut_is_right() -> None:
    assert problems_of(replace(record_of(SOUND), text="It is not")) == ""


def test_one_text_in_many_that_is_spelled_otherwise_is_no_other_tokenizer() -> None:
    records = [record_of(SOUND)] * 7 + [replace(record_of(SOUND), text="It is n\ufffdt")]
    assert find_prompt_problems(records, TOKENIZER, prompts={}) == []
    assert len(find_prompt_problems(records[5:], TOKENIZER, prompts={})) == 1


def test_scored_documents_are_compared_with_the_snapshots_texts() -> None:
    document = "The sky is blue by day and black by night."
    prompt = Prompt(prompt_id="p0", content_hash="0", source="s", line=1, text=document)
    ids = FakeTokenizer().encode_text(document, with_special_tokens=False)[10:30]
    lead = TOKENIZER.lead_ids
    sound = replace(record_of(lead, text=document[10:30]), document_offset=10, finish_reason=None)
    np.testing.assert_array_equal(sound.input_ids[1:], ids)
    assert problems_of(sound, prompt) == ""
    assert "another tokenizer: the ids of 1 of 1 records are not what" in problems_of(
        replace(sound, document_offset=9), prompt
    )
    before = FakeTokenizer().encode_text(document, with_special_tokens=False)[6:10]
    overlapping = record_of(np.concatenate([lead, before]), text=document[10:30])
    assert problems_of(replace(overlapping, document_offset=10, finish_reason=None), prompt) == ""
    elsewhere = record_of(np.concatenate([lead, before[::-1]]), text=document[10:30])
    assert "another template" in problems_of(replace(elsewhere, document_offset=10, finish_reason=None), prompt)
    doubled = replace(record_of(np.repeat(lead, 2), text=document[10:30]), document_offset=10, finish_reason=None)
    assert "a doubled BOS" in problems_of(doubled, prompt)
