"""Which fields of a row make a prompt, and how."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from labelgen.prompts.row_template import RowTemplate

__all__ = ["PromptFields", "Task"]

Task = Literal["generate", "score"]

_TOOLS = "tools"
_Content = tuple[str, ...]  # what a row's content is, by the names that a prompt has for it
_PAIR: _Content = ("prompt", "completion")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFields:
    """How the rows of a prompt set are read; the defaults read `prompt`, `messages` or `text`, and `id`.

    Raises:
        ValueError: two settings exclude each other.
    """

    prompt: str | None = None  # the field with a text to go on with
    completion: str | None = None  # score: the field with what follows it
    messages: str | None = None  # the field with a chat: to answer, or whole, to score
    text: str | None = None  # score: the field with the text
    prompt_id: str = "id"
    columns: tuple[str, ...] = ()  # fields kept beside each record
    template: RowTemplate | None = None  # makes the text of several fields
    system: str | None = None  # put before every chat that has no system message; makes a prompt a chat
    as_chat: bool = False  # a prompt is the user's message of a chat

    def __post_init__(self) -> None:
        if self.template is not None and (self.prompt, self.completion, self.messages, self.text) != (None,) * 4:
            raise ValueError(
                "--template makes the prompt itself; leave out --prompt-field, --completion-field, --messages-field "
                "and --text-field"
            )
        if self.system == "":
            raise ValueError("--system must not be empty")

    def contents(self, task: Task) -> dict[_Content, tuple[str, ...]]:
        """Return what a row may hold, one of these, and the fields that each takes: those named, or else all.

        Where there is a template, it is made of the template's fields.
        """
        if self.template is not None:
            return {("text",) if task == "score" else ("prompt",): self.template.fields}
        prompt, messages = self.prompt or "prompt", self.messages or "messages"
        known: dict[_Content, tuple[str, ...]] = {("prompt",): (prompt,), ("messages",): (messages,)}
        is_named: dict[_Content, str | None] = {("messages",): self.messages, ("prompt",): self.prompt}
        if task == "score":
            completion = self.completion or "completion"
            known = {("text",): (self.text or "text",), _PAIR: (prompt, completion), ("messages",): (messages,)}
            is_named |= {("text",): self.text, _PAIR: self.prompt or self.completion}
        return {content: fields for content, fields in known.items() if is_named[content]} or known

    def content_fields(self, task: Task) -> tuple[str, ...]:
        """Return all fields that a row's content may stand in."""
        return tuple(name for fields in self.contents(task).values() for name in fields)

    def needed(self, task: Task) -> tuple[str, ...]:
        """Return every field that is looked at, so that a table's others need not be read."""
        return tuple(dict.fromkeys((*self.content_fields(task), self.prompt_id, _TOOLS, *self.columns)))

    def to_json(self) -> dict[str, Any]:
        """Return what is not the default, as a JSON value."""
        given = {name: value for name, value in asdict(self).items() if value != getattr(_DEFAULTS, name)}
        return json.loads(json.dumps(given))  # type: ignore[no-any-return]

    def content_of(self, row: Mapping[str, Any], task: Task) -> dict[str, Any]:
        """Return what the teacher is given of a row: a `prompt`, `messages` and perhaps `tools`, or to score, a `text`,
        a `prompt` and its `completion`, or whole `messages`.

        Raises:
            ValueError: the row does not have it, or has it twice.
        """
        contents = self.contents(task)
        if self.template is not None:
            (content,) = contents
            return self._as_asked({content[0]: self.template.fill(row)}, row)
        given = {
            content: names for content, names in contents.items() if all(row.get(name) is not None for name in names)
        }
        if len(given) > 1:
            raise ValueError(f"a row has either {_listed(given.values())}, not both")
        if not given:
            found = ", ".join(repr(name) for name in row) or "nothing"
            raise ValueError(f"a row needs {_listed(contents.values())}, this one has {found}")
        ((content, names),) = given.items()
        if content == ("messages",):
            return self._as_asked({"messages": _parsed(row[names[0]])}, row)
        for name in names:
            if not isinstance(row[name], str):
                raise ValueError(f"{name!r} must be a string, got {type(row[name]).__name__}")
            if not row[name]:
                raise ValueError(f"{name!r} is empty")
        return self._as_asked({key: row[name] for key, name in zip(content, names, strict=True)}, row)

    def _as_asked(self, content: dict[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
        """Make a chat of a prompt where that is asked for, and give a chat its system message and its tools."""
        if "prompt" in content and (self.as_chat or self.system is not None):
            turns = [("user", content["prompt"])]
            if "completion" in content:
                turns.append(("assistant", content["completion"]))
            content = {"messages": [{"role": role, "content": text} for role, text in turns]}
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


def _listed(alternatives: Iterable[Sequence[str]]) -> str:
    return " or ".join(" and ".join(map(repr, names)) for names in alternatives)


def _parsed(value: object) -> object:
    """Return the value, or what it says where it is JSON in a string, as tables without nested types hold it."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value  # what it is instead is said by the checks
