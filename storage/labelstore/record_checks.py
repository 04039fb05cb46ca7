"""What must hold of a record's values beyond their shapes: checked when a record is written, and again by verify.

N labels, K the most candidates that any of them has.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from labelstore.labels import Labels
from labelstore.record import LabelRecord

__all__ = ["TARGET_TOLERANCE_NATS", "find_problems"]

# How far kept mass + tail mass may be from 1. A float32 softmax over 262,144 rows sums to 1 within 2e-6 (measured,
# Gemma 3 270M); the sum is clipped at 1, so the excess shows here.
MASS_TOLERANCE = 1e-5
# A target's logprob is the same number as its candidate's: both come from one float32 row.
TARGET_TOLERANCE_NATS = 1e-6


def find_problems(
    record: LabelRecord, *, vocab_size: int, tolerance: NDArray[np.float64] | None = None
) -> Iterator[str]:
    """Yield what is wrong with a record's values, one line each, naming the position in input_ids.

    `tolerance` [N] is what the record's codec may have moved the square root of a probability by; None: nothing.
    """
    labels, positions = record.labels, record.positions
    token_ids, logprobs = _padded(labels)
    if len(record.input_ids) and (highest := int(record.input_ids.max())) >= vocab_size:
        yield f"input_ids hold {highest}, the teacher has {vocab_size} rows"
    if (n := _first(_any(token_ids >= vocab_size))) is not None:
        yield f"position {positions[n]}: a candidate's id is not below the teacher's {vocab_size} rows"
    in_order = np.sort(token_ids, axis=1)
    if (n := _first(_any(in_order[:, 1:] == in_order[:, :-1]))) is not None:
        yield f"position {positions[n]}: a candidate's id stands there twice"
    masses = _exact_mass(labels)
    if (n := _first(np.abs(masses + labels.tail_mass - 1) > MASS_TOLERANCE)) is not None:
        yield f"position {positions[n]}: kept mass {masses[n]:.6f} and tail mass {labels.tail_mass[n]:.6f} are not 1"
    yield from _find_target_problems(record, token_ids, logprobs, tolerance)


def _find_target_problems(
    record: LabelRecord,
    token_ids: NDArray[np.int32],
    logprobs: NDArray[np.float32],
    tolerance: NDArray[np.float64] | None,
) -> Iterator[str]:
    """Compare each target's own logprob and rank with the candidates; ties may be ordered either way."""
    positions, targets, labels = record.positions, record.target_ids, record.labels
    own, ranks = labels.target_logprobs, labels.target_ranks
    last = _last_logprobs(labels)
    # Where a codec bounds the error of sqrt(p), its roots are compared; else the logprobs themselves, in nats.
    slack: NDArray[np.float64] | float = TARGET_TOLERANCE_NATS
    values, wanted = logprobs.astype(np.float64), own.astype(np.float64)
    if tolerance is not None:
        slack = 2 * tolerance  # of the candidate, and of the target
        values, wanted, last = np.exp(values / 2), np.exp(wanted / 2), np.exp(last / 2)
    low, high = wanted - slack, wanted + slack

    is_target = token_ids == targets[:, None]
    is_bad = is_target & ((values < low[:, None]) | (values > high[:, None]))
    if (n := _first(_any(is_bad))) is not None:
        yield (
            f"position {positions[n]}: the target {targets[n]} has logprob {own[n]:.6f}, "
            f"its candidate {logprobs[n][is_bad[n]][0]:.6f}"
        )
    if labels.draw_counts is not None:
        return  # drawn candidates say nothing about ranks

    # A rank is above the number of candidates that are surely likelier. Where the target is surely likelier than the
    # last candidate, no equal of it was cut off, so that the candidates bound it from above too.
    above = (values > high[:, None]).sum(axis=1)
    at_least = (values >= low[:, None]).sum(axis=1)
    is_inside = low > last  # so it must be one of them
    if (n := _first(is_inside & ~_any(is_target))) is not None:
        yield f"position {positions[n]}: the target {targets[n]} is likelier than a candidate, but is not one of them"
    if (n := _first((ranks <= above) | (is_inside & (ranks > at_least)))) is not None:
        yield (
            f"position {positions[n]}: the target {targets[n]} has rank {ranks[n]}, "
            f"but {int(above[n])} candidates are likelier and {int(at_least[n])} at least as likely"
        )


def _padded(labels: Labels) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return ids and logprobs as [N, K]; where a label has fewer candidates, ids of their own and -inf follow."""
    if labels.token_ids.ndim == 2:
        return labels.token_ids, labels.logprobs
    counts = np.diff(labels.candidate_offsets)
    width = int(counts.max(initial=0))
    is_there = np.arange(width)[None, :] < counts[:, None]
    token_ids = np.tile(-1 - np.arange(width, dtype=np.int32), (len(counts), 1))
    logprobs = np.full(token_ids.shape, -np.inf, dtype=np.float32)
    token_ids[is_there], logprobs[is_there] = labels.token_ids, labels.logprobs
    return token_ids, logprobs


def _exact_mass(labels: Labels) -> NDArray[np.float64]:
    """Return what 1 - tail_mass must be [N]: the candidates' mass, or beside draws that of the exact head alone."""
    if labels.draw_counts is None or not (is_head := labels.draw_counts == 0).any():
        return labels.kept_mass
    weights = np.where(is_head, np.exp(labels.logprobs.reshape(-1).astype(np.float64)), 0.0)
    return np.bincount(labels.candidate_positions(), weights, minlength=len(labels)).astype(np.float64)


def _last_logprobs(labels: Labels) -> NDArray[np.float64]:
    """Return the least likely candidate's logprob [N]; infinity where a label has none."""
    last = np.full(len(labels), np.inf)
    is_filled = np.diff(labels.candidate_offsets) > 0
    last[is_filled] = labels.logprobs.reshape(-1)[labels.candidate_offsets[1:][is_filled] - 1]
    return last


def _any(by_candidate: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for each label whether it holds of any candidate: [N, K] -> [N]."""
    return np.asarray(by_candidate.any(axis=1))


def _first(is_bad: NDArray[np.bool_]) -> int | None:
    return int(np.argmax(is_bad)) if is_bad.any() else None
