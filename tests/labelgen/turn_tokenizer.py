"""A tokenizer for tests: a few tokens of several characters, found greedily, and a chat template in Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["END", "END_ID", "TurnTokenizer", "turns"]

END = "<end>"
_WHOLE = (END, "<user>", "<assistant>", "<tool>", "<call>", " four", ".\n", "Hello", " world", "<think>", "</think>")
END_ID = 256

Template = Callable[[Sequence[Mapping[str, Any]], bool], str]


def turns(messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool, *, end: str = END) -> str:
    """Render `<role>content<end>` and a new line for each message; tool calls stand behind the content."""
    parts = []
    for message in messages:
        calls = "".join(f"<call>{call}" for call in message.get("tool_calls") or ())
        parts.append(f"<{message['role']}>{message.get('content') or ''}{calls}{end}\n")
    return "".join(parts) + ("<assistant>" if add_generation_prompt else "")


class TurnTokenizer:
    """Ids below 256 are characters, the others whole tokens; nothing is put before a text."""

    fingerprint_fields: Mapping[str, Any] = {"tokenizer": "turns"}
    has_chat_template = True

    def __init__(self, template: Template = turns, *, marks: list[tuple[int, int]] | None = None) -> None:
        self._template, self._marks = template, marks

    @property
    def lead_ids(self) -> NDArray[np.int32]:
        return np.zeros(0, dtype=np.int32)

    def encode_text(self, text: str, /, *, with_special_tokens: bool) -> NDArray[np.int32]:
        tokens = re.findall("|".join(map(re.escape, _WHOLE)) + "|.", text, flags=re.DOTALL)
        ids = [256 + _WHOLE.index(token) if token in _WHOLE else ord(token) for token in tokens]
        return np.array(ids, dtype=np.int32)

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], /, *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> NDArray[np.int32]:
        return self.encode_text(self._template(messages, True), with_special_tokens=False)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool,
    ) -> str:
        return self._template(messages, add_generation_prompt)

    def generation_marks(
        self, messages: Sequence[Mapping[str, Any]], /, *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[tuple[int, int]] | None:
        return self._marks

    def decode(self, token_ids: Sequence[int] | NDArray[np.int32], /, *, skip_special_tokens: bool = False) -> str:
        return "".join(_WHOLE[int(i) - 256] if i >= 256 else chr(int(i)) for i in token_ids)
