"""Damaged copies of records: each of the ways in which labels go wrong quietly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.full_softmax import full_softmax_labels
from labelstore.labels import Labels, top_k_labels
from labelstore.record import LabelRecord
from labelstore.selection import Selection

__all__ = ["VOCAB_SIZE", "normalized", "relabelled", "sequence", "shifted", "with_logprobs"]

VOCAB_SIZE = 300


def sequence(number: int, *, num_tokens: int = 60, first_label: int = 20) -> LabelRecord:
    """A record of a fake teacher's text, with labels that hold nothing yet."""
    rng = np.random.default_rng(number)
    input_ids = rng.integers(1, 257, num_tokens).astype(np.int32)
    return LabelRecord(
        prompt_id=f"p{number}",
        input_ids=input_ids,
        spans=np.array([[first_label, num_tokens]], dtype=np.int32),
        span_kinds=("text",),
        labels=top_k_labels(
            token_ids=np.zeros((num_tokens - first_label, 1), dtype=np.int32),
            logprobs=np.zeros((num_tokens - first_label, 1), dtype=np.float32),
            target_logprobs=np.zeros(num_tokens - first_label, dtype=np.float32),
            target_ranks=np.ones(num_tokens - first_label, dtype=np.int32),
        ),
    )


def with_logprobs(
    record: LabelRecord, logprobs: NDArray[np.float32], *, selection: Selection, seed: int = 0
) -> LabelRecord:
    """Label a record from whole distributions [N, V]."""
    labels = full_softmax_labels(logprobs, record.target_ids, selection, seed=seed)
    return replace(record, labels=labels)


def relabelled(record: LabelRecord, teacher: FakeTeacher, *, selection: Selection, seed: int = 0) -> LabelRecord:
    """Label a record as a teacher would."""
    logprobs = teacher.full_logprobs(record.input_ids)[record.positions - 1]
    return with_logprobs(record, logprobs, selection=selection, seed=seed)


def shifted(record: LabelRecord, by: int) -> LabelRecord:
    """Move labels along the sequence; those that fall off one end come in at the other."""
    labels = record.labels
    names = ("token_ids", "logprobs", "target_logprobs", "target_ranks", "tail_mass")
    moved = {name: np.roll(getattr(labels, name), by, axis=0) for name in names}
    return replace(record, labels=Labels(candidate_offsets=labels.candidate_offsets, **moved))


def normalized(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the log-probabilities of logits [N, V]."""
    wide = logits.astype(np.float64)
    wide = wide - wide.max(axis=1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(axis=1, keepdims=True)), dtype=np.float32)
