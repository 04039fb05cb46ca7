"""`labelgen status`: how far is the job on a dataset?"""

from __future__ import annotations

from pathlib import Path

import click

from labelgen.cli.options import json_option

__all__ = ["status"]


@click.command()
@click.argument("dataset", metavar="DIR", type=click.Path(path_type=Path))
@json_option
def status(dataset: Path, as_json: bool) -> None:
    """Show how far the job on the dataset in DIR is: done, running, rate, time left, rejects, last heartbeat.

    It only reads, and may be called from any shell or machine that sees the folder.

    \b
    labelgen status labels
    """
    from labelgen.cli.render_status import print_status
    from labelgen.job.status import read_status

    print_status(read_status(dataset), location=str(dataset), as_json=as_json)
