"""A file that describes a job: each option by its name, in YAML. What the command line says goes before it."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from labelgen.cli.grouped_help import group_of, grouped

__all__ = ["job_file_option", "render_job_file"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
# What is of one call and not of the job.
_NOT_IN_FILES = {"help", "config", "dry_run", "yaml", "json", "quiet", "retry_rejected", "part"}
_WIDTH = 110


def job_file_option(group: str, *, ignored: Container[str] = ()) -> Callable[[_Command], _Command]:
    """Return the option -c, whose file gives the values that the command line does not.

    Names that are `ignored` may stand in the file: they are of commands that read the same one.
    """
    return grouped(
        group,
        "-c",
        "--config",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=functools.partial(_load, ignored=ignored),
        help="Job file (YAML): any of these options by name, and prompts or texts; flags override it.",
    )


def render_job_file(command: click.Command, options: Mapping[str, Any], *, version: str) -> str:
    """Return a job file with every option of a command: those given as they are, the others as comments."""
    import yaml

    lines = [f"# labelgen {command.name} -c FILE   (written by labelgen {version})"]
    group = ""
    for name, parameter in _names(command).items():
        if isinstance(parameter, click.Option):
            if group != group_of(parameter):
                group = group_of(parameter)
                lines += ["", f"# {group}"]
            lines += [f"# {parameter.help}"]
        if name in options:
            lines += yaml.safe_dump({name: options[name]}, allow_unicode=True, width=_WIDTH).splitlines()
        else:
            lines += [f"#{name}: {_default_text(parameter)}".rstrip()]
    return "\n".join(lines) + "\n"


def _load(ctx: click.Context, parameter: click.Parameter, path: Path | None, *, ignored: Container[str]) -> None:
    """Take the file's values as defaults of this call."""
    if path is None:
        return
    import yaml

    try:
        content = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path}: is not YAML ({' '.join(str(error).split())})", ctx, parameter) from error
    if not isinstance(content, Mapping):
        raise click.BadParameter(f"{path}: must map names of options to values", ctx, parameter)
    names = _names(ctx.command)
    defaults: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name in ignored:
            continue
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; there are {', '.join(sorted(names))}"
            raise click.BadParameter(f"{path}: {ctx.command.name} knows no {str(key)!r}{hint}", ctx, parameter)
        if value is not None:
            defaults[names[name].name or name] = _as_given(names[name], value)
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


def _names(command: click.Command) -> dict[str, click.Parameter]:
    """Return what a job file may hold: long options without their dashes, and the argument by its name."""
    names = {}
    for parameter in command.params:
        name = max(parameter.opts, key=len).lstrip("-").replace("-", "_")
        if name not in _NOT_IN_FILES:
            names[name] = parameter
    return names


def _as_given(parameter: click.Parameter, value: Any) -> Any:
    """Return a file's value as the command line would give it: a list where an option may be repeated."""
    is_list = parameter.nargs == -1 or (isinstance(parameter, click.Option) and parameter.multiple)
    if not is_list:
        return value
    if isinstance(value, Mapping):
        return [f"{name}={json.dumps(part)}" for name, part in value.items()]
    return list(value) if isinstance(value, list) else [value]


def _default_text(parameter: click.Parameter) -> str:
    default = parameter.default
    return json.dumps(default) if isinstance(default, str | int | float) and not isinstance(default, bool) else ""
