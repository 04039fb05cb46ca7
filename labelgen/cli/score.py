"""`labelgen score`: the teacher reads given text, and labels every token of it."""

from __future__ import annotations

from typing import Any

import click

from labelgen.cli.options import run_options
from labelgen.cli.run import run_command

__all__ = ["score"]


@click.command()
@click.argument("texts", nargs=-1, required=True, metavar="TEXTS...")
@run_options
def score(texts: tuple[str, ...], **options: Any) -> None:
    """Let the teacher read TEXTS, and label every token of them.

    TEXTS: JSONL or Parquet files with `text` and an optional `id`, plain .txt, .md or .py files (a file is a document),
    or - for JSONL on stdin. What is longer than the model allows is cut into windows, each a record of its own.

    \b
    labelgen score book.txt -o labels --teacher google/gemma-3-270m
    """
    run_command(task="score", sources=texts, **options)
