"""`labelgen finish`: fold what is complete into the manifest, and tidy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from labelgen.cli.options import dataset_argument
from labelgen.cli.plain_text import echo

if TYPE_CHECKING:
    from labelstore.location import Location

__all__ = ["finish"]


@click.command()
@dataset_argument
def finish(dataset: Location) -> None:
    """Fold the entries of the dataset in DIR into its manifest, and move aside what a killed job left in data/.

    `generate` and `score` end with this. Run it by hand to read or share a dataset whose job goes on later.
    """
    from labelstore.dataset_writer import finish_dataset

    manifest, orphans = finish_dataset(dataset)
    for name in orphans:
        echo(f"moved {name} to .labelgen/orphans/: no entry lists it", err=True)
    echo(f"{dataset}: {len(manifest.entries)} blocks in manifest.json")
