"""One prompt of a prompt set, checked where it enters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labelgen.prompts.given_sequence import GivenSequence
from labelgen.prompts.prompt_fields import PromptFields, Task
from labelstore.record import SpanKind
from labelstore.sealed_json import canonical_json

__all__ = ["Prompt", "Reject", "parse_row"]

_DEFAULT_FIELDS = PromptFields()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the teacher is given: one of a text to go on with, a chat, a text to score, and sequences to score.

    To score, a text to go on with has its completion beside it, and the chat is whole. Sequences come from a dataset:
    their prompt stands beside them for people.
    """

    prompt_id: str
    source: str  # as the user named it
    line: int  # from 1: the line of a JSONL or CSV file, the row of a table, 1 for a file that is a document
    content_hash: str  # of what the teacher is given: neither id nor kept columns
    prompt: str | None = None
    completion: str | None = None  # with prompt: what follows it, to score
    messages: Sequence[Mapping[str, Any]] | None = None
    tools: Sequence[Mapping[str, Any]] | None = None  # with messages: what the teacher is told it may call
    text: str | None = None
    sequences: tuple[GivenSequence, ...] = ()  # to score, token for token
    kept: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scored_kinds(self) -> set[SpanKind]:
        """What kinds of spans it can have when it is scored."""
        if self.sequences:
            return {span.kind for sequence in self.sequences for span in sequence.spans}
        if self.text is not None:
            return {"text"}
        return {"completion"} if self.completion is not None else {"assistant", "tool_call", "reasoning", "answer"}

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


def parse_row(
    row: object, *, task: Task, source: str, line: int, fields: PromptFields = _DEFAULT_FIELDS
) -> Prompt | Reject:
    """Turn one row of a prompt set into a prompt, or say why it is none.

    Without an id, the content's hash names the prompt. Tools are given to the chat template, and kept with the record.
    """
    try:
        if not isinstance(row, Mapping):
            raise ValueError(f"a row must be an object, got {type(row).__name__}")
        content = fields.content_of(row, task)
        content_hash = _hash_content(content)
        prompt_id = _id_of(row, fields.prompt_id)
        kept = _kept_of(row, fields.columns)
    except (ValueError, TypeError, RecursionError) as error:
        return Reject(source=source, line=line, reason=str(error))
    if "tools" in content:
        kept["tools"] = content["tools"]
    return Prompt(
        prompt_id=prompt_id or content_hash[:16],
        source=source,
        line=line,
        content_hash=content_hash,
        kept=kept,
        **content,
    )


def _hash_content(content: Mapping[str, Any]) -> str:
    names = ("prompt", "messages", "text", *(name for name in ("tools", "completion") if name in content))
    try:
        spelled = canonical_json({name: content.get(name) for name in names})
    except UnicodeEncodeError as error:
        given = " and ".join(repr(name) for name in content)
        raise ValueError(f"{given} hold half of a surrogate pair, which is no Unicode text") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{' and '.join(repr(name) for name in content)} hold what is no JSON: {error}") from error
    return hashlib.sha256(spelled).hexdigest()


def _id_of(row: Mapping[str, Any], name: str) -> str:
    """Return a row's id; empty where it has none."""
    prompt_id = row.get(name)
    if prompt_id is None:
        return ""
    if isinstance(prompt_id, bool) or not isinstance(prompt_id, str | int):
        raise ValueError(f"{name!r} must be a string or an integer, got {type(prompt_id).__name__}")
    try:
        str(prompt_id).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r} holds half of a surrogate pair, which is no Unicode text") from error
    return str(prompt_id)


def _kept_of(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return the columns to be kept, as what JSON makes of them."""
    if not columns:
        return {}
    try:
        kept: dict[str, Any] = json.loads(
            json.dumps({name: row.get(name) for name in columns}, default=str, allow_nan=False)
        )
    except ValueError as error:
        raise ValueError(
            f"a column to be kept holds NaN or infinity, which JSON cannot: {', '.join(columns)}"
        ) from error
    return kept
