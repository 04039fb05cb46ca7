"""A template that makes a prompt of a row's fields: `Answer from {context}: {question}`."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["RowTemplate"]


@dataclass(frozen=True, slots=True)
class RowTemplate:
    """A text with `{field}` where a row's value goes; `{{` and `}}` are braces.

    Raises:
        ValueError: braces do not match, or hold more than the name of a field.
    """

    text: str

    def __post_init__(self) -> None:
        try:
            parts = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise ValueError(f"--template: {error}; a brace that is text is written twice") from error
        for _, name, spec, conversion in parts:
            if name is not None and (not name or spec or conversion):
                raise ValueError(f"--template: {{{name}}} must be the name of a field alone, such as {{question}}")
        if not self.fields:
            raise ValueError("--template: names no field; write {question} where a row's 'question' goes")

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that a row must have, each once."""
        names = (name for _, name, _, _ in string.Formatter().parse(self.text) if name is not None)
        return tuple(dict.fromkeys(names))

    def fill(self, row: Mapping[str, object]) -> str:
        """Return the text with a row's values in it.

        Raises:
            ValueError: a field is missing, null, or neither text nor number.
        """
        pieces = []
        for literal, name, _, _ in string.Formatter().parse(self.text):
            pieces.append(literal)
            if name is None:
                continue
            value = row.get(name)
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                got = "none" if value is None else type(value).__name__
                raise ValueError(f"the template needs {name!r} as text or number, this row has {got}")
            pieces.append(str(value))
        return "".join(pieces)
