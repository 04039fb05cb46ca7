"""What form a response must have: the engine masks every token that would leave it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

__all__ = ["Constraint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """One of three ways to say what a response may be.

    Raises:
        ValueError: none of them is given, two are, or the schema is no JSON object.
    """

    json_schema: str | None = None  # a JSON schema, as text
    regex: str | None = None  # that the whole response must match
    choices: tuple[str, ...] = ()  # of which it must be one

    def __post_init__(self) -> None:
        given = [
            option
            for option, value in (
                ("--json-schema", self.json_schema),
                ("--regex", self.regex),
                ("--choice", self.choices or None),
            )
            if value is not None
        ]
        if len(given) != 1:
            raise ValueError(f"a response has one form: give one of --json-schema, --regex and --choice, got {given}")
        if self.json_schema is not None and not isinstance(self._schema(), dict):
            raise ValueError(f"--json-schema: must be a JSON object, got {self.json_schema[:40]!r}")
        if self.regex == "":
            raise ValueError("--regex must not be empty")
        if "" in self.choices:
            raise ValueError("--choice must not be empty")

    def to_json(self) -> dict[str, Any]:
        """Return what is given; a schema as what it says, so that its spelling does not matter."""
        if self.json_schema is not None:
            return {"json_schema": self._schema()}
        return {"regex": self.regex} if self.regex is not None else {"choices": list(self.choices)}

    def _schema(self) -> object:
        assert self.json_schema is not None, "asked for where there is one"
        try:
            return json.loads(self.json_schema)
        except ValueError as error:
            raise ValueError(f"--json-schema: is no JSON: {error}") from error
