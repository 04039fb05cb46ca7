"""`labelgen inspect`: what is in a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from labelgen.cli.options import dataset_argument, json_option

if TYPE_CHECKING:
    from labelstore.location import Location

__all__ = ["inspect"]


@click.command()
@dataset_argument
@click.option("--record", metavar="N|ID", help="Show one record: its number (from 0) or its id.")
@click.option("--positions", type=int, default=6, show_default=True, help="With --record: positions shown in detail.")
@click.option("--candidates", type=int, default=5, show_default=True, help="With --record: candidates at a position.")
@click.option(
    "--tokenizer", metavar="MODEL", help="Folder or hub name of the teacher's tokenizer.  [default: the teacher]"
)
@json_option
def inspect(
    dataset: Location, record: str | None, positions: int, candidates: int, tokenizer: str | None, as_json: bool
) -> None:
    """Show what the dataset in DIR holds, or one record of it as text.

    \b
    labelgen inspect labels
    labelgen inspect labels --record 0
    """
    from labelgen.cli.render import print_dataset
    from labelgen.cli.render_record import print_record
    from labelgen.cli.token_text import load_token_text
    from labelstore.dataset import open_dataset

    opened = open_dataset(dataset)
    if record is None:
        print_dataset(opened, location=str(dataset), as_json=as_json)
        return
    if record.lstrip("-").isdigit():
        if not -len(opened) <= int(record) < len(opened):
            raise click.ClickException(f"--record {record}: {dataset} has {len(opened)} records, numbered from 0")
        chosen = opened[int(record)]
    else:
        found = next((candidate for candidate in opened if candidate.record_id == record), None)
        if found is None:
            raise click.ClickException(f"--record {record}: {dataset} has no record of this id")
        chosen = found
    try:
        token_text = load_token_text(opened.header, tokenizer)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    print_record(chosen, token_text, num_positions=positions, num_candidates=candidates, as_json=as_json)
