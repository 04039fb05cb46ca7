"""`labelgen card`: the dataset card."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from labelgen.cli.options import dataset_argument
from labelgen.cli.plain_text import echo

if TYPE_CHECKING:
    from labelstore.location import Location

__all__ = ["card"]


@click.command()
@dataset_argument
@click.option("--title", help="What the dataset is called.  [default: the folder's name]")
@click.option("--license", "dataset_licence", help="Licence of the dataset, by its name on the hub (apache-2.0).")
@click.option("--teacher-license", "teacher_licence", help="Licence of the teacher.")
@click.option("--prompts-license", "prompts_licence", help="Licence of the prompts or texts.")
@click.option("--no-plots", is_flag=True, help="Text only; plots need matplotlib.")
@click.option("--overwrite", is_flag=True, help="Replace a README.md that was edited, too.")
def card(
    dataset: Location,
    title: str | None,
    dataset_licence: str | None,
    teacher_licence: str | None,
    prompts_licence: str | None,
    no_plots: bool,
    overwrite: bool,
) -> None:
    """Write the card of the dataset in DIR: README.md, with plots in card/.

    It says what the dataset is, how to load it, how large and how faithful it is, and how to make it again. A licence
    that is not given is called unknown. A README.md that somebody has edited is kept.
    """
    from labelstore.card import Licences, write_card

    licences = Licences(dataset=dataset_licence, teacher=teacher_licence, prompts=prompts_licence)
    try:
        names = write_card(dataset, title=title, licences=licences, with_plots=not no_plots, overwrite=overwrite)
    except ImportError as error:
        raise click.ClickException(str(error)) from error
    options = {"--license": dataset_licence, "--teacher-license": teacher_licence, "--prompts-license": prompts_licence}
    if missing := [option for option, value in options.items() if value is None]:
        echo(f"note: {', '.join(missing)} not given: the card says unknown", err=True)
    echo(f"{dataset}: {', '.join(names)}")
