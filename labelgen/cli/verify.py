"""`labelgen verify`: is a dataset what it claims to be?"""

from __future__ import annotations

import json

import click

from labelgen.cli.options import dataset_argument, json_option

__all__ = ["verify"]

_SHOWN_FINDINGS = 50


@click.command()
@dataset_argument
@json_option
def verify(dataset: str, as_json: bool) -> None:
    """Check every hash, count, offset and label of the dataset in DIR; exit 1 if anything is wrong.

    \b
    labelgen verify labels
    """
    from labelstore.verify import verify_dataset

    report = verify_dataset(dataset)
    if as_json:
        findings = [
            {"file": finding.file, "record": finding.record, "message": finding.message} for finding in report.findings
        ]
        counted = {"shards": report.num_shards, "records": report.num_records, "labels": report.num_labels}
        click.echo(json.dumps({"sound": report.is_sound, **counted, "findings": findings}))
    else:
        for finding in report.findings[:_SHOWN_FINDINGS]:
            click.echo(f"✗ {finding}")
        if len(report.findings) > _SHOWN_FINDINGS:
            click.echo(f"  and {len(report.findings) - _SHOWN_FINDINGS:,} more; --json lists all")
        counted_text = f"{report.num_shards:,} shards, {report.num_records:,} records, {report.num_labels:,} labels"
        verdict = "✓ sound" if report.is_sound else f"✗ {len(report.findings):,} findings"
        click.echo(f"{verdict}: {counted_text} checked in {dataset}")
    if not report.is_sound:
        raise SystemExit(1)
