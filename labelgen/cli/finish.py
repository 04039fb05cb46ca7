"""`labelgen finish`: fold what is complete into the manifest, and tidy."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["finish"]


@click.command()
@click.argument("dataset", metavar="DIR", type=click.Path(path_type=Path))
def finish(dataset: Path) -> None:
    """Fold the entries of the dataset in DIR into its manifest, and move aside what a killed job left in data/.

    `generate` and `score` end with this. Run it by hand to read or share a dataset whose job goes on later.
    """
    from labelstore.dataset_writer import finish_dataset

    manifest, orphans = finish_dataset(dataset)
    for name in orphans:
        click.echo(f"moved {name} to .labelgen/orphans/: no entry lists it", err=True)
    click.echo(f"{dataset}: {len(manifest.entries)} blocks in manifest.json")
