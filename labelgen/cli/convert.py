"""`labelgen convert`: another codec, fewer candidates, several datasets joined."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from labelgen.cli.option_types import TEXT_FILE
from labelgen.cli.options import json_option, output_option

if TYPE_CHECKING:
    from labelstore.location import Location

__all__ = ["convert"]


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SRC...")
@output_option("the new dataset")
@click.option("--codec", help="How soft labels are stored: open, exact, standard or small.  [default: as in SRC]")
@click.option("--top-k", type=int, help="Keep the K most likely candidates, fewer than SRC has.  [default: all]")
@click.option(
    "--drop-ids", type=TEXT_FILE, metavar="FILE", help="Ids of records or prompts, one a line, that are left out."
)
@click.option(
    "--holdout", type=float, metavar="SHARE", help="Leave out a share of the prompts, chosen by a hash of their ids."
)
@click.option("--only-holdout", is_flag=True, help="Take what --holdout leaves out, and nothing else.")
@json_option
@click.option("--quiet", is_flag=True, help="No progress and no notes; warnings and errors only.")
def convert(
    sources: tuple[str, ...],
    output_dir: Location,
    codec: str | None,
    top_k: int | None,
    drop_ids: str | None,
    holdout: float | None,
    only_holdout: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write the finished datasets SRC (folders or URLs) as one new dataset: other codec, fewer candidates, joined, or
    without some of the records.

    What is written is decoded and compared with SRC before it counts. Hard labels, ids and counts stay as they are.
    Where neither codec nor candidates change, files are copied. Run the same command again to go on.

    \b
    labelgen convert labels -o smaller --codec small --top-k 16
    labelgen convert part-1 part-2 -o all
    labelgen convert labels -o cleaned --drop-ids withdrawn.txt
    labelgen convert labels -o evaluation --holdout 0.01 --only-holdout
    """
    import labelgen
    from labelgen.cli.render_conversion import TerminalConversionWatcher, print_conversion
    from labelstore.convert import convert_datasets
    from labelstore.record_choice import RecordChoice

    try:
        with TerminalConversionWatcher(quiet=quiet) as watcher:
            summary = convert_datasets(
                sources,
                output_dir,
                codec=codec,
                top_k=top_k,
                choice=RecordChoice(
                    dropped_ids=frozenset(filter(None, map(str.strip, (drop_ids or "").splitlines()))),
                    holdout=holdout,
                    only_holdout=only_holdout,
                ),
                labelgen_version=labelgen.__version__,
                watcher=watcher,
            )
    except (ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    print_conversion(summary, as_json=as_json)
