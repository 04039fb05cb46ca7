from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from turn_tokenizer import END_ID, TurnTokenizer, turns

from labelgen.job.requests import PromptRequests
from labelgen.job.spec import RunSpec
from labelgen.prompts.prompt import Prompt
from labelgen.prompts.scored_chat import encode_turns
from labelgen.prompts.scored_pair import encode_pair
from labelgen.prompts.thinking import find_think_tokens
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.teacher import ScoreRequest

QUESTION = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "Hello world"}


def labelled(
    messages: Sequence[Mapping[str, Any]], tokenizer: TurnTokenizer | None = None
) -> list[tuple[str, str, bool]]:
    """Return text, kind and is_last of each span."""
    tokenizer = tokenizer or TurnTokenizer()
    ids, spans = encode_turns(messages, tokenizer, tools=None, end_ids={END_ID})
    return [(tokenizer.decode(ids[span.start : span.stop]), span.kind, span.is_last) for span in spans]


def test_only_what_the_assistant_wrote_is_labelled_up_to_its_end_token() -> None:
    chat: list[dict[str, Any]] = [
        {"role": "user", "content": "Be brief."},
        ANSWER,
        QUESTION,
        {"role": "assistant", "content": " four"},
    ]
    assert labelled(chat) == [("Hello world<end>", "assistant", False), (" four<end>", "assistant", True)]


def test_tool_calls_are_a_kind_of_their_own_and_tool_results_are_not_labelled() -> None:
    chat: list[dict[str, Any]] = [
        QUESTION,
        {"role": "assistant", "content": "Hello", "tool_calls": ["f(1)"]},
        {"role": "tool", "content": "rain"},
        {"role": "assistant", "content": None, "tool_calls": ["g()"]},
        {"role": "tool", "content": "sun"},
        ANSWER,
    ]
    assert labelled(chat) == [
        ("Hello", "assistant", False),
        ("<call>f(1)<end>", "tool_call", False),
        ("<call>g()<end>", "tool_call", False),
        ("Hello world<end>", "assistant", True),
    ]


def test_a_turn_whose_calls_cannot_be_told_apart_is_one_span() -> None:
    """Its thoughts may stand before the call, where the message has no text."""
    chat: list[dict[str, Any]] = [
        QUESTION,
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": ["g()"]},
    ]
    assert labelled(chat) == [("<call>g()<end>", "assistant", True)]


def test_what_the_template_marks_is_labelled_and_its_end_token() -> None:
    text = turns([QUESTION, ANSWER], False)
    begin = text.index("Hello")
    for stop in (begin + len("Hello world"), begin + len("Hello world<end>"), len(text)):
        assert labelled([QUESTION, ANSWER], TurnTokenizer(marks=[(begin, stop)])) == [
            ("Hello world<end>", "assistant", True)
        ]


def test_marks_that_are_not_one_for_each_turn_are_refused() -> None:
    with pytest.raises(ValueError, match="marks 2 runs as generated, and the chat has 1 messages"):
        labelled([QUESTION, ANSWER], TurnTokenizer(marks=[(1, 2), (3, 4)]))


def test_a_token_over_a_boundary_is_refused() -> None:
    text = turns([QUESTION, ANSWER], False)
    begin = text.index("Hello")
    with pytest.raises(ValueError, match=r"message 1: its boundary cannot be proven: a token reaches over it, from"):
        labelled([QUESTION, ANSWER], TurnTokenizer(marks=[(begin + 2, len(text))]))


def test_without_an_end_token_a_turn_ends_with_its_text_or_is_refused() -> None:
    bare = functools.partial(turns, end="")
    assert labelled([QUESTION, ANSWER], TurnTokenizer(bare)) == [("Hello world", "assistant", True)]
    with pytest.raises(ValueError, match=r"a token reaches over it, from .* to '\\n'"):  # ".\n" is one token
        labelled([QUESTION, {"role": "assistant", "content": "Hello."}], TurnTokenizer(bare))
    with pytest.raises(ValueError, match="its end cannot be proven"):
        labelled([QUESTION, {"role": "assistant", "content": "", "tool_calls": ["f"]}], TurnTokenizer(bare))


def test_a_template_that_renders_earlier_turns_otherwise_is_taken_only_where_the_text_stands_there() -> None:
    def forgetful(messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> str:
        """Write the thoughts of the last message only, as templates of reasoning teachers do."""
        shown = [
            {**message, "content": message.get("thoughts", "") + message["content"]}
            if place == len(messages) - 1
            else message
            for place, message in enumerate(messages)
        ]
        return turns(shown, add_generation_prompt)

    chat: list[dict[str, Any]] = [QUESTION, {**ANSWER, "thoughts": "hm "}, QUESTION, ANSWER]
    assert labelled(chat, TurnTokenizer(forgetful)) == [
        ("Hello world<end>", "assistant", False),
        ("Hello world<end>", "assistant", True),
    ]

    def counting(messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> str:
        return f"{len(messages)} messages" + turns(messages, add_generation_prompt)

    with pytest.raises(ValueError, match="message 1: its boundary cannot be proven: the chat template renders"):
        labelled([QUESTION, ANSWER], TurnTokenizer(counting))


def test_a_chat_without_an_assistant_is_refused() -> None:
    with pytest.raises(ValueError, match="the chat has no message of the assistant"):
        labelled([QUESTION])


@pytest.mark.parametrize(
    ("prompt", "completion", "tokens"),
    [
        ("2+2:", " four", ["2", "+", "2", ":", " four"]),
        ("2+2: ", "four", ["2", "+", "2", ":", " ", "f", "o", "u", "r"]),  # as a teacher that is asked would write
        ("Hel", "lo", ["H", "e", "l", "l", "o"]),
    ],
)
def test_a_completion_begins_with_a_token_of_its_own(prompt: str, completion: str, tokens: list[str]) -> None:
    tokenizer = TurnTokenizer()
    ids, (span,) = encode_pair(prompt, completion, tokenizer)
    assert [tokenizer.decode([token]) for token in ids.tolist()] == tokens
    assert tokenizer.decode(ids[span.start : span.stop]) == completion and span.kind == "completion"
    assert ids[: span.start].tolist() == tokenizer.encode_text(prompt, with_special_tokens=True).tolist()


def test_a_seam_that_cannot_be_right_is_refused() -> None:
    class Spacing(TurnTokenizer):
        def decode(self, token_ids: Any, /, *, skip_special_tokens: bool = False) -> str:
            return " ".join(super(Spacing, self).decode([token]) for token in token_ids)

    with pytest.raises(ValueError, match="a token reaches over the seam of prompt and completion"):
        encode_pair("2+2: ", "four", Spacing())
    with pytest.raises(ValueError, match="the prompt has no tokens"):
        encode_pair("", "four", TurnTokenizer())


def test_thinking_and_answer_of_a_turn_are_told_apart() -> None:
    tokenizer, spec = TurnTokenizer(), RunSpec(task="score", sources=("-",), output_dir=Path("out"), teacher="turns")
    facts = FakeTeacher(selection=spec.selection).facts
    sampling, _ = spec.sampling.resolve({})
    requests = PromptRequests(
        spec=spec,
        facts=replace(facts, stop_ids={END_ID: "tokenizer"}),
        tokenizer=tokenizer,
        sampling=sampling,
        think_tokens=find_think_tokens(tokenizer, None),
    )

    def spans(*answers: str) -> list[tuple[str, str, bool]]:
        messages = [message for text in answers for message in (QUESTION, {"role": "assistant", "content": text})]
        prompt = Prompt(prompt_id="p", source="s", line=1, content_hash="", messages=messages)
        (request,) = requests.make(prompt, "000000/0")
        assert isinstance(request, ScoreRequest)
        ids = request.input_ids
        return [(tokenizer.decode(ids[part.start : part.stop]), part.kind, part.is_last) for part in request.spans]

    assert spans("Hello", "<think>hm</think> four") == [
        ("Hello<end>", "answer", False),
        ("<think>hm</think>", "reasoning", True),
        (" four<end>", "answer", True),
    ]
    with pytest.raises(ValueError, match="its thinking begins 2 times"):
        spans("<think>a</think>b<think>")
