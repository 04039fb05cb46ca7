"""What `generate` and `score` share: build the job, run it, show how it goes and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

__all__ = ["run_command"]


def run_command(
    *,
    task: Any,
    sources: Sequence[str],
    output_dir: Path,
    teacher: str,
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
    as_json: bool,
    quiet: bool,
    **of_the_spec: Any,
) -> None:
    """Run a job that the command line describes.

    Raises:
        click.ClickException: the command asks for what cannot be.
    """
    from labelgen.cli.progress import TerminalWatcher
    from labelgen.cli.render import print_summary
    from labelgen.job.progress import NullWatcher
    from labelgen.job.runner import Job
    from labelgen.job.spec import DEFAULT_TOP_K, RunSpec
    from labelgen.teachers.engine_settings import EngineSettings
    from labelstore.selection import Selection

    try:
        spec = RunSpec(
            task=task,
            sources=tuple(sources),
            output_dir=output_dir,
            teacher=teacher,
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
            ),
            **of_the_spec,
        )
        job = Job(spec)
        with TerminalWatcher() as watcher:
            summary = job.run(NullWatcher() if quiet else watcher)
    except (ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    print_summary(summary, as_json=as_json)
