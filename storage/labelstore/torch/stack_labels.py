"""Stacks the labels of some records into tensors.

N labels of a record, C candidates of a record; P labels and at most K candidates of a label in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from labelstore.record import SPAN_KINDS, LabelRecord
from labelstore.selection import Selection
from labelstore.torch.soft_labels import SoftLabels

__all__ = ["stack_labels"]

Scalar = TypeVar("Scalar", bound=np.generic)


def stack_labels(
    records: Sequence[LabelRecord],
    *,
    starts: Sequence[int],
    lengths: Sequence[int],
    selection: Selection,
    vocab_size: int,
) -> SoftLabels:
    """Return the labels of records of which `lengths` tokens each stand at `starts` in the flattened batch.

    Labels beyond these tokens are left out. So are candidates with ids from `vocab_size` on, the rows that the teacher
    has more than the student; what they weigh becomes part of the tail.

    Raises:
        ValueError: a target's id is not below vocab_size.
    """
    positions = [record.positions for record in records]
    counts = [int(np.searchsorted(part, length)) for part, length in zip(positions, lengths, strict=True)]
    taken = list(zip(records, positions, counts, strict=True))
    rows = [part[:count] + (start - 1) for (_, part, count), start in zip(taken, starts, strict=True)]
    target_ids = [record.input_ids[part[:count]] for record, part, count in taken]
    flat = [(record, int(record.candidate_offsets[count])) for record, _, count in taken]
    by_label = _Slots(records, counts)
    token_ids = by_label.fill([record.token_ids.reshape(-1)[:stop] for record, stop in flat], -1)
    logprobs = by_label.fill([record.logprobs.reshape(-1)[:stop] for record, stop in flat], -np.inf)
    draw_counts = None
    if selection.draws is not None:
        draw_counts = by_label.fill([_present(record.draw_counts, record)[:stop] for record, stop in flat], 0)
    tail_mass = np.concatenate([record.tail_mass[:count] for record, _, count in taken])
    targets = np.concatenate(target_ids).astype(np.int64)
    if len(targets) and targets.max() >= vocab_size:
        bad = next(record for (record, _, _), ids in zip(taken, target_ids, strict=True) if (ids >= vocab_size).any())
        raise ValueError(f"record {bad.record_id}: has the target {targets.max()}, and the student {vocab_size} rows")
    is_beyond = token_ids >= vocab_size
    if is_beyond.any():
        tail_mass = _with_lost(
            tail_mass, logprobs, is_beyond if draw_counts is None else is_beyond & (draw_counts == 0)
        )
        token_ids[is_beyond], logprobs[is_beyond] = -1, -np.inf
        if draw_counts is not None:
            draw_counts[is_beyond] = 0
    entropy = None
    if selection.entropy:
        entropy = np.concatenate([_present(record.entropy, record)[:count] for record, _, count in taken])
    return SoftLabels(
        rows=torch.from_numpy(np.concatenate(rows)),
        target_ids=torch.from_numpy(targets),
        token_ids=torch.from_numpy(token_ids),
        logprobs=torch.from_numpy(logprobs),
        tail_mass=torch.from_numpy(tail_mass),
        span_kinds=torch.from_numpy(_kinds(taken)),
        draw_counts=None if draw_counts is None else torch.from_numpy(draw_counts),
        entropy=None if entropy is None else torch.from_numpy(entropy),
        selection=selection,
        vocab_size=vocab_size,
    )


class _Slots:
    """Where the candidates of the first `counts` labels of records go in arrays [P, K]."""

    def __init__(self, records: Sequence[LabelRecord], counts: Sequence[int]) -> None:
        labels = [(record.labels, count) for record, count in zip(records, counts, strict=True) if count]
        widths = {part.token_ids.shape[1] if part.token_ids.ndim == 2 else None for part, _ in labels}
        self._is_filled: NDArray[np.bool_] | None = None
        if len(widths) == 1 and (width := widths.pop()) is not None:  # the common case: K is constant
            self._shape = (sum(counts), width)
            return
        sizes = np.concatenate(
            [np.zeros(0, np.int64), *(np.diff(part.candidate_offsets[: n + 1]) for part, n in labels)]
        )
        self._shape = (len(sizes), int(sizes.max(initial=0)))
        self._is_filled = np.arange(self._shape[1]) < sizes[:, None]

    def fill(self, parts: Sequence[NDArray[Scalar]], padding: Any) -> NDArray[Scalar]:
        """Return [P, K] of flat candidates, in order."""
        values: NDArray[Scalar] = np.concatenate(parts)
        if self._is_filled is None:
            whole: NDArray[Scalar] = values.reshape(self._shape)
            return whole
        slots: NDArray[Scalar] = np.full(self._shape, padding, dtype=values.dtype)
        slots[self._is_filled] = values
        return slots


def _with_lost(
    tail_mass: NDArray[np.float32], logprobs: NDArray[np.float32], is_lost: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the tail masses with what lost candidates weighed; drawn ones are part of their tail already."""
    lost = np.where(is_lost, np.exp(logprobs.astype(np.float64)), 0.0).sum(axis=1)
    whole: NDArray[np.float32] = np.minimum(tail_mass + lost, 1.0).astype(np.float32)
    return whole


def _kinds(taken: Sequence[tuple[LabelRecord, NDArray[np.int64], int]]) -> NDArray[np.int64]:
    """Return what span each label stands in [P], as a place in SPAN_KINDS."""
    codes = []
    for record, positions, count in taken:
        of_spans = np.array([SPAN_KINDS.index(kind) for kind in record.span_kinds], dtype=np.int64)
        codes.append(of_spans[np.searchsorted(record.spans[:, 0], positions[:count], side="right") - 1])
    return np.concatenate(codes)


def _present(values: NDArray[Scalar] | None, record: LabelRecord) -> NDArray[Scalar]:
    if values is None:
        raise ValueError(f"record {record.record_id}: lacks what the dataset's selection says is kept of each label")
    return values.reshape(-1)
