"""`labelgen export`: a dataset in the layout of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from labelgen.cli.options import dataset_argument, json_option, quiet_option

if TYPE_CHECKING:
    from labelstore.location import Location

__all__ = ["export"]


@click.command()
@dataset_argument
@click.option("--to", "target", required=True, type=click.Choice(["chat-jsonl", "axolotl-kd"]), help="The layout.")
@click.option("-o", "--output", "path", required=True, type=click.Path(path_type=Path), help="File to be written; new.")
@json_option
@quiet_option
def export(dataset: Location, target: str, path: Path, as_json: bool, quiet: bool) -> None:
    """Write the dataset in DIR (a folder or URL) as another trainer's file, and say what has no place in it.

    chat-jsonl: rows for supervised fine-tuning. axolotl-kd: axolotl's distillation columns, as Parquet. Tools that read
    Parquet need neither: `labelgen convert --codec open` gives them every label.

    \b
    labelgen export labels --to chat-jsonl -o chats.jsonl
    labelgen export labels --to axolotl-kd -o kd.parquet
    """
    from labelgen.cli.progress_display import ProgressDisplay
    from labelgen.cli.render_export import print_export
    from labelstore.dataset import open_dataset
    from labelstore.export import export_dataset

    opened = open_dataset(dataset)
    with ProgressDisplay(doing="exporting", unit="records") as display:

        def show(done: int) -> None:
            if not quiet:
                line = f"{done:,} of {len(opened):,} records"
                display.show(done=done, total=len(opened), rate=line, line=line)

        try:
            summary = export_dataset(opened, path, target=target, on_records=show)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
    print_export(summary, as_json=as_json)
