"""The one way to export: a target's file appears as a whole, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from labelstore.dataset import LabelDataset
from labelstore.export.axolotl_kd import AxolotlKdTarget
from labelstore.export.chat_jsonl import ChatJsonlTarget
from labelstore.local_files import LocalFile, make_folders, remove, rename
from labelstore.record import LabelRecord

__all__ = ["EXPORT_TARGETS", "ExportSummary", "ExportTarget", "export_dataset"]


class ExportTarget(Protocol):
    """The layout of another tool."""

    @property
    def name(self) -> str: ...
    def write(self, records: Iterator[LabelRecord], dataset: LabelDataset, path: Path, /) -> Mapping[str, int]:
        """Write the records to a file; return why some were left out, and how many."""

    def losses(self, dataset: LabelDataset, /) -> list[str]:
        """Return what of the dataset the layout has no place for, a sentence each."""


EXPORT_TARGETS: dict[str, ExportTarget] = {target.name: target for target in (ChatJsonlTarget(), AxolotlKdTarget())}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What an export came to."""

    path: Path
    target: str
    num_records: int  # written
    num_bytes: int
    left_out: Mapping[str, int]  # why records are not in the file, and how many
    losses: tuple[str, ...]  # what of the dataset the layout has no place for


def export_dataset(
    dataset: LabelDataset, path: Path, *, target: str, on_records: Callable[[int], None] = lambda done: None
) -> ExportSummary:
    """Write a dataset as one file of another layout; `on_records` is told how many records have been read.

    Raises:
        ValueError: there is no such target, or the path is taken.
        DamagedDatasetError: a shard is damaged; no file is written.
    """
    if target not in EXPORT_TARGETS:
        raise ValueError(f"--to must be one of {', '.join(EXPORT_TARGETS)}, got {target!r}")
    layout = EXPORT_TARGETS[target]
    with _new_file(path) as unfinished_path:
        left_out = layout.write(_counted(dataset, on_records), dataset, unfinished_path)
    return ExportSummary(
        path=path,
        target=target,
        num_records=len(dataset) - sum(left_out.values()),
        num_bytes=path.stat().st_size,
        left_out=left_out,
        losses=tuple(layout.losses(dataset)),
    )


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; the file gets its name when it is complete and on disk.

    Raises:
        ValueError: the name is taken.
    """
    if path.exists():
        raise ValueError(f"-o {path}: is there already; give a path that is free")
    make_folders(path.parent)
    unfinished_path = path.with_name(f"{path.name}.unfinished")
    try:
        yield unfinished_path
        with LocalFile(unfinished_path, "rb+") as file:
            file.sync()
        rename(unfinished_path, path)
    finally:
        remove(unfinished_path)


def _counted(dataset: LabelDataset, on_records: Callable[[int], None]) -> Iterator[LabelRecord]:
    for number, record in enumerate(dataset, start=1):
        yield record
        on_records(number)
