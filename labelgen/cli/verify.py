"""`labelgen verify`: is a dataset what it claims to be?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from labelgen.cli.option_types import TEXT_FILE
from labelgen.cli.options import (
    adapter_option,
    dataset_argument,
    expert_parallel_option,
    gpu_memory_option,
    json_option,
    pipeline_parallel_option,
    tensor_parallel_option,
)
from labelgen.cli.plain_text import echo
from labelgen.cli.render_rescored import rescored_values

if TYPE_CHECKING:
    from labelstore.location import Location
    from labelstore.repair import RepairReport
    from labelstore.verify import VerifyReport

__all__ = ["verify"]

_SHOWN_FINDINGS = 50


@click.command()
@dataset_argument
@click.option(
    "--repair",
    "is_repair",
    is_flag=True,
    help="Take out what is damaged; the command that made the dataset then makes just that again.",
)
@click.option(
    "--rescore",
    "num_rescored",
    type=click.IntRange(min=1),
    metavar="N",
    help="Let the dataset's own teacher read N random records again, and compare.",
)
@click.option("--teacher", metavar="MODEL", help="With --rescore: where the teacher is now.  [default: as it was]")
@click.option(
    "--chat-template",
    type=TEXT_FILE,
    metavar="FILE",
    help="With --rescore: the Jinja template, if the job was given one.  [default: the teacher's own]",
)
@gpu_memory_option
@adapter_option
@tensor_parallel_option
@pipeline_parallel_option
@expert_parallel_option
@json_option
def verify(
    dataset: Location,
    is_repair: bool,
    num_rescored: int | None,
    teacher: str | None,
    adapter: str | None,
    chat_template: str | None,
    gpu_memory_utilization: float,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    expert_parallel: bool,
    as_json: bool,
) -> None:
    """Check every hash, count, offset and label of the dataset in DIR; exit 1 if anything is wrong.

    \b
    labelgen verify labels
    labelgen verify labels --rescore 64
    labelgen verify labels --repair
    """
    from labelstore.repair import repair_dataset
    from labelstore.verify import verify_dataset

    repaired = repair_dataset(dataset) if is_repair else None
    report = verify_dataset(dataset) if repaired is None else repaired.left
    if repaired is not None and not as_json:
        _print_repair(repaired, dataset)
    values = _print_findings(report, dataset, as_json=as_json)
    if repaired is not None:
        values |= {name: getattr(repaired, name) for name in ("restored", "withdrawn", "kept_aside")}
    is_right = report.is_sound
    if num_rescored is not None and is_right:
        from labelgen.cli.verify_rescored import rescore

        rescored = rescore(
            dataset,
            num_records=num_rescored,
            teacher=teacher,
            adapter=adapter,
            chat_template=chat_template,
            gpu_memory_utilization=gpu_memory_utilization,
            tensor_parallel_size=tensor_parallel_size,
            pipeline_parallel_size=pipeline_parallel_size,
            expert_parallel=expert_parallel,
            quiet=as_json,
        )
        values["rescored"] = rescored_values(rescored)
        is_right = rescored.agrees
    if as_json:
        click.echo(json.dumps(values))
    if not is_right:
        raise SystemExit(1)


def _print_repair(repaired: RepairReport, dataset: Location) -> None:
    for name in repaired.restored:
        echo(f"written again from the manifest: {name}")
    for name in repaired.kept_aside:
        echo(f"kept aside in .labelgen/orphans/: {name}")
    if repaired.withdrawn:
        echo(f"withdrawn: {', '.join(repaired.withdrawn)}. The command that made {dataset} makes just these again")


def _print_findings(report: VerifyReport, dataset: Location, *, as_json: bool) -> dict[str, Any]:
    """Print what was found, for people; return it for --json."""
    findings = [
        {"file": finding.file, "record": finding.record, "message": finding.message} for finding in report.findings
    ]
    if not as_json:
        for finding in report.findings[:_SHOWN_FINDINGS]:
            echo(f"✗ {finding}")
        if len(report.findings) > _SHOWN_FINDINGS:
            echo(f"  and {len(report.findings) - _SHOWN_FINDINGS:,} more; --json lists all")
        counted_text = f"{report.num_shards:,} shards, {report.num_records:,} records, {report.num_labels:,} labels"
        verdict = "✓ sound" if report.is_sound else f"✗ {len(report.findings):,} findings"
        echo(f"{verdict}: {counted_text} checked in {dataset}")
    counted = {"shards": report.num_shards, "records": report.num_records, "labels": report.num_labels}
    return {"sound": report.is_sound, **counted, "findings": findings}
