"""`labelgen score`: the teacher reads what is given, and labels its tokens."""

from __future__ import annotations

from typing import Any

import click

from labelgen.cli.grouped_help import GroupedCommand
from labelgen.cli.options import chat_options, field_option, run_options, stride_option, with_options
from labelgen.cli.run import run_command

__all__ = ["score"]


@click.command(cls=GroupedCommand)
@click.argument("texts", nargs=-1, required=True, metavar="TEXTS...")
@run_options(
    field_option("--text-field", "a text"),
    field_option("--prompt-field", "a text that is only read, before its completion"),
    field_option("--completion-field", "the completion, which is labelled"),
    field_option("--messages-field", "a chat, of which the assistant's turns are labelled"),
    stride_option,
)
@with_options(chat_options)
def score(texts: tuple[str, ...], **options: Any) -> None:
    """Let the teacher read TEXTS, and label their tokens.

    TEXTS: files, folders, patterns or URLs of JSONL, CSV, TSV or Parquet (also .gz, .zst), hf:owner/name for a dataset,
    or - for JSONL on stdin. A row has a `text`, of which every token is labelled; a `prompt` and its `completion`,
    which is labelled; or `messages`, a chat, of which the assistant's turns are labelled; and perhaps an `id`. Plain
    .txt, .md or .py files are documents. A text longer than the model allows is cut into windows, a record each.

    The folder of a labelgen dataset: its sequences, token for token, with the labels of another teacher.

    \b
    labelgen score book.txt -o labels --teacher google/gemma-3-270m
    labelgen score 'hf:roneneldan/TinyStories?split=validation' --limit 1000 -o labels --teacher google/gemma-3-270m
    labelgen score chats.jsonl -o labels --teacher Qwen/Qwen3-8B --label-spans last
    labelgen score labels -o more-labels --teacher Qwen/Qwen3-32B
    """
    run_command(task="score", sources=texts, **options)
