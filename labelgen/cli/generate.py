"""`labelgen generate`: the teacher answers, and its answers are labelled."""

from __future__ import annotations

from typing import Any

import click

from labelgen.cli.grouped_help import GroupedCommand
from labelgen.cli.options import chat_options, field_option, response_options, run_options, with_options
from labelgen.cli.run import run_command

__all__ = ["generate"]


@click.command(cls=GroupedCommand)
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPTS...")
@run_options(
    field_option("--prompt-field", "a text that is continued as it is"),
    field_option("--messages-field", "a chat"),
)
@with_options(chat_options)
@with_options(response_options)
def generate(prompts: tuple[str, ...], **options: Any) -> None:
    """Let the teacher answer PROMPTS, and label what it writes.

    PROMPTS: files, folders, patterns or URLs of JSONL, CSV, TSV or Parquet (also .gz, .zst), hf:owner/name for a
    dataset, or - for JSONL on stdin. A row has `messages` (a chat) or `prompt` (a text, given as it is), and perhaps an
    `id`. Run the same command again to go on with an unfinished dataset.

    \b
    labelgen generate prompts.jsonl -o labels --teacher HuggingFaceTB/SmolLM2-135M-Instruct
    labelgen generate questions.csv -o labels --teacher Qwen/Qwen3-8B --prompt-field question --chat
    labelgen generate 'hf:HuggingFaceH4/ultrachat_200k?split=train_sft' -o labels --teacher Qwen/Qwen3-8B
    labelgen generate -c job.yaml --limit 100
    """
    run_command(task="generate", sources=prompts, **options)
