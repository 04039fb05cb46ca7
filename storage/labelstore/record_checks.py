"""What must hold of a record's values beyond their shapes: checked when a record is written, and again by verify."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from labelstore.record import LabelRecord

__all__ = ["find_problems"]

# How far kept mass + tail mass may be from 1. A float32 softmax over 262,144 rows sums to 1 within 2e-6 (measured,
# Gemma 3 270M); the sum is clipped at 1, so the excess shows here.
MASS_TOLERANCE = 1e-5
# A target's logprob is the same number as its candidate's: both come from one float32 row.
TARGET_TOLERANCE_NATS = 1e-6


def find_problems(
    record: LabelRecord, *, vocab_size: int, logprob_tolerance: float = TARGET_TOLERANCE_NATS
) -> Iterator[str]:
    """Yield what is wrong with a record's values, one line each, naming the position in input_ids.

    `logprob_tolerance` is what the record's codec may have moved a logprob by, in nats.
    """
    labels = record.labels
    token_ids = labels.token_ids.reshape(-1)
    positions, targets, label_of = record.positions, record.target_ids, labels.candidate_positions()

    def first(is_bad: NDArray[np.bool_], label: NDArray[np.int64] | None = None) -> int | None:
        if not is_bad.any():
            return None
        place = int(np.argmax(is_bad))
        return place if label is None else int(label[place])

    if len(record.input_ids) and (highest := int(record.input_ids.max())) >= vocab_size:
        yield f"input_ids hold {highest}, the teacher has {vocab_size} rows"
    if (n := first(token_ids >= vocab_size, label_of)) is not None:
        yield f"position {positions[n]}: a candidate's id is not below the teacher's {vocab_size} rows"
    order = np.lexsort((token_ids, label_of))
    is_repeat = (np.diff(token_ids[order]) == 0) & (np.diff(label_of[order]) == 0)
    if (n := first(is_repeat, label_of[order])) is not None:
        yield f"position {positions[n]}: a candidate's id stands there twice"

    masses = labels.kept_mass
    if labels.draw_counts is not None and (is_head := labels.draw_counts == 0).any():
        # Beside an exact head, the tail mass is what the head leaves; the draws lie in it.
        weights = np.where(is_head, np.exp(labels.logprobs.reshape(-1).astype(np.float64)), 0.0)
        masses = np.bincount(label_of, weights, minlength=len(labels)).astype(np.float64)
    total = masses + labels.tail_mass
    if (n := first(np.abs(total - 1) > MASS_TOLERANCE)) is not None:
        yield f"position {positions[n]}: kept mass {masses[n]:.6f} and tail mass {labels.tail_mass[n]:.6f} are not 1"

    yield from _find_target_problems(record, positions, targets, label_of, logprob_tolerance)


def _find_target_problems(
    record: LabelRecord,
    positions: NDArray[np.int64],
    targets: NDArray[np.int32],
    label_of: NDArray[np.int64],
    tolerance: float,
) -> Iterator[str]:
    """Compare each target's own logprob and rank with the candidates; ties may be ordered either way."""
    labels = record.labels
    token_ids, logprobs = labels.token_ids.reshape(-1), labels.logprobs.reshape(-1)
    num_labels = len(labels)
    target_logprobs, ranks = labels.target_logprobs, labels.target_ranks

    is_target = token_ids == targets[label_of]
    difference = np.abs(logprobs - target_logprobs[label_of])
    is_bad = is_target & (difference > tolerance)
    if is_bad.any():
        n = int(label_of[np.argmax(is_bad)])
        yield (
            f"position {positions[n]}: the target {targets[n]} has logprob {target_logprobs[n]:.6f}, "
            f"its candidate {logprobs[np.argmax(is_bad)]:.6f}"
        )
    if labels.draw_counts is not None:
        return  # drawn candidates say nothing about ranks

    # A rank is above the number of candidates that are surely likelier. Where the target is surely likelier than the
    # last candidate, no equal of it was cut off, so that the candidates bound it from above too.
    above = np.bincount(label_of, logprobs > target_logprobs[label_of] + tolerance, minlength=num_labels)
    at_least = np.bincount(label_of, logprobs >= target_logprobs[label_of] - tolerance, minlength=num_labels)
    is_kept = np.bincount(label_of, is_target, minlength=num_labels) > 0
    lowest = np.full(num_labels, np.inf)
    np.minimum.at(lowest, label_of, logprobs)
    is_inside = target_logprobs > lowest + tolerance  # surely so it must be one of them
    if (is_lost := is_inside & ~is_kept).any():
        n = int(np.argmax(is_lost))
        yield f"position {positions[n]}: the target {targets[n]} is likelier than a candidate, but is not one of them"
    is_wrong = (ranks <= above) | (is_inside & (ranks > at_least))
    if is_wrong.any():
        n = int(np.argmax(is_wrong))
        yield (
            f"position {positions[n]}: the target {targets[n]} has rank {ranks[n]}, "
            f"but {int(above[n])} candidates are likelier and {int(at_least[n])} at least as likely"
        )
