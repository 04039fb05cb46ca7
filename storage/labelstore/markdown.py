"""Text of others (names, ids, prompts, answers) inside Markdown: shown as it is, never as markup."""

from __future__ import annotations

import re

__all__ = ["escape_markdown", "fence", "plain_line"]

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
_MARKUP = re.compile(r"[\\`*_{}\[\]()#|~@$^]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def plain_line(text: str) -> str:
    """Return a text as one line without control characters and such as change the direction of writing."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def escape_markdown(text: str) -> str:
    """Return a text as one line of Markdown that shows it; nothing in it is a tag, a link or a table's edge."""
    line = "".join(_ENTITIES.get(char, char) for char in plain_line(text))
    # Character references instead of backslashes: these hold in tables and inside HTML, too.
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", line.replace("&", "\0")).replace("\0", "&")


def fence(text: str, *, language: str = "") -> str:
    """Return a code block of a text, whatever backticks stand in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"
