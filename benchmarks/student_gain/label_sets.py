"""The datasets that students read, cut from what the storage benchmark captured of a teacher."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import labelgen
from labelgen.storage_benchmark.capture import Capture
from labelgen.storage_benchmark.coding import MODEL_LABELS
from labelgen.storage_benchmark.measure import Workload
from labelstore.codecs import codec_named
from labelstore.convert import SilentWatcher, convert_datasets
from labelstore.dataset import LabelDataset, open_dataset
from labelstore.dataset_writer import DatasetWriter
from labelstore.header import Header
from labelstore.manifest import MANIFEST_NAME
from labelstore.record import LabelRecord
from labelstore.selection import Selection
from labelstore.stream_bytes import sum_streams
from student_gain.methods import Method

__all__ = ["HELD_OUT", "LabelSets", "bytes_per_label", "read_captures"]

HELD_OUT = Selection(top_k=4)  # the teacher's full distribution is what counts there; see FullTeacher


class LabelSets:
    """Datasets with labels of the same records, one for each selection and codec; made when they are asked for."""

    def __init__(self, folder: Path, captured: Workload) -> None:
        self._folder = folder
        self._captured = captured

    def to_train(self, method: Method) -> LabelDataset:
        """Return the dataset that a method's students read."""
        exact = self._written(self._captured.train, method.selection, name=f"train-{method.dataset_name}-source")
        root = self._folder / f"train-{method.dataset_name}"
        # Run again, a conversion goes on, and a finished one changes nothing.
        convert_datasets(
            [str(exact)],
            root,
            codec=method.codec,
            labelgen_version=labelgen.__version__,
            watcher=SilentWatcher(),
        )
        return open_dataset(root)

    def held_out(self, *, num_records: int) -> LabelDataset:
        """Return a dataset of held-out records."""
        records = self._captured.test[:num_records]
        return open_dataset(self._written(records, HELD_OUT, name=f"held-out-{len(records)}"))

    def _written(self, records: Sequence[LabelRecord], selection: Selection, *, name: str) -> Path:
        """Write records cut to a selection, exactly, where that is not done yet; return the folder."""
        root = self._folder / name
        if not (root / MANIFEST_NAME).exists():
            shutil.rmtree(root, ignore_errors=True)
            cut = dataclasses.replace(self._captured, train=records, test=()).cut(selection)
            writer = DatasetWriter(root, cut.header, codec=codec_named("exact"))
            writer.publish_block("000000", cut.train, num_prompts=len(cut.train), num_rejected=0, recorded={})
            writer.finish()
        return root


def read_captures(folder: Path, kinds: Sequence[str]) -> Workload:
    """Return the captured labels of some kinds of text by one teacher, kinds mixed.

    Raises:
        ValueError: a kind was not captured, or kinds are of different teachers.
    """
    parts = []
    for kind in kinds:
        capture = Capture(teacher=folder.name, kind=kind, path=folder / kind)
        if not (capture.path / MANIFEST_NAME).exists():
            raise ValueError(f"{capture.path}: there are no labels; `make bench-storage` captures them")
        parts.append(Workload.of(capture))
    first: Header = parts[0].header
    for part in parts:
        if part.header.fingerprint != first.fingerprint:
            raise ValueError(f"the labels of {part.kind} and {parts[0].kind} have different fingerprints: take one")
    return dataclasses.replace(
        parts[0],
        kind=" + ".join(kinds),
        train=_mixed([part.train for part in parts]),
        test=_mixed([part.test for part in parts]),
    )


def bytes_per_label(dataset: LabelDataset) -> dict[str, float]:
    """Return the bytes a label on disk: of the hard columns, and of the soft labels.

    A codec's model, which a shard has once, is spread over a million labels, as it is in a dataset of some size.
    """
    streams = sum_streams(shard.stream_bytes for entry in dataset.entries for shard in entry.shards)
    num_labels = dataset.num_labels
    soft = sum(size for stream, size in streams.items() if stream not in ("hard", "model"))
    model = streams["model"] / max(num_labels, MODEL_LABELS)
    return {"hard": streams["hard"] / num_labels, "soft": soft / num_labels + model}


def _mixed(parts: Sequence[Sequence[LabelRecord]]) -> list[LabelRecord]:
    """Return the records of all parts, taken in turn."""
    longest = max(map(len, parts))
    return [part[place] for place in range(longest) for part in parts if place < len(part)]
