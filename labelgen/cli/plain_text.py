"""Text on a terminal that comes from data: a token, an id or a file's name cannot move the cursor or hide a line."""

from __future__ import annotations

import re

import click

__all__ = ["echo", "plain"]

# All control characters but the line break and the tab, and the signs that turn the direction of writing.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def plain(text: str) -> str:
    """Return a text whose control characters are shown as escapes, such as \\x1b."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def echo(text: str = "", *, err: bool = False, fg: str | None = None, bold: bool | None = None) -> None:
    """Print a line of such text on stdout, or on stderr."""
    click.secho(plain(text), err=err, fg=fg, bold=bold)
