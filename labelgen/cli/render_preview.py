"""A job that is not begun, for people, as JSON, or as a job file."""

from __future__ import annotations

import dataclasses
import json

import click
from rich.console import Console

import labelgen
from labelgen.cli.job_file import render_job_file
from labelgen.cli.plain_text import echo, plain
from labelgen.cli.render import print_rows
from labelgen.cli.units import bytes_text
from labelgen.job.preview import JobPreview, RenderedPrompt

__all__ = ["print_preview"]

_SHOWN_CHARACTERS = 600


def print_preview(preview: JobPreview, *, command: click.Command, as_yaml: bool, as_json: bool) -> None:
    """Print what a job is and would do."""
    if as_yaml:
        click.echo(render_job_file(command, preview.options, version=labelgen.__version__), nl=False)
        return
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(preview)))
        return
    settings = {name: _text_of(value) for name, value in preview.options.items()}
    print_rows("the job", settings)
    sampling = ", ".join(f"{name} {value}" for name, value in preview.sampling.items() if value != [])
    engine = ", ".join(f"{name} {value}" for name, value in preview.recorded.items())
    facts = {
        "rows": f"{preview.vocab_size:,} in its output layer",
        "context": f"{preview.max_model_len:,} tokens",
        "stop ids": ", ".join(f"{token_id} ({origin})" for token_id, origin in preview.stop_ids.items()),
        "sampling": sampling,
        "engine": engine,
        "note": "\n".join(preview.notes),
    }
    echo()
    print_rows("the teacher", facts)
    for number, prompt in enumerate(preview.rendered, start=1):
        _print_prompt(number, prompt)
    echo()
    print_rows("the size", _size_rows(preview))
    echo("nothing was started and nothing written")


def _print_prompt(number: int, prompt: RenderedPrompt) -> None:
    console = Console(highlight=False)
    console.print(
        plain(f"\nprompt {number}: {prompt.prompt_id}, {prompt.origin}, {prompt.num_tokens:,} tokens"),
        style="bold",
        markup=False,
        soft_wrap=True,
    )
    text = f"would be rejected: {prompt.problem}" if prompt.problem else prompt.text
    if len(text) > _SHOWN_CHARACTERS:
        half = _SHOWN_CHARACTERS // 2
        text = f"{text[:half]}\n... {len(text) - _SHOWN_CHARACTERS:,} characters ...\n{text[-half:]}"
    console.print(plain(text), markup=False, soft_wrap=True)


def _size_rows(preview: JobPreview) -> dict[str, str]:
    guess, kl = preview.bytes_per_label, preview.truncation_kl_nats
    more = "" if preview.is_counted_whole else "more than "
    rows = {
        "prompts": f"{more}{preview.num_prompts:,}",
        "rejected": f"{preview.num_rejected:,} of the rows read" if preview.num_rejected else "",
        "labels": "" if preview.max_labels is None else f"{more}{preview.max_labels:,} at most (--max-tokens)",
        "bytes/label": f"{guess.low:,.0f} to {guess.high:,.0f}: a guess, from other teachers and texts; "
        f"'labelgen plan --probe' measures it",
        "truncation KL": "" if kl is None else f"{kl.low:.2g} to {kl.high:.2g} nats: a guess as well",
    }
    if preview.max_labels is not None and preview.is_counted_whole:
        rows["on disk"] = f"{bytes_text(round(guess.high * preview.max_labels))} at most"
    return rows


def _text_of(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(repr(part) if isinstance(part, str) and part != part.strip() else str(part) for part in value)
    if isinstance(value, dict):
        return repr(value["text"]) if list(value) == ["text"] else json.dumps(value)
    return str(value)
