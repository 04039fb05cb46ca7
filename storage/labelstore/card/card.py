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
from labelstore.local_store import LocalStore
from labelstore.readme import README_NAME, is_unedited, sign_readme

__all__ = ["CARD_DIR", "write_card"]

CARD_DIR = "card"  # of the pictures
JOB_NAME = ".labelgen/job.yaml"


def write_card(
    root: Path, *, title: str | None = None, licences: Licences, with_plots: bool = True, overwrite: bool = False
) -> list[str]:
    """Write the card of a dataset folder; return the names of the files written.

    The manifest is brought up to date first. A README that somebody has edited is kept, unless `overwrite`.

    Raises:
        NotADatasetError: there is no dataset.
        StorageError: the README was edited.
        DamagedDatasetError: what is read of the dataset is damaged.
        ImportError: plots need matplotlib.
    """
    store = LocalStore(root)
    dataset = open_dataset(root)
    try:
        is_edited = not is_unedited(store.read(README_NAME))
    except FileNotFoundError:
        is_edited = False
    if is_edited and not overwrite:
        raise StorageError(
            f"{root}/{README_NAME}: was edited since labelgen wrote it. Give --overwrite to put the card in its place, "
            f"or move it away and copy from it."
        )
    if (root / HEADER_NAME).exists():
        finish_dataset(root)
    distributions = measure_distributions(dataset)
    plots: Mapping[str, bytes] = draw_plots(distributions) if with_plots else {}
    try:
        job: str | None = store.read(JOB_NAME).decode(errors="replace")
    except FileNotFoundError:
        job = None
    names = [f"{CARD_DIR}/{name}" for name in plots]
    text = card_text(
        dataset, distributions, title=title or root.resolve().name, licences=licences, job=job, plots=names
    )
    for name, content in zip(names, plots.values(), strict=True):
        store.replace(name, content)
    store.replace(README_NAME, sign_readme(text))
    return [README_NAME, *names]
