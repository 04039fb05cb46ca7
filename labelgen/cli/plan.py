"""`labelgen plan`: what a job will take and keep, before it is paid for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labelgen.cli.grouped_help import GroupedCommand, grouped
from labelgen.cli.job_file import job_file_option
from labelgen.cli.options import (
    chat_options,
    field_option,
    json_option,
    label_spans_option,
    prompt_options,
    quiet_option,
    response_options,
    stride_option,
    teacher_options,
    with_options,
)

if TYPE_CHECKING:
    from labelgen.job.spec import RunSpec
    from labelgen.plan.probe import Probe

__all__ = ["plan"]

_PLAN = "The plan"
# A job file says what is kept and where; a plan finds out.
_KEPT_NOTHING: dict[str, Any] = {
    **dict.fromkeys(("top_k", "keep_mass", "min_k", "max_k", "draws", "max_rejects")),
    "entropy": False,
}
_OF_A_JOB = {
    "keep_positions",
    "output",
    "codec",
    "journal_dir",
    "flush_seconds",
    "grace_seconds",
    "replicas",
    "ray",
    "rescore_at_end",
    "texts",
    "prompts",
    *_KEPT_NOTHING,
}


@click.command(cls=GroupedCommand)
@click.argument("sources", nargs=-1, metavar="[SOURCES|DATASET]...")
@with_options(
    [
        grouped(_PLAN, "--probe", type=int, metavar="N", help="Label N prompts once, and plan from what came of it."),
        grouped(_PLAN, "--probe-top-k", type=int, default=256, show_default=True, help="The widest K that is planned."),
        grouped(_PLAN, "--labels", type=float, help="Labels of the job, such as 1e9.  [default: from the prompts]"),
        grouped(_PLAN, "--prompts", "num_prompts", type=int, help="Prompts of the job.  [default: those in SOURCES]"),
        grouped(_PLAN, "--budget", metavar="SIZE", help="Choose what loses least and fits, such as 500GB."),
        grouped(_PLAN, "--max-kl", type=float, metavar="NATS", help="Choose the smallest that loses no more."),
        grouped(
            _PLAN, "--plot", "plot_path", metavar="PNG", type=click.Path(path_type=Path), help="Draw the plan as well."
        ),
        grouped(_PLAN, "--score", "is_score", is_flag=True, help="SOURCES are texts to score, not prompts to answer."),
        grouped(_PLAN, "--block-size", type=int, default=2048, show_default=True, help="Prompts in a block."),
        job_file_option(_PLAN, ignored=_OF_A_JOB),
        *teacher_options(is_required=False),
        field_option("--prompt-field", "a text that is continued as it is"),
        field_option("--completion-field", "its completion, with --score"),
        field_option("--messages-field", "a chat"),
        field_option("--text-field", "the text, with --score"),
        *prompt_options,
        stride_option,
        label_spans_option,
        *chat_options,
        *response_options,
    ]
)
@json_option
@quiet_option
def plan(
    sources: tuple[str, ...],
    probe: int | None,
    labels: float | None,
    budget: str | None,
    max_kl: float | None,
    plot_path: Path | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Say what a job will take, keep and last, for every K, mass and codec.

    Without SOURCES, a guess from committed measurements. With --probe N, N prompts of SOURCES are labelled once and
    really encoded. Of a finished DATASET, what a smaller K or another codec would save and cost.

    \b
    labelgen plan --labels 1e9
    labelgen plan prompts.jsonl --teacher Qwen/Qwen3-8B --probe 64 --budget 500GB
    labelgen plan labels --max-kl 0.1
    """
    from labelgen.cli.progress_display import ProgressDisplay
    from labelgen.cli.render_plan import print_guess, print_plan
    from labelgen.plan.choice import parse_bytes
    from labelgen.plan.plan import make_plan
    from labelgen.plan.probe import probe_dataset
    from labelstore.dataset import open_dataset

    try:
        budget_bytes = None if budget is None else parse_bytes(budget)
        if probe is None and not (len(sources) == 1 and _is_dataset(sources[0])):
            if labels is None:
                raise click.UsageError("say how large the job is with --labels, or probe its prompts with --probe")
            print_guess(num_labels=round(labels), budget_bytes=budget_bytes, max_kl_nats=max_kl, as_json=as_json)
            return
        num_prompts: int | None = options.pop("num_prompts")
        if probe is None:
            dataset = open_dataset(sources[0])
            sample = probe_dataset(dataset)
            num_labels: int | None = dataset.num_labels if labels is None else round(labels)
            num_prompts = None
        else:
            sample, num_prompts = _probe(sources, probe, num_prompts, quiet=quiet, **options)
            num_labels = None if labels is None else round(labels)
        with ProgressDisplay(doing="encoding", unit="choices planned") as display:
            made = make_plan(
                sample,
                num_prompts=num_prompts,
                num_labels=num_labels,
                block_size=options["block_size"],
                budget_bytes=budget_bytes,
                max_kl_nats=max_kl,
                watch=lambda done, total: (
                    None if quiet else display.show(done=done, total=total, rate="", line=f"{done} of {total} choices")
                ),
            )
        if plot_path is not None:
            from labelgen.plan.plot import plot_plan

            plot_plan(made, plot_path)
    except (ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    print_plan(made, as_json=as_json)


def _probe(
    sources: tuple[str, ...], size: int, num_prompts: int | None, *, quiet: bool, **options: Any
) -> tuple[Probe, int]:
    """Label some of the prompts; return what came of it, and how many prompts the job has."""
    from labelgen.cli.progress import TerminalWatcher
    from labelgen.job.progress import NullWatcher
    from labelgen.plan.probe import count_prompts, probe_teacher

    if not sources or options["teacher"] is None:
        raise click.UsageError("--probe needs SOURCES and --teacher")
    spec = _spec_of(sources, options)
    if "-" in sources and num_prompts is None:
        raise click.UsageError("the standard input is read once: say with --prompts how many prompts the job has")
    counted = count_prompts(spec) if num_prompts is None else num_prompts
    with TerminalWatcher() as watcher:
        probe = probe_teacher(
            spec,
            num_prompts=size,
            top_k=options["probe_top_k"],
            watcher=NullWatcher() if quiet else watcher,
        )
    return probe, counted


def _spec_of(sources: tuple[str, ...], options: dict[str, Any]) -> RunSpec:
    """Return the run that is probed; what it keeps and where is decided by the probe."""
    from labelgen.cli.run import build_spec

    given = {name: value for name, value in options.items() if name not in ("is_score", "probe_top_k")}
    task = "score" if options["is_score"] else "generate"
    return build_spec(task=task, sources=sources, output_dir=Path("probe"), **_KEPT_NOTHING, **given)


def _is_dataset(location: str) -> bool:
    from labelstore.dataset import open_dataset
    from labelstore.errors import StorageError

    try:
        open_dataset(location)
    except (StorageError, OSError, ValueError):
        return False
    return True
