"""Writes README.md, the dataset card, and its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from labelstore.card.distributions import measure_distributions
from labelstore.card.plots import draw_plots
from labelstore.card.text import Licences, card_text
from labelstore.dataset import open_dataset
from labelstore.dataset_writer import finish_dataset
from labelstore.errors import StorageError
from labelstore.header import HEADER_NAME
from labelstore.location import Location
from labelstore.readme import README_NAME, is_unedited, sign_readme
from labelstore.store import exists, open_writable_store, read_if_there

__all__ = ["CARD_DIR", "write_card"]

CARD_DIR = "card"  # of the pictures
JOB_NAME = ".labelgen/job.yaml"


def write_card(
    location: Location,
    *,
    title: str | None = None,
    licences: Licences,
    with_plots: bool = True,
    overwrite: bool = False,
) -> list[str]:
    """Write the card of a dataset folder; return the names of the files written.

    The manifest is brought up to date first. A README that somebody has edited is kept, unless `overwrite`.

    Raises:
        NotADatasetError: there is no dataset.
        StorageError: the README was edited.
        DamagedDatasetError: what is read of the dataset is damaged.
        ImportError: plots need matplotlib.
    """
    dataset = open_dataset(location)
    store = open_writable_store(location)
    readme = read_if_there(store, README_NAME)
    if readme is not None and not is_unedited(readme) and not overwrite:
        raise StorageError(
            f"{store}/{README_NAME}: was edited since labelgen wrote it. Give --overwrite to put the card in its "
            f"place, or move it away and copy from it."
        )
    if exists(store, HEADER_NAME):
        finish_dataset(location)
    distributions = measure_distributions(dataset)
    plots: Mapping[str, bytes] = draw_plots(distributions) if with_plots else {}
    job = read_if_there(store, JOB_NAME)
    names = [f"{CARD_DIR}/{name}" for name in plots]
    text = card_text(
        dataset,
        distributions,
        title=title or _folder_name(store.location),
        licences=licences,
        job=None if job is None else job.decode(errors="replace"),
        plots=names,
    )
    for name, content in zip(names, plots.values(), strict=True):
        store.replace(name, content)
    store.replace(README_NAME, sign_readme(text))
    return [README_NAME, *names]


def _folder_name(location: Location) -> str:
    return location.resolve().name if isinstance(location, Path) else location.rsplit("/", 1)[-1]
