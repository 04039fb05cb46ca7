"""One prompt of a prompt set, checked where it enters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from labelstore.sealed_json import canonical_json

__all__ = ["Prompt", "Reject", "Task", "parse_row"]

Task = Literal["generate", "score"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the teacher is given: exactly one of a text, a chat to answer, and a text to score."""

    prompt_id: str
    source: str  # as the user named it
    line: int  # from 1: the line of a JSONL file, the row of a table, 1 for a file that is a document
    prompt: str | None = None
    messages: Sequence[Mapping[str, Any]] | None = None
    text: str | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content_hash(self) -> str:
        """The hash of what the teacher is given: neither id nor kept columns."""
        return _content_hash(self.prompt, self.messages, self.text)

    @property
    def origin(self) -> str:
        """Where the prompt stands, for people."""
        return f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A row that gives no record, and why."""

    source: str
    line: int
    reason: str
    prompt_id: str | None = None


def parse_row(row: object, *, task: Task, source: str, line: int, columns: Sequence[str] = ()) -> Prompt | Reject:
    """Turn one row of a prompt set into a prompt, or say why it is none.

    A row to answer has `prompt` (a string, given to the teacher as it is) or `messages` (a chat); a row to score has
    `text`. An `id` is optional: without one, the content's hash names the prompt.
    """

    def refuse(reason: str) -> Reject:
        return Reject(source=source, line=line, reason=reason)

    if not isinstance(row, Mapping):
        return refuse(f"a row must be an object, got {type(row).__name__}")
    names = ("text",) if task == "score" else ("prompt", "messages")
    given = [name for name in names if row.get(name) is not None]
    if len(given) != 1:
        found = ", ".join(repr(name) for name in row) or "nothing"
        if given:
            return refuse("a row has either 'prompt' or 'messages', not both")
        return refuse(f"a row needs {' or '.join(repr(name) for name in names)}, this one has {found}")
    content = row[given[0]]
    if (problem := _content_problem(given[0], content)) is not None:
        return refuse(problem)
    prompt_id = row.get("id")
    if prompt_id is not None and (isinstance(prompt_id, bool) or not isinstance(prompt_id, str | int)):
        return refuse(f"'id' must be a string or an integer, got {type(prompt_id).__name__}")
    if isinstance(prompt_id, str) and (problem := _surrogate_problem("id", prompt_id)) is not None:
        return refuse(problem)
    try:
        kept = json.loads(json.dumps({name: row.get(name) for name in columns}, default=str, allow_nan=False))
    except ValueError:
        return refuse(f"a column to be kept holds NaN or infinity, which JSON cannot: {', '.join(columns)}")
    fields = {given[0]: content}
    content_hash = _content_hash(fields.get("prompt"), fields.get("messages"), fields.get("text"))
    return Prompt(
        prompt_id=content_hash[:16] if prompt_id is None or prompt_id == "" else str(prompt_id),
        source=source,
        line=line,
        kept=kept,
        **fields,
    )


def _content_problem(name: str, content: object) -> str | None:
    if name != "messages":
        if not isinstance(content, str):
            return f"{name!r} must be a string, got {type(content).__name__}"
        return _text_problem(name, content)
    if not isinstance(content, list) or not content:
        return "'messages' must be a list with at least one message"
    for place, message in enumerate(content):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            return f"message {place} must be an object with a string 'role'"
        text = message.get("content")
        if text is not None and not isinstance(text, str | list):
            return f"message {place}: 'content' must be a string, got {type(text).__name__}"
    try:
        canonical_json(content)
    except UnicodeEncodeError:
        return "'messages' hold half of a surrogate pair, which is no Unicode text"
    except (TypeError, ValueError) as error:
        return f"'messages' hold what is no JSON: {error}"
    return None


def _text_problem(name: str, text: str) -> str | None:
    return f"{name!r} is empty" if not text else _surrogate_problem(name, text)


def _surrogate_problem(name: str, text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"{name!r} holds half of a surrogate pair, which is no Unicode text"
    return None


def _content_hash(prompt: str | None, messages: Sequence[Mapping[str, Any]] | None, text: str | None) -> str:
    return hashlib.sha256(canonical_json({"prompt": prompt, "messages": messages, "text": text})).hexdigest()
