"""How good a student is on text that it never saw, and how fast labels are read."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from labelstore.dataset import LabelDataset
from labelstore.student_checks import StudentTokenizer
from labelstore.torch import BatchStream, PaddingCollator
from student_gain.full_teacher import FullTeacher

__all__ = ["HeldOut", "Quality", "read_seconds"]

_NUM_BINS = 15  # of confidence, as usual for the expected calibration error
_NUM_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Means over held-out labels."""

    kl_nats: float  # KL(teacher || student) over the whole vocabulary
    loss_nats: float  # -ln of the student's probability of the token that stands there
    calibration_error: float  # |confidence in the likeliest token - how often it stands there|, mean over bins
    top1_agreement: float  # how often student and teacher have the same likeliest token


class HeldOut:
    """Held-out labels with what the teacher believes of each: 4 V bytes of memory a label."""

    def __init__(
        self, dataset: LabelDataset, teacher: FullTeacher, *, tokenizer: StudentTokenizer, max_length: int
    ) -> None:
        """Ask the teacher once; it has read the dataset's records."""
        collate = PaddingCollator(dataset, tokenizer=tokenizer, model=dataset.header.vocab_size, max_length=max_length)
        stream = BatchStream(dataset, collate, batch_size=1, seed=None)
        self._batches = [(batch, teacher.logits(batch).log_softmax(1)) for batch in stream]

    @property
    def num_labels(self) -> int:
        return sum(len(batch.soft) for batch, _ in self._batches)

    def judge(self, model: Any) -> Quality:
        """Compare a student with the teacher; None is the teacher itself."""
        found: dict[str, list[torch.Tensor]] = {"kl": [], "loss": [], "confidence": [], "is_right": [], "agrees": []}
        with torch.inference_mode():
            for batch, full in self._batches:
                student = full
                if model is not None:
                    student = model(**batch.model_inputs()).logits.flatten(0, 1)[batch.soft.rows].log_softmax(1)
                targets = batch.soft.target_ids
                confidence, choice = student.max(1)
                found["kl"].append((full.exp() * (full - student)).sum(1))
                found["loss"].append(-student.gather(1, targets[:, None]).squeeze(1))
                found["confidence"].append(confidence.exp())
                found["is_right"].append((choice == targets).float())
                found["agrees"].append((choice == full.argmax(1)).float())
        values = {name: torch.cat(parts).double() for name, parts in found.items()}
        return Quality(
            kl_nats=values["kl"].mean().item(),
            loss_nats=values["loss"].mean().item(),
            calibration_error=_calibration_error(values["confidence"], values["is_right"]),
            top1_agreement=values["agrees"].mean().item(),
        )


def read_seconds(dataset: LabelDataset, *, tokenizer: StudentTokenizer, max_length: int) -> float:
    """Return the processor seconds a label of one shuffled pass, to batches; the least of some rounds."""
    collate = PaddingCollator(dataset, tokenizer=tokenizer, model=dataset.header.vocab_size, max_length=max_length)
    stream = BatchStream(dataset, collate, batch_size=8)
    seconds = []
    for _ in range(_NUM_ROUNDS):
        start = time.process_time()
        num_labels = sum(len(batch.soft) for batch in stream)
        seconds.append((time.process_time() - start) / num_labels)
    return min(seconds)


def _calibration_error(confidence: torch.Tensor, is_right: torch.Tensor) -> float:
    """Return the expected calibration error of Guo et al., 2017 (arXiv 1706.04599), in bins of equal width."""
    bins = (confidence * _NUM_BINS).long().clamp_max(_NUM_BINS - 1)
    gaps = torch.zeros(_NUM_BINS, dtype=confidence.dtype).scatter_add_(0, bins, confidence - is_right)
    return (gaps.abs().sum() / len(confidence)).item()
