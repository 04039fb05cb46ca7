"""Labels to plan from: of a few prompts, run once with a large K, or of a dataset that is there."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labelgen.job.progress import RunWatcher
from labelgen.job.runner import run
from labelgen.job.spec import RunSpec
from labelgen.prompts.prompt import Prompt
from labelgen.prompts.prompt_sample import PromptSample
from labelgen.prompts.sources import find_sources, read_prompts
from labelgen.teachers.teacher import Teacher
from labelstore.dataset import LabelDataset, open_dataset
from labelstore.header import Header
from labelstore.record import LabelRecord
from labelstore.selection import Selection

__all__ = ["Probe", "count_prompts", "probe_dataset", "probe_teacher"]

_MAX_RECORDS = 256
_MAX_LABELS = 50_000  # more teach nothing about sizes that is worth the minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Some records of a job, and how fast they came."""

    header: Header
    records: Sequence[LabelRecord]
    labels_per_second: float | None  # None where nothing was run

    @property
    def num_labels(self) -> int:
        return sum(len(record.labels) for record in self.records)

    def labels_per_prompt(self) -> tuple[float, float]:
        """Return how many labels a prompt gives on average, and by how much that may be off (95%)."""
        by_prompt: dict[str, int] = {}
        for record in self.records:
            by_prompt[record.prompt_id] = by_prompt.get(record.prompt_id, 0) + len(record.labels)
        counts = np.array(list(by_prompt.values()), dtype=np.float64)
        error = 1.96 * counts.std(ddof=1) / np.sqrt(len(counts)) if len(counts) > 1 else counts.mean()
        return float(counts.mean()), float(error)


def probe_teacher(
    spec: RunSpec, *, num_prompts: int, top_k: int, teacher: Teacher | None = None, watcher: RunWatcher | None = None
) -> Probe:
    """Label a fair sample of a job's prompts once, with K large, into a folder that is deleted again.

    Raises:
        ValueError, ImportError, EngineError: as `labelgen.run`.
    """
    with tempfile.TemporaryDirectory(prefix="labelgen-plan-") as folder:
        probing = dataclasses.replace(
            spec,
            output_dir=Path(folder) / "probe",
            sample=PromptSample(size=num_prompts, seed=spec.sample.seed if spec.sample else 0),
            limit=None,
            selection=Selection(top_k=top_k),
            codec="open",
            rescore_at_end=0,
        )
        summary = run(probing, teacher=teacher, watcher=watcher)
        dataset = open_dataset(probing.output_dir)
        return Probe(header=dataset.header, records=list(dataset), labels_per_second=summary.labels_per_second)


def probe_dataset(dataset: LabelDataset) -> Probe:
    """Return a fair sample of a dataset's records.

    Raises:
        ValueError: its labels have no head of one width, of which smaller selections could be cut.
    """
    selection = dataset.header.selection
    if selection.top_k is None or selection.draws is not None:
        raise ValueError(f"a plan is made from labels with --top-k alone; these have {selection}")
    records: list[LabelRecord] = []
    num_labels = 0
    for index in np.random.default_rng(0).permutation(len(dataset))[:_MAX_RECORDS]:
        records.append(dataset[int(index)])
        num_labels += len(records[-1].labels)
        if num_labels >= _MAX_LABELS:
            break
    return Probe(header=dataset.header, records=records, labels_per_second=None)


def count_prompts(spec: RunSpec) -> int:
    """Return how many prompts a job's sources have, --limit and --sample-prompts taken into account.

    Raises:
        ValueError: a source cannot be read.
    """
    sources = find_sources(spec.sources, task=spec.task, fields=spec.fields)
    num_prompts = sum(isinstance(row, Prompt) for source in sources for row in read_prompts(source))
    most = spec.limit if spec.sample is None else spec.sample.size
    return num_prompts if most is None else min(num_prompts, most)
