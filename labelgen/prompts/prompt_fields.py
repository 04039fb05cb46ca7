"""Which fields of a row make a prompt, and how."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from labelgen.prompts.row_template import RowTemplate

__all__ = ["PromptFields", "Task"]

Task = Literal["generate", "score"]

_TOOLS = "tools"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFields:
    """How the rows of a prompt set are read; the defaults read `prompt`, `messages` or `text`, and `id`.

    Raises:
        ValueError: two settings exclude each other.
    """

    prompt: str | None = None  # generate: the field with a text to answer
    messages: str | None = None  # generate: the field with a chat to answer
    text: str | None = None  # score: the field with the text
    prompt_id: str = "id"
    columns: tuple[str, ...] = ()  # fields kept beside each record
    template: RowTemplate | None = None  # makes the text of several fields
    system: str | None = None  # put before every chat that has no system message; makes a prompt a chat
    as_chat: bool = False  # a prompt is the user's message of a chat

    def __post_init__(self) -> None:
        if self.template is not None and (self.prompt, self.messages, self.text) != (None, None, None):
            raise ValueError(
                "--template makes the prompt itself; leave out --prompt-field, --messages-field, --text-field"
            )
        if self.system == "":
            raise ValueError("--system must not be empty")

    @property
    def chat_fields(self) -> tuple[str, ...]:
        """The fields that may hold a chat to answer."""
        return (
            () if self.template is not None or (self.prompt and not self.messages) else (self.messages or "messages",)
        )

    def text_fields(self, task: Task) -> tuple[str, ...]:
        """Return the fields that may hold a text: to answer, or to score."""
        if self.template is not None:
            return ()
        if task == "score":
            return (self.text or "text",)
        return () if self.messages and not self.prompt else (self.prompt or "prompt",)

    def content_fields(self, task: Task) -> tuple[str, ...]:
        """Return the fields of which a row must have exactly one; those of a template, of which it must have all."""
        if self.template is not None:
            return self.template.fields
        return self.text_fields(task) + (self.chat_fields if task == "generate" else ())

    def needed(self, task: Task) -> tuple[str, ...]:
        """Return every field that is looked at, so that a table's others need not be read."""
        return tuple(dict.fromkeys((*self.content_fields(task), self.prompt_id, _TOOLS, *self.columns)))

    def to_json(self) -> dict[str, Any]:
        """Return what is not the default, as a JSON value."""
        given = {name: value for name, value in asdict(self).items() if value != getattr(_DEFAULTS, name)}
        return json.loads(json.dumps(given))  # type: ignore[no-any-return]

    def content_of(self, row: Mapping[str, Any], task: Task) -> dict[str, Any]:
        """Return what the teacher is given of a row: a `prompt`, `messages` and perhaps `tools`, or a `text`.

        Raises:
            ValueError: the row does not have it, or has it twice.
        """
        kind = "text" if task == "score" else "prompt"
        if self.template is not None:
            return self._as_asked({kind: self.template.fill(row)}, row)
        names = self.content_fields(task)
        given = [name for name in names if row.get(name) is not None]
        if len(given) > 1:
            raise ValueError(f"a row has either {' or '.join(map(repr, given))}, not both")
        if not given:
            found = ", ".join(repr(name) for name in row) or "nothing"
            raise ValueError(f"a row needs {' or '.join(map(repr, names))}, this one has {found}")
        value = row[given[0]]
        if given[0] not in self.text_fields(task):
            return self._as_asked({"messages": _parsed(value)}, row)
        if not isinstance(value, str):
            raise ValueError(f"{given[0]!r} must be a string, got {type(value).__name__}")
        if not value:
            raise ValueError(f"{given[0]!r} is empty")
        return self._as_asked({kind: value}, row)

    def _as_asked(self, content: dict[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
        """Make a chat of a prompt where that is asked for, and give a chat its system message and its tools."""
        if "prompt" in content and (self.as_chat or self.system is not None):
            content = {"messages": [{"role": "user", "content": content["prompt"]}]}
        if "messages" not in content:
            return content
        _check_messages(content["messages"])
        if self.system is not None and content["messages"][0]["role"] not in ("system", "developer"):
            content["messages"] = [{"role": "system", "content": self.system}, *content["messages"]]
        tools = _parsed(row.get(_TOOLS))
        if tools:
            if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
                raise ValueError(f"'tools' must be a list of objects, got {type(tools).__name__}")
            content["tools"] = tools
        return content


_DEFAULTS = PromptFields()


def _check_messages(messages: object) -> None:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ValueError("'messages' must be a list with at least one message")
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ValueError(f"message {place} must be an object with a string 'role'")
        text = message.get("content")
        if text is not None and not isinstance(text, str | list):
            raise ValueError(f"message {place}: 'content' must be a string, got {type(text).__name__}")


def _parsed(value: object) -> object:
    """Return the value, or what it says where it is JSON in a string, as tables without nested types hold it."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value  # what it is instead is said by the checks
