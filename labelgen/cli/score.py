"""`labelgen score`: the teacher reads given text, and labels every token of it."""

from __future__ import annotations

from typing import Any

import click

from labelgen.cli.grouped_help import GroupedCommand
from labelgen.cli.options import field_option, run_options
from labelgen.cli.run import run_command

__all__ = ["score"]


@click.command(cls=GroupedCommand)
@click.argument("texts", nargs=-1, required=True, metavar="TEXTS...")
@run_options(field_option("--text-field", "the text"))
def score(texts: tuple[str, ...], **options: Any) -> None:
    """Let the teacher read TEXTS, and label every token of them.

    TEXTS: files, folders, patterns or URLs of JSONL, CSV, TSV or Parquet (also .gz, .zst) whose rows have a `text` and
    perhaps an `id`; plain .txt, .md or .py files (a file is a document); hf:owner/name for a dataset; or - for JSONL on
    stdin. What is longer than the model allows is cut into windows, each a record of its own.

    \b
    labelgen score book.txt -o labels --teacher google/gemma-3-270m
    labelgen score 'hf:roneneldan/TinyStories?split=validation' --limit 1000 -o labels --teacher google/gemma-3-270m
    """
    run_command(task="score", sources=texts, **options)
