"""What an export came to, on stdout."""

from __future__ import annotations

import json

import click

from labelgen.cli.render import print_rows
from labelgen.cli.units import bytes_text
from labelstore.export import ExportSummary

__all__ = ["print_export"]


def print_export(summary: ExportSummary, *, as_json: bool) -> None:
    """Print what was written, and what has no place in it."""
    if as_json:
        values = {
            "output": str(summary.path),
            "to": summary.target,
            "records": summary.num_records,
            "bytes": summary.num_bytes,
            "left_out": dict(summary.left_out),
            "losses": list(summary.losses),
        }
        click.echo(json.dumps(values))
        return
    rows = {
        "records": f"{summary.num_records:,}",
        "size": bytes_text(summary.num_bytes),
        "left out": "\n".join(f"{count:,} records that {reason}" for reason, count in summary.left_out.items()),
        "not in it": "\n".join(summary.losses),
    }
    print_rows(str(summary.path), rows)
