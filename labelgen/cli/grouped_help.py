"""A command whose help shows its options in groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["GroupedCommand", "GroupedOption", "group_of", "grouped"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_NO_GROUP = "Options"


class GroupedOption(click.Option):
    """An option that belongs to a group of the help."""

    def __init__(self, *arguments: Any, group: str = _NO_GROUP, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.group = group


class GroupedCommand(click.Command):
    """Shows the groups in the order in which their first options were given."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and not isinstance(parameter, click.Argument):
                groups.setdefault(group_of(parameter), []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)


def group_of(parameter: click.Parameter) -> str:
    """Return the group that a parameter is shown in."""
    return parameter.group if isinstance(parameter, GroupedOption) else _NO_GROUP


def grouped(group: str, *names: str, **settings: Any) -> Callable[[_Command], _Command]:
    """Return the decorator of an option in a group; otherwise as click.option."""
    return click.option(*names, cls=GroupedOption, group=group, **settings)
