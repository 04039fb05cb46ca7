"""What `generate` and `score` share: build the job, run it, show how it goes and what came of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from labelgen.cli.plain_text import echo

if TYPE_CHECKING:
    from labelgen.job.spec import RunSpec

__all__ = ["build_spec", "run_command"]


def run_command(*, as_json: bool, quiet: bool, dry_run: bool, as_yaml: bool, **options: Any) -> None:
    """Run a job that the command line describes, or show what it would do.

    Raises:
        click.ClickException: the command asks for what cannot be.
    """
    if as_yaml and not dry_run:
        raise click.UsageError("--yaml prints the job of --dry-run; give both")
    from labelgen.cli.progress import EventWatcher, TerminalWatcher, print_event
    from labelgen.cli.render import print_summary
    from labelgen.job.progress import NullWatcher
    from labelgen.job.runner import Job
    from labelgen.job.stopping import JobStoppedError, StoppedError, StopSignals

    try:
        spec = build_spec(**options)
        if dry_run:
            from labelgen.cli.render_preview import print_preview

            command = click.get_current_context().command
            print_preview(Job(spec).preview(), command=command, as_yaml=as_yaml, as_json=as_json)
            return
        watching = EventWatcher() if as_json else TerminalWatcher()
        with watching as watcher, StopSignals(grace_seconds=spec.grace_seconds) as stop:
            try:
                with stop.interruptible():
                    job = Job(spec)
            except StoppedError:
                raise stop.error("nothing was begun") from None
            summary = job.run(NullWatcher() if quiet else watcher, stop=stop)
    except JobStoppedError as stopped:
        if as_json:
            print_event("stopped", message=str(stopped))
        echo(str(stopped), err=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stopped.exit_code)  # a block that is being encoded must not hold up the end: the journal has it
    except (ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    print_summary(summary, as_json=as_json)
    if summary.rescored is not None and not summary.rescored.agrees:
        raise click.ClickException(
            f"the labels in {summary.output_dir} are not what the teacher says of the same tokens: "
            f"{'; '.join(summary.rescored.problems)}. See docs/is-my-dataset-right.md"
        )


def build_spec(
    *,
    sources: Sequence[str],
    top_k: int | None,
    keep_mass: float | None,
    min_k: int | None,
    max_k: int | None,
    draws: int | None,
    entropy: bool,
    dtype: str | None,
    head_dtype: str | None,
    max_model_len: int | None,
    gpu_memory_utilization: float,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    expert_parallel: bool,
    adapter: str | None,
    engine_args: Sequence[tuple[str, Any]],
    id_field: str,
    columns: Sequence[str],
    template: str | None,
    sample_prompts: int | None,
    sample_seed: int,
    max_rejects: str | None,
    keep_positions: str | None = None,
    part: str | None = None,
    prompt_field: str | None = None,
    messages_field: str | None = None,
    text_field: str | None = None,
    completion_field: str | None = None,
    system: str | None = None,
    as_chat: bool = False,
    chat_template: str | None = None,
    chat_template_args: Sequence[tuple[str, Any]] = (),
    temperature: float | None = None,
    sampling_top_p: float | None = None,
    sampling_top_k: int | None = None,
    sampling_min_p: float | None = None,
    stop: Sequence[str] = (),
    stop_ids: Sequence[int] = (),
    min_tokens: int = 0,
    bad_words: Sequence[str] = (),
    logit_bias: Sequence[tuple[int, float]] = (),
    json_schema: str | None = None,
    regex: str | None = None,
    choices: Sequence[str] = (),
    max_think_tokens: int | None = None,
    **of_the_spec: Any,
) -> RunSpec:
    """Return the run that the options describe.

    Raises:
        ValueError: an option is out of its range, or two exclude each other.
    """
    from labelgen.job.kept_positions import KeptPositions
    from labelgen.job.part import Part
    from labelgen.job.spec import DEFAULT_TOP_K, RunSpec
    from labelgen.prompts.chat_template import ChatTemplate
    from labelgen.prompts.prompt_fields import PromptFields
    from labelgen.prompts.prompt_sample import PromptSample
    from labelgen.prompts.rejects import RejectLimit
    from labelgen.prompts.row_template import RowTemplate
    from labelgen.teachers.constraint import Constraint
    from labelgen.teachers.engine_settings import EngineSettings
    from labelgen.teachers.sampling import SamplingChoice
    from labelstore.selection import Selection

    arguments: Mapping[str, Any] = dict(chat_template_args)
    return RunSpec(
        sources=tuple(sources),
        selection=Selection(
            top_k=DEFAULT_TOP_K if (top_k, keep_mass, draws) == (None, None, None) else top_k,
            keep_mass=keep_mass,
            min_k=min_k,
            max_k=max_k,
            draws=draws,
            entropy=entropy,
        ),
        engine=EngineSettings(
            dtype=dtype,
            head_dtype=head_dtype,
            max_model_len=max_model_len,
            gpu_memory_utilization=gpu_memory_utilization,
            tensor_parallel_size=tensor_parallel_size,
            pipeline_parallel_size=pipeline_parallel_size,
            expert_parallel=expert_parallel,
            adapter=adapter,
            engine_args=dict(engine_args),
        ),
        fields=PromptFields(
            prompt=prompt_field,
            messages=messages_field,
            text=text_field,
            completion=completion_field,
            prompt_id=id_field,
            columns=tuple(columns),
            template=None if template is None else RowTemplate(template),
            system=system,
            as_chat=as_chat,
        ),
        sampling=SamplingChoice(
            temperature=temperature,
            top_p=sampling_top_p,
            top_k=sampling_top_k,
            min_p=sampling_min_p,
            stop=tuple(stop),
            stop_ids=tuple(stop_ids),
            min_tokens=min_tokens,
            bad_words=tuple(bad_words),
            logit_bias=dict(logit_bias),
            max_think_tokens=max_think_tokens,
            constraint=(
                Constraint(json_schema=json_schema, regex=regex, choices=tuple(choices))
                if (json_schema, regex, tuple(choices)) != (None, None, ())
                else None
            ),
        ),
        chat_template=ChatTemplate(text=chat_template, arguments=arguments),
        sample=None if sample_prompts is None else PromptSample(size=sample_prompts, seed=sample_seed),
        keep_positions=None if keep_positions is None else KeptPositions.parse(keep_positions),
        max_rejects=None if max_rejects is None else RejectLimit.parse(max_rejects),
        part=None if part is None else Part.parse(part),
        **of_the_spec,
    )
