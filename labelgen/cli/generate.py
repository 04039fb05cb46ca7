"""`labelgen generate`: the teacher answers, and its answers are labelled."""

from __future__ import annotations

from typing import Any

import click

from labelgen.cli.options import run_options
from labelgen.cli.run import run_command

__all__ = ["generate"]


@click.command()
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPTS...")
@run_options
@click.option("--responses", type=int, default=1, show_default=True, help="Responses to each prompt.")
@click.option("--max-tokens", type=int, default=1024, show_default=True, help="Tokens in a response at most.")
@click.option("--temperature", type=float, help="0 is greedy.  [default: the model's generation_config]")
@click.option("--sampling-top-p", "top_p", type=float, help="Nucleus sampling.  [default: the model's]")
@click.option(
    "--sampling-top-k", "sampling_top_k", type=int, help="Sample from this many tokens.  [default: the model's]"
)
@click.option("--sampling-min-p", "min_p", type=float, help="Least share of the likeliest.  [default: the model's]")
@click.option("--stop", multiple=True, metavar="TEXT", help="Text that ends a response; repeatable.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the run's sampling.")
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

    PROMPTS: JSONL or Parquet files with `messages` (a chat) or `prompt` (a text, given as it is), and an optional `id`;
    or - for JSONL on stdin. Run the same command again to go on with an unfinished dataset.

    \b
    labelgen generate prompts.jsonl -o labels --teacher HuggingFaceTB/SmolLM2-135M-Instruct
    """
    from labelgen.teachers.sampling import SamplingChoice

    try:
        sampling = SamplingChoice(
            temperature=temperature, top_p=top_p, top_k=sampling_top_k, min_p=min_p, stop=tuple(stop)
        )
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    run_command(task="generate", sources=prompts, sampling=sampling, **options)
