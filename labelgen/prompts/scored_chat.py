"""A chat that is given: which of its tokens the assistant wrote.

Nothing is guessed. A turn begins where the teacher would begin to write, which is what the template renders of the
messages before it and its generation prompt; or where the template itself marks it ({% generation %}). That each
boundary falls between two tokens is proven token for token: the text before it must have the same ids alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen.prompts.token_spans import TokenSpan
from labelgen.prompts.tokenizer import PromptTokenizer

__all__ = ["encode_turns"]

_Messages = Sequence[Mapping[str, Any]]


def encode_turns(
    messages: _Messages,
    tokenizer: PromptTokenizer,
    *,
    tools: Sequence[Mapping[str, Any]] | None,
    end_ids: Collection[int],
) -> tuple[NDArray[np.int32], list[TokenSpan]]:
    """Return the ids [T] of a whole chat, and the spans of the assistant's turns; tool calls have spans of their own.

    A turn ends with the token that ends it, one of `end_ids`, where the template writes one. What the template writes
    behind that is not the assistant's, nor are system, user and tool messages.

    Raises:
        ValueError: the assistant says nothing, the template refuses the chat, or a boundary cannot be proven.
    """
    written = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    if not written:
        raise ValueError("the chat has no message of the assistant, and nothing else of it is labelled")
    text = tokenizer.render_chat(messages, tools=tools, add_generation_prompt=False)
    chat = _RenderedChat(
        text=text, ids=tokenizer.encode_text(text, with_special_tokens=False), tokenizer=tokenizer, end_ids=end_ids
    )
    marked = tokenizer.generation_marks(messages, tools=tools)
    if marked is not None and len(marked) != len(written):
        raise ValueError(
            f"the chat template marks {len(marked)} runs as generated, and the chat has {len(written)} messages of the "
            f"assistant"
        )
    spans: list[TokenSpan] = []
    for number, place in enumerate(written):
        try:
            if marked is not None:
                start, (begin, stop) = marked[number][0], chat.marked_turn(*marked[number])
            else:
                start = chat.length_of_prefix(messages[:place], tools=tools, add_generation_prompt=True)
                begin, stop = chat.proven_turn(start, messages[: place + 1], tools=tools)
            spans += chat.kinds_of(messages[place], start, begin, stop, is_last=number == len(written) - 1)
        except ValueError as error:
            raise ValueError(f"message {place}: {error}") from error
    return chat.ids, spans


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _RenderedChat:
    """A chat as text and ids, and where the one's characters are among the others."""

    text: str
    ids: NDArray[np.int32]  # [T]
    tokenizer: PromptTokenizer
    end_ids: Collection[int]

    def token_at(self, place: int) -> int:
        """Return how many tokens stand before a character.

        Raises:
            ValueError: a token reaches over that place.
        """
        before = self.tokenizer.encode_text(self.text[:place], with_special_tokens=False)
        if not np.array_equal(before, self.ids[: len(before)]):
            left, right = self.text[max(0, place - 10) : place], self.text[place : place + 10]
            raise ValueError(f"its boundary cannot be proven: a token reaches over it, from {left!r} to {right!r}")
        return len(before)

    def length_of_prefix(
        self, messages: _Messages, *, tools: Sequence[Mapping[str, Any]] | None, add_generation_prompt: bool
    ) -> int:
        """Return the length in characters of what the template makes of the first messages.

        Raises:
            ValueError: the whole chat does not begin so.
        """
        prefix = self.tokenizer.render_chat(messages, tools=tools, add_generation_prompt=add_generation_prompt)
        if not self.text.startswith(prefix):
            raise ValueError(
                "its boundary cannot be proven: the chat template renders what stands before it otherwise when the "
                "chat goes on"
            )
        return len(prefix)

    def marked_turn(self, start: int, stop: int) -> tuple[int, int]:
        """Return the tokens (begin, stop) of a turn that the template marks; its end token belongs to it."""
        begin, behind = self.token_at(start), self.token_at(stop)
        if (end := self._end_in(begin, behind)) is not None:
            return begin, end
        is_ended = behind < len(self.ids) and int(self.ids[behind]) in self.end_ids
        return begin, behind + is_ended

    def proven_turn(
        self, start: int, messages: _Messages, *, tools: Sequence[Mapping[str, Any]] | None
    ) -> tuple[int, int]:
        """Return the tokens (begin, stop) of the last message's turn, which starts at a character."""
        begin = self.token_at(start)
        try:
            behind = self.token_at(self.length_of_prefix(messages, tools=tools, add_generation_prompt=False))
        except ValueError as error:
            # Some templates render an earlier turn shorter than the last one. Its own text must stand there then.
            end = self._behind_content(start, messages[-1])
            if end is None or end >= len(self.ids) or int(self.ids[end]) not in self.end_ids:
                raise error
            return begin, end + 1
        if (end := self._end_in(begin, behind)) is not None:
            return begin, end
        end = self._behind_content(start, messages[-1])  # without an end token, it ends with its own text
        if end is None or messages[-1].get("tool_calls"):
            raise ValueError("its end cannot be proven: the chat template writes no token that ends a response")
        return begin, end

    def kinds_of(
        self, message: Mapping[str, Any], start: int, begin: int, stop: int, *, is_last: bool
    ) -> list[TokenSpan]:
        """Return a turn's spans: one, or its text and its tool calls where they can be told apart."""
        if begin >= stop:
            raise ValueError("it has no tokens")
        if not message.get("tool_calls"):
            return [TokenSpan(start=begin, stop=stop, kind="assistant", is_last=is_last)]
        if not message.get("content") and message.keys() <= {"role", "content", "tool_calls"}:
            return [TokenSpan(start=begin, stop=stop, kind="tool_call", is_last=is_last)]
        try:
            calls = self._behind_content(start, message)
        except ValueError:
            calls = None  # a token is both text and call
        if calls is None or not begin < calls < stop:
            return [TokenSpan(start=begin, stop=stop, kind="assistant", is_last=is_last)]
        return [
            TokenSpan(start=begin, stop=calls, kind="assistant", is_last=is_last),
            TokenSpan(start=calls, stop=stop, kind="tool_call", is_last=is_last),
        ]

    def _end_in(self, begin: int, behind: int) -> int | None:
        """Return the place behind the last end token in [begin, behind)."""
        ends = np.flatnonzero(np.isin(self.ids[begin:behind], list(self.end_ids)))
        return begin + int(ends[-1]) + 1 if len(ends) else None

    def _behind_content(self, start: int, message: Mapping[str, Any]) -> int | None:
        """Return how many tokens stand before the end of a message's text, where that stands at a character."""
        content = message.get("content")
        if not isinstance(content, str) or not content.strip():
            return None
        for text in (content, content.strip()):  # some templates strip it
            if self.text.startswith(text, start):
                return self.token_at(start + len(text))
        return None
