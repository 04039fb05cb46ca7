"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["dataset_argument", "json_option", "output_option", "run_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

dataset_argument = click.argument("dataset", metavar="DIR", type=click.Path(path_type=str))
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")


def output_option(what: str) -> Callable[[_Command], _Command]:
    """Return the option that names the folder a command writes to."""
    return click.option(
        "-o",
        "--output",
        "output_dir",
        metavar="DIR",
        required=True,
        type=click.Path(path_type=Path),
        help=f"Folder of {what}; new, empty, or one that this command goes on with.",
    )


_RUN_OPTIONS = [
    output_option("the dataset"),
    click.option("--teacher", metavar="MODEL", required=True, help="Model folder, or a hub name such as owner/name."),
    click.option("--top-k", type=int, help="Keep the K most likely tokens.  [default: 64, if nothing else is kept]"),
    click.option("--keep-mass", type=float, help="Keep the fewest tokens with this probability mass, in (0, 1]."),
    click.option("--min-k", type=int, help="With --keep-mass: tokens at least.  [default: 1]"),
    click.option("--max-k", type=int, help="With --keep-mass: tokens at most.  [default: 256]"),
    click.option("--draws", type=int, help="Keep random draws from the distribution; with --top-k, from its tail."),
    click.option("--entropy", is_flag=True, help="Keep the entropy of the whole distribution too."),
    click.option(
        "--codec",
        default="standard",
        show_default=True,
        help="How soft labels are stored: exact, standard, small, or open (for any tool that reads Parquet).",
    ),
    click.option("--block-size", type=int, default=2048, show_default=True, help="Prompts in a unit of work."),
    click.option(
        "--column", "columns", metavar="FIELD", multiple=True, help="Field kept beside each record; repeatable."
    ),
    click.option("--limit", type=int, help="Prompts read at most, those in the folder already included."),
    click.option("--dtype", help="auto, float32, bfloat16 or float16.  [default: float32 on a CPU, else auto]"),
    click.option("--head-dtype", help="Precision of the output layer; float32 breaks the ties of a bfloat16 head."),
    click.option("--max-model-len", type=int, help="Context in tokens.  [default: the model's]"),
    click.option(
        "--gpu-memory-utilization", type=float, default=0.9, show_default=True, help="Share of the GPU's memory."
    ),
    click.option("--tensor-parallel-size", type=int, default=1, show_default=True, help="GPUs for one copy."),
    json_option,
    click.option("--quiet", is_flag=True, help="No progress and no notes; errors only."),
]


def run_options(command: _Command) -> _Command:
    """Add the options of every command that starts a teacher."""
    return with_options(_RUN_OPTIONS)(command)


def with_options(options: Sequence[Callable[[Any], Any]]) -> Callable[[_Command], _Command]:
    """Return a decorator that adds options in the order given."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
