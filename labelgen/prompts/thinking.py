"""Where a reasoning teacher's response thinks and where it answers, told by token ids and never guessed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelgen.prompts.token_spans import TokenSpan
from labelgen.prompts.tokenizer import PromptTokenizer
from labelstore.record import SpanKind

__all__ = ["ThinkTokens", "find_think_tokens", "thinking_spans"]

# What families of reasoning models put around their thinking; each is one token where a tokenizer knows it.
_KNOWN = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkTokens:
    """The tokens that begin and end the thinking."""

    start_id: int
    end_id: int


def find_think_tokens(tokenizer: PromptTokenizer, given: tuple[str, str] | None) -> ThinkTokens | None:
    """Return the tokens of --think-tokens, or those that a tokenizer is known to have; None: it has none.

    Raises:
        ValueError: one of the given texts is not one token, or both are the same.
    """
    for start, end in _KNOWN if given is None else (given,):
        ids = [tokenizer.encode_text(text, with_special_tokens=False).tolist() for text in (start, end)]
        if [len(part) for part in ids] == [1, 1] and ids[0] != ids[1]:
            return ThinkTokens(start_id=ids[0][0], end_id=ids[1][0])
        if given is not None:
            raise ValueError(
                f"--think-tokens {start!r} {end!r}: must be one token each, and two different ones; the teacher's "
                f"tokenizer makes {ids[0]} and {ids[1]} of them"
            )
    return None


def thinking_spans(
    input_ids: NDArray[np.int32],
    first: int,
    tokens: ThinkTokens,
    *,
    tokenizer: PromptTokenizer,
    budget: int | None = None,
) -> list[TokenSpan]:
    """Return the thinking and the answer of a response input_ids[first:], as spans.

    The thinking is open at the response's beginning where the prompt's last think token begins it, as a template or a
    prefill may have it; else it begins with the response, or there is none. The token that ends it belongs to it,
    unless it stands where the `budget` was used up: then the engine put it there, and it is in no span. A response that
    was cut while it thought is all thinking.

    Raises:
        ValueError: thinking and answer cannot be told apart; the message says why.
    """
    response = input_ids[first:]
    starts = np.flatnonzero(response == tokens.start_id)
    ends = np.flatnonzero(response == tokens.end_id)
    marks = np.flatnonzero((input_ids[:first] == tokens.start_id) | (input_ids[:first] == tokens.end_id))
    is_open = len(marks) > 0 and input_ids[marks[-1]] == tokens.start_id
    if len(starts) > (0 if is_open else 1) or len(ends) > 1:
        raise ValueError(f"its thinking begins {len(starts) + is_open} times and ends {len(ends)} times")
    if not is_open:
        if len(starts) == 0:
            if len(ends):
                raise ValueError("its thinking ends, and has not begun")
            return [TokenSpan(start=first, stop=len(input_ids), kind="answer")]
        if tokenizer.decode(response[: starts[0]], skip_special_tokens=True).strip():
            raise ValueError(f"its thinking begins behind {int(starts[0])} tokens of something else")
        if len(ends) and ends[0] < starts[0]:
            raise ValueError("its thinking ends before it begins")
    if len(ends) == 0:
        return [TokenSpan(start=first, stop=len(input_ids), kind="reasoning")]
    end = first + int(ends[0])
    thought_from = int(marks[-1]) if is_open else first + int(starts[0])
    is_forced = budget is not None and end - thought_from - 1 >= budget
    parts: list[tuple[int, int, SpanKind]] = [
        (first, end if is_forced else end + 1, "reasoning"),
        (end + 1, len(input_ids), "answer"),
    ]
    return [TokenSpan(start=start, stop=stop, kind=kind) for start, stop, kind in parts if start < stop]
