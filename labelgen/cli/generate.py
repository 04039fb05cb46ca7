"""`labelgen generate`: the teacher answers, and its answers are labelled."""

from __future__ import annotations

from typing import Any

import click

from labelgen.cli.grouped_help import GroupedCommand, grouped
from labelgen.cli.options import chat_options, field_option, run_options, with_options
from labelgen.cli.run import run_command

__all__ = ["generate"]

_RESPONSES = "Responses"


@click.command(cls=GroupedCommand)
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPTS...")
@run_options(
    field_option("--prompt-field", "a text that is continued as it is"),
    field_option("--messages-field", "a chat"),
)
@with_options(chat_options)
@grouped(_RESPONSES, "--responses", type=int, default=1, show_default=True, help="Responses to each prompt.")
@grouped(_RESPONSES, "--max-tokens", type=int, default=1024, show_default=True, help="Tokens in a response at most.")
@grouped(_RESPONSES, "--temperature", type=float, help="0 is greedy.  [default: the model's generation_config]")
@grouped(_RESPONSES, "--sampling-top-p", "top_p", type=float, help="Nucleus sampling.  [default: the model's]")
@grouped(
    _RESPONSES,
    "--sampling-top-k",
    "sampling_top_k",
    type=int,
    help="Sample from this many tokens.  [default: the model's]",
)
@grouped(
    _RESPONSES, "--sampling-min-p", "min_p", type=float, help="Least share of the likeliest.  [default: the model's]"
)
@grouped(_RESPONSES, "--stop", multiple=True, metavar="TEXT", help="Text that ends a response; repeatable.")
@grouped(_RESPONSES, "--seed", type=int, default=0, show_default=True, help="Seed of the run's sampling.")
def generate(
    prompts: tuple[str, ...],
    temperature: float | None,
    top_p: float | None,
    sampling_top_k: int | None,
    min_p: float | None,
    stop: tuple[str, ...],
    **options: Any,
) -> None:
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
    from labelgen.teachers.sampling import SamplingChoice

    try:
        sampling = SamplingChoice(
            temperature=temperature, top_p=top_p, top_k=sampling_top_k, min_p=min_p, stop=tuple(stop)
        )
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    run_command(task="generate", sources=prompts, sampling=sampling, **options)
