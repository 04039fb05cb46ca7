"""Values of options that are more than a word: a place, a text in a file, and name=value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from labelstore.location import Location

__all__ = ["ID_AND_BIAS", "LOCATION", "NAME_AND_VALUE", "TEXT_FILE"]


class _TextFile(click.ParamType[str]):
    """The text of a file; in a job file, `{text: ...}` is the text itself."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if isinstance(value, Mapping) and list(value) == ["text"]:
            return str(value["text"])
        try:
            return Path(value).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError, TypeError) as error:
            self.fail(f"{value}: cannot be read as text ({error})", param, ctx)


class _NameAndValue(click.ParamType[tuple[str, Any]]):
    """name=value, where the value is JSON, or else a string."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, sign, text = str(value).partition("=")
        if not sign or not name:
            self.fail(f"must be name=value, got {value!r}", param, ctx)
        try:
            return name, json.loads(text)
        except ValueError:
            return name, text


class _IdAndBias(click.ParamType[tuple[int, float]]):
    """id=bias."""

    name = "id=bias"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, float]:
        if isinstance(value, tuple):
            return value
        token_id, _, bias = str(value).partition("=")
        try:
            return int(token_id), float(bias)
        except ValueError:
            self.fail(f"must be a token id and what is added to its logit, such as 2=-100, got {value!r}", param, ctx)


class _Location(click.ParamType["Location"]):
    """A folder, or the URL of a place in an object store."""

    name = "location"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Location:
        from labelstore.location import as_location

        try:
            return as_location(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


ID_AND_BIAS = _IdAndBias()
LOCATION = _Location()
TEXT_FILE = _TextFile()
NAME_AND_VALUE = _NameAndValue()
