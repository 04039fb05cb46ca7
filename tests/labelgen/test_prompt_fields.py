from __future__ import annotations

from typing import Any

import pytest

from labelgen.prompts.prompt import Prompt, Reject, parse_row
from labelgen.prompts.prompt_fields import PromptFields, Task
from labelgen.prompts.row_template import RowTemplate

CHAT = [{"role": "user", "content": "hi"}]


def parsed(row: object, task: Task = "generate", **fields: Any) -> Prompt:
    prompt = parse_row(row, task=task, source="s", line=1, fields=PromptFields(**fields))
    assert isinstance(prompt, Prompt), prompt
    return prompt


def reason(row: object, task: Task = "generate", **fields: Any) -> str:
    reject = parse_row(row, task=task, source="s", line=1, fields=PromptFields(**fields))
    assert isinstance(reject, Reject)
    return reject.reason


def test_fields_have_the_names_that_the_prompt_set_gives_them() -> None:
    assert parsed({"q": "a", "key": 7}, prompt="q", prompt_id="key").prompt_id == "7"
    assert parsed({"conversation": CHAT, "prompt": "unrelated"}, messages="conversation").messages == CHAT
    assert parsed({"q": "a", "messages": CHAT}, prompt="q").prompt == "a"
    assert parsed({"body": "a", "text": "unrelated"}, "score", text="body").text == "a"
    pair = parsed({"q": "a", "a": "b", "text": "unrelated"}, "score", prompt="q", completion="a")
    assert (pair.prompt, pair.completion, pair.text) == ("a", "b", None)
    assert parsed({"prompt": "a", "messages": CHAT}, "score").messages == CHAT  # half a pair is none
    assert "either 'q' or 'c', not both" in reason({"q": "a", "c": CHAT}, prompt="q", messages="c")
    assert "a row needs 'q', this one has 'prompt'" in reason({"prompt": "a"}, prompt="q")


def test_a_template_makes_a_prompt_of_several_fields() -> None:
    template = RowTemplate("{context} {{really}}\nQ: {question} ({year})")
    row = {"context": "Sea.", "question": "Why?", "year": 1999}
    assert parsed(row, template=template).prompt == "Sea. {really}\nQ: Why? (1999)"
    assert parsed(row, "score", template=template).text == "Sea. {really}\nQ: Why? (1999)"
    assert parsed({**row, "messages": CHAT}, template=template).messages is None
    assert "needs 'year' as text or number, this row has none" in reason({**row, "year": None}, template=template)
    assert "this row has list" in reason({**row, "context": ["x"]}, template=template)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "a brace that is text is written twice"),
        ("{}", "must be the name of a field alone"),
        ("{a!r}", "must be the name of a field alone"),
        ("{a:>5}", "must be the name of a field alone"),
        ("nothing", "names no field"),
    ],
)
def test_a_template_that_cannot_work_is_refused_before_a_row_is_read(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RowTemplate(text)


def test_a_template_takes_no_attributes_of_a_value() -> None:
    assert "needs 'a.__class__'" in reason({"a": "x"}, template=RowTemplate("{a.__class__}"))


def test_a_system_message_comes_before_chats_that_have_none() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert parsed({"messages": CHAT}, system="Be brief.").messages == [system, *CHAT]
    own = [{"role": "system", "content": "own"}, *CHAT]
    assert parsed({"messages": own}, system="Be brief.").messages == own
    assert parsed({"prompt": "hi"}, system="Be brief.").messages == [system, *CHAT]
    assert parsed({"prompt": "hi"}, as_chat=True).messages == CHAT


def test_tools_go_to_the_teacher_and_stay_with_the_record() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    with_tools, without = parsed({"messages": CHAT, "tools": tools}), parsed({"messages": CHAT})
    assert with_tools.tools == tools and with_tools.kept == {"tools": tools}
    assert with_tools.content_hash != without.content_hash
    assert parsed({"messages": CHAT, "tools": []}).content_hash == without.content_hash
    assert "'tools' must be a list of objects, got str" in reason({"messages": CHAT, "tools": "f"})


def test_settings_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="--template makes the prompt itself"):
        PromptFields(template=RowTemplate("{a}"), prompt="a")
    with pytest.raises(ValueError, match="--system must not be empty"):
        PromptFields(system="")


def test_a_template_and_named_fields_are_told_apart_when_a_source_is_read_again() -> None:
    assert PromptFields().to_json() == {}
    assert PromptFields(template=RowTemplate("{a}")).to_json() == {"template": {"text": "{a}"}}
    assert PromptFields(columns=("a",)).to_json() == {"columns": ["a"]}
