"""`labelgen verify --rescore`: the dataset's own teacher reads some of its records again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np

from labelgen.cli.plain_text import echo
from labelgen.cli.render_rescored import rescored_rows
from labelgen.prompts.snapshot import PromptSnapshot
from labelgen.rescore.limits import Limits
from labelgen.rescore.own_teacher import find_changes, load_own_teacher
from labelgen.rescore.rescoring import rescore_dataset
from labelstore.dataset import open_dataset
from labelstore.location import Location
from labelstore.rescored import Rescored

__all__ = ["rescore"]


def rescore(
    location: Location,
    *,
    num_records: int,
    teacher: str | None,
    adapter: str | None,
    chat_template: str | None,
    gpu_memory_utilization: float,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    expert_parallel: bool,
    quiet: bool,
) -> Rescored:
    """Rescore a dataset and print what came of it, unless `quiet`.

    Raises:
        click.ClickException: the teacher cannot be loaded.
    """
    dataset = open_dataset(location)
    with tempfile.TemporaryDirectory(prefix="labelgen-") as scratch:
        try:
            own = load_own_teacher(
                dataset.header,
                teacher=teacher,
                adapter=adapter,
                chat_template=chat_template,
                log_path=Path(scratch) / "engine.log",
                gpu_memory_utilization=gpu_memory_utilization,
                tensor_parallel_size=tensor_parallel_size,
                pipeline_parallel_size=pipeline_parallel_size,
                expert_parallel=expert_parallel,
            )
        except (ValueError, ImportError) as error:
            raise click.ClickException(f"{error}. --teacher says where the dataset's teacher is now") from error
        changes = find_changes(dataset.header, own.facts)
        # Where the template is another one, and that is known, prompts are not what it would make of them.
        has_prompts = not any("template" in change for change in changes)
        limits = Limits.of(dataset.header.fingerprint_fields, dataset.rescored)
        try:
            rescored = rescore_dataset(
                dataset,
                own,
                num_records=num_records,
                limits=limits,
                rng=np.random.default_rng(),
                snapshot=PromptSnapshot(location) if has_prompts else None,
            )
        finally:
            own.close()
    if not quiet:
        for change in changes:
            echo(f"  {change}")
        echo(rescored_rows(rescored)["rescored"])
        echo(f"  limits: {limits.median_nats:.1e} (median), {limits.p999_nats:.1e} nats (p99.9): {limits.origin}")
        for problem in rescored.problems:
            echo(f"✗ {problem}")
    return rescored
