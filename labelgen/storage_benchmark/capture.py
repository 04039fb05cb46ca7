"""Labels the texts once for each teacher, kind of text and precision; all that is measured is cut from these captures.

A capture is an ordinary dataset, codec `open`, whose records keep their document's split. Its selection is the head of
256 and 50 draws from the tail, of which every smaller selection follows (see cutting.py). A capture that is there and
finished is used as it is; delete its folder to make it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import labelgen
from labelgen.job.spec import RunSpec
from labelgen.prompts.prompt_fields import PromptFields, Task
from labelgen.storage_benchmark.texts import Document, Split
from labelgen.teachers.sampling import SamplingChoice
from labelgen.teachers.teacher import Teacher
from labelstore.dataset import open_dataset
from labelstore.manifest import MANIFEST_NAME
from labelstore.record import LabelRecord
from labelstore.selection import Selection

__all__ = ["CAPTURED", "Capture", "LabelsWanted", "capture_chats", "capture_texts", "read_capture"]

CAPTURED = Selection(top_k=256, draws=50)
MAX_MODEL_LEN = 2_048  # tokens; a document has about 1,000
_BLOCK_SIZE = 32  # documents; a killed capture goes on with the block that it was at
_ANSWER_TOKENS = 256
_TEMPERATURE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsWanted:
    """How many labels of a kind are captured, about."""

    test: int = 25_000
    train: int = 40_000

    def of(self, split: Split) -> int:
        return self.test if split == "test" else self.train


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """Where the labels of one kind of text by one teacher are."""

    teacher: str
    kind: str
    path: Path  # of the dataset

    @property
    def is_complete(self) -> bool:
        return (self.path / MANIFEST_NAME).exists() and open_dataset(self.path).num_labels > 0


def capture_texts(
    capture: Capture, documents: Sequence[Document], *, teacher: Callable[[], Teacher], wanted: LabelsWanted
) -> None:
    """Let the teacher read documents until there are as many labels as wanted. `teacher` is called only if needed."""
    if capture.is_complete:
        return
    reader = teacher()
    kept: list[Document] = []
    num_labels: dict[Split, int] = {"test": 0, "train": 0}
    for document in documents:
        if num_labels[document.split] < wanted.of(document.split):
            num_labels[document.split] += len(reader.tokenizer.encode_text(document.text, with_special_tokens=False))
            kept.append(document)
    if not all(num_labels.values()):
        raise ValueError(
            f"the {len(documents)} documents of the kind {capture.kind} must give labels to test and labels to train "
            f"on, and gave {num_labels}; take more documents"
        )
    rows = [{"id": one.name, "text": one.text, "split": one.split} for one in kept]
    _run(capture, rows, task="score", teacher=reader)


def capture_chats(
    capture: Capture, prompts: Iterable[Document], *, teacher: Callable[[], Teacher], wanted: LabelsWanted
) -> None:
    """Let the teacher answer chats, and keep its labels of its own answers. `teacher` is called only if needed."""
    if capture.is_complete:
        return
    mean_tokens = 0.8 * _ANSWER_TOKENS  # of an answer (SmolLM2)
    rows: list[dict[str, object]] = []
    num_labels: dict[Split, float] = {"test": 0, "train": 0}
    for prompt in prompts:
        if num_labels[prompt.split] < wanted.of(prompt.split):
            num_labels[prompt.split] += mean_tokens
            messages = [{"role": "user", "content": prompt.text}]
            rows.append({"id": prompt.name, "messages": messages, "split": prompt.split})
    _run(capture, rows, task="generate", teacher=teacher())


def read_capture(capture: Capture) -> dict[Split, list[LabelRecord]]:
    """Return a capture's records by split."""
    records: dict[Split, list[LabelRecord]] = {"test": [], "train": []}
    for record in open_dataset(capture.path):
        split: Split = "test" if record.kept["split"] == "test" else "train"
        records[split].append(record)
    return records


def _run(capture: Capture, rows: Sequence[Mapping[str, object]], *, task: Task, teacher: Teacher) -> None:
    source = capture.path.parent / f"{capture.kind}.jsonl"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = RunSpec(
        task=task,
        sources=(str(source),),
        output_dir=capture.path,
        teacher=capture.teacher,
        selection=CAPTURED,
        codec="open",
        fields=PromptFields(columns=("split",)),
        block_size=_BLOCK_SIZE,
        sampling=SamplingChoice(temperature=_TEMPERATURE) if task == "generate" else SamplingChoice(),
        max_tokens=_ANSWER_TOKENS,
        rescore_at_end=0,
    )
    summary = labelgen.run(spec, teacher=teacher)
    if summary.num_rejected:
        raise ValueError(
            f"{summary.num_rejected} of {len(rows)} texts of the kind {capture.kind} gave no labels; the reasons are "
            f"in {capture.path}/.labelgen/rejected/. Delete {capture.path} before the next try"
        )
