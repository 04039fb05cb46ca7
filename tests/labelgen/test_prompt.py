from __future__ import annotations

import pytest

from labelgen.prompts.prompt import Prompt, Reject, parse_row
from labelgen.prompts.prompt_fields import PromptFields, Task


def parsed(row: object, task: Task = "generate", columns: tuple[str, ...] = ()) -> Prompt | Reject:
    return parse_row(row, task=task, source="s", line=3, fields=PromptFields(columns=columns))


CHAT = [{"role": "user", "content": "hi"}]


def test_a_row_without_id_is_named_by_its_content() -> None:
    first, again, other = (parsed({"prompt": text}) for text in ("a", "a", "b"))
    assert isinstance(first, Prompt) and isinstance(again, Prompt) and isinstance(other, Prompt)
    assert first.prompt_id == again.prompt_id == first.content_hash[:16]
    assert first.prompt_id != other.prompt_id


def test_ids_may_be_integers_and_columns_are_kept() -> None:
    prompt = parsed({"id": 7, "messages": CHAT, "topic": "x", "other": 1}, columns=("topic",))
    assert isinstance(prompt, Prompt)
    assert prompt.prompt_id == "7" and prompt.kept == {"topic": "x"} and prompt.messages == CHAT


@pytest.mark.parametrize(
    ("row", "task", "reason"),
    [
        ({"question": "hi"}, "generate", "a row needs 'prompt' or 'messages', this one has 'question'"),
        ({}, "generate", "this one has nothing"),
        ({"prompt": "a", "messages": CHAT}, "generate", "either 'prompt' or 'messages', not both"),
        ({"prompt": "a"}, "score", "needs 'text' or 'prompt' and 'completion' or 'messages', this one has 'prompt'"),
        ({"prompt": "hi", "completion": ""}, "score", "'completion' is empty"),
        ({"text": "a", "messages": CHAT}, "score", "either 'text' or 'messages', not both"),
        ({"prompt": ""}, "generate", "'prompt' is empty"),
        ({"prompt": 5}, "generate", "'prompt' must be a string, got int"),
        ({"prompt": "\ud800"}, "generate", "half of a surrogate pair"),
        ({"messages": []}, "generate", "at least one message"),
        ({"messages": "hi"}, "generate", "at least one message"),
        ({"messages": [{"content": "hi"}]}, "generate", "message 0 must be an object with a string 'role'"),
        ({"messages": [{"role": "user", "content": 5}]}, "generate", "message 0: 'content' must be a string, got int"),
        ({"messages": [{"role": "\udc00", "content": "x"}]}, "generate", "half of a surrogate pair"),
        ({"id": True, "prompt": "hi"}, "generate", "'id' must be a string or an integer, got bool"),
        ({"id": [1], "prompt": "hi"}, "generate", "'id' must be a string or an integer, got list"),
        ({"id": "\ud800", "prompt": "hi"}, "generate", "'id' holds half of a surrogate pair"),
        ([1], "generate", "a row must be an object, got list"),
        ("hi", "generate", "a row must be an object, got str"),
    ],
)
def test_a_bad_row_says_why(row: object, task: Task, reason: str) -> None:
    reject = parsed(row, task)
    assert isinstance(reject, Reject)
    assert reason in reject.reason and reject.line == 3


def test_a_missing_column_is_null() -> None:
    prompt = parsed({"prompt": "a"}, columns=("topic",))
    assert isinstance(prompt, Prompt) and prompt.kept == {"topic": None}


def test_a_kept_column_must_be_json_to_come_back_as_it_was() -> None:
    reject = parsed({"prompt": "a", "x": float("nan")}, columns=("x",))
    assert isinstance(reject, Reject) and "holds NaN or infinity" in reject.reason
