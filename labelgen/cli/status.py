"""`labelgen status`: how far is the job on a dataset?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from labelgen.cli.options import dataset_argument, json_option

if TYPE_CHECKING:
    from labelstore.location import Location

__all__ = ["status"]


@click.command()
@dataset_argument
@json_option
def status(dataset: Location, as_json: bool) -> None:
    """Show how far the job on the dataset in DIR is: done, running, rate, time left, rejects, last heartbeat.

    It only reads, and may be called from any shell or machine that sees the folder.

    \b
    labelgen status labels
    """
    from labelgen.cli.render_status import print_status
    from labelgen.job.status import read_status

    print_status(read_status(dataset), location=str(dataset), as_json=as_json)
