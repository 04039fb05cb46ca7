"""`labelgen doctor`: what is here, what will work, and what mends the rest."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from labelgen.cli.options import json_option

__all__ = ["doctor"]

_SIGNS = {"works": "✓", "limited": "!", "fails": "✗"}
_COLORS = {"works": "green", "limited": "yellow", "fails": "red"}


@click.command()
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@json_option
def doctor(folder: Path, as_json: bool) -> None:
    """Show what this machine has for labelling, and what mends the rest; exit 1 if labelling would fail.

    DIR is where datasets are to go (here, if not given): 64 MB are written there, synced and deleted.

    \b
    labelgen doctor /data/labels
    """
    from labelgen.machine_checks import check_machine

    checks = []
    for check in check_machine(folder):
        checks.append(check)
        if not as_json:
            sign = click.style(_SIGNS[check.state], fg=_COLORS[check.state])
            click.echo(f"{sign} {check.name:<14}{check.found}")
            if check.advice:
                click.echo(f"{'':<16}{check.advice}")
    can_label = all(check.state != "fails" for check in checks)
    if as_json:
        click.echo(json.dumps({"can_label": can_label, "checks": [dataclasses.asdict(check) for check in checks]}))
    if not can_label:
        raise SystemExit(1)
