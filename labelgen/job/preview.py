"""What a job is and what it would do, known without starting the engine and without writing a file."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labelgen.job.job_options import job_options
from labelgen.job.requests import PromptRequests
from labelgen.plan.size_guess import Guess, guess_bytes_per_label, guess_truncation_kl
from labelgen.prompts.prompt import Prompt
from labelgen.prompts.sources import Source, read_prompts
from labelgen.teachers.teacher import GenerateRequest

__all__ = ["JobPreview", "RenderedPrompt", "make_preview"]

_MAX_COUNTED_ROWS = 20_000  # a second of reading
_NUM_RENDERED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPrompt:
    """A prompt as the teacher reads it."""

    prompt_id: str
    origin: str
    text: str  # special tokens included; empty where there is a problem
    num_tokens: int
    problem: str | None  # why it would be a reject


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPreview:
    """A job, before it is begun."""

    options: dict[str, Any]  # as a job file has them
    sampling: dict[str, Any]  # the values in force
    vocab_size: int
    max_model_len: int
    stop_ids: dict[int, str]
    recorded: dict[str, Any]  # engine, versions, device
    notes: tuple[str, ...]
    rendered: tuple[RenderedPrompt, ...]  # the first three
    num_prompts: int
    is_counted_whole: bool  # else there are more prompts than were counted
    num_rejected: int  # of the rows that were read
    max_labels: int | None  # of the prompts that were counted; None where only the texts' lengths say it
    bytes_per_label: Guess
    truncation_kl_nats: Guess | None


def make_preview(requests: PromptRequests, sources: Sequence[Source]) -> JobPreview:
    """Read the first rows of a job's sources and say what it would do.

    Raises:
        ValueError: a source cannot be read.
    """
    spec, facts = requests.spec, requests.facts
    rows = (row for source in sources for row in read_prompts(source))
    read = list(itertools.islice(rows, _MAX_COUNTED_ROWS))
    is_counted_whole = next(rows, None) is None
    prompts = [row for row in read if isinstance(row, Prompt)]
    num_prompts = len({prompt.prompt_id for prompt in prompts})
    most = spec.limit if spec.sample is None else spec.sample.size
    if most is not None and num_prompts >= most:
        num_prompts, is_counted_whole = most, True
    return JobPreview(
        options=job_options(spec),
        sampling=requests.sampling.to_json() if spec.task == "generate" else {},
        vocab_size=facts.vocab_size,
        max_model_len=facts.max_model_len,
        stop_ids=dict(facts.stop_ids),
        recorded=dict(facts.recorded),
        notes=facts.notes,
        rendered=tuple(_render(requests, prompt) for prompt in prompts[:_NUM_RENDERED]),
        num_prompts=num_prompts,
        is_counted_whole=is_counted_whole,
        num_rejected=len(read) - len(prompts),
        max_labels=num_prompts * spec.responses * spec.max_tokens if spec.task == "generate" else None,
        bytes_per_label=guess_bytes_per_label(spec.selection, spec.codec),
        truncation_kl_nats=guess_truncation_kl(spec.selection),
    )


def _render(requests: PromptRequests, prompt: Prompt) -> RenderedPrompt:
    text, num_tokens, problem = "", 0, None
    try:
        first = requests.make(prompt, "0/0")[0]
        ids = first.prompt_ids if isinstance(first, GenerateRequest) else first.input_ids
        text, num_tokens = requests.tokenizer.decode(ids), len(ids)
    except ValueError as error:
        problem = str(error)
    return RenderedPrompt(
        prompt_id=prompt.prompt_id, origin=prompt.origin, text=text, num_tokens=num_tokens, problem=problem
    )
