"""What storing costs in fidelity: the codec's loss and the selection's loss, which are never mixed up.

All are Kullback-Leibler divergences in nats, one for each of N labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.labels import Labels

__all__ = ["Spread", "codec_kl", "draw_kl", "top1_agrees", "truncation_kl"]

# A tail that a codec rounds to nothing is counted as this, half a step of float32 below 1; else the KL were infinite.
_SMALLEST_TAIL = 2.0**-24


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Of a loss over all labels, in nats."""

    mean: float
    p999: float
    worst: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Spread:
        return cls(mean=float(values.mean()), p999=float(np.quantile(values, 0.999)), worst=float(values.max()))


def codec_kl(original: Labels, decoded: Labels) -> NDArray[np.float64]:
    """Return KL(kept distribution || decoded distribution) [N], the tail being one more outcome of both.

    Candidates are matched by id, in whatever order they are decoded. Both sides are renormalized.

    Raises:
        ValueError: the labels hold other ids, which no codec may change.
    """
    ids, decoded_ids = original.token_ids.reshape(-1), decoded.token_ids.reshape(-1)
    logprobs = original.logprobs.reshape(-1).astype(np.float64)
    decoded_logprobs = decoded.logprobs.reshape(-1).astype(np.float64)
    has_same_counts = np.array_equal(original.candidate_offsets, decoded.candidate_offsets)
    if not (has_same_counts and np.array_equal(ids, decoded_ids)):
        ours, theirs = _by_id(original), _by_id(decoded)
        if not (has_same_counts and np.array_equal(ids[ours], decoded_ids[theirs])):
            raise ValueError("the decoded labels hold other ids than the original ones")
        decoded_logprobs[ours] = decoded_logprobs[theirs]  # in the original's order
    tail = original.tail_mass.astype(np.float64)
    decoded_tail = decoded.tail_mass.astype(np.float64)
    has_tail = tail > 0
    decoded_tail[has_tail] = np.maximum(decoded_tail[has_tail], _SMALLEST_TAIL)

    def by_label(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return _sum_by_label(original, values)

    probabilities = np.exp(logprobs)
    total = by_label(probabilities) + tail
    decoded_total = by_label(np.exp(decoded_logprobs)) + decoded_tail
    sums = by_label(probabilities * (logprobs - decoded_logprobs))
    sums[has_tail] += tail[has_tail] * np.log(tail[has_tail] / decoded_tail[has_tail])
    divergence: NDArray[np.float64] = sums / total + np.log(decoded_total / total)
    divergence[divergence < 0] = 0  # by rounding only
    return divergence


def truncation_kl(labels: Labels) -> NDArray[np.float64]:
    """Return KL(renormalized candidates || full distribution) [N], which is -ln(kept mass)."""
    divergence: NDArray[np.float64] = -np.log(np.minimum(labels.kept_mass, 1.0))
    return divergence


def draw_kl(labels: Labels) -> NDArray[np.float64]:
    """Return KL(shares of the draws || full distribution) [N]: the noise of one label, unbiased over many.

    Raises:
        ValueError: nothing was drawn.
    """
    if labels.draw_counts is None:
        raise ValueError("the labels hold no draws")
    counts = labels.draw_counts.astype(np.float64)
    shares = counts / _sum_by_label(labels, counts)[labels.candidate_positions()]
    return _sum_by_label(labels, shares * (np.log(shares) - labels.logprobs.reshape(-1)))


def top1_agrees(original: Labels, decoded: Labels) -> NDArray[np.bool_]:
    """Return whether each label's first candidate [N] is one of the teacher's most likely; equals are as good."""
    starts = original.candidate_offsets[:-1]
    best = np.maximum.reduceat(original.logprobs.reshape(-1), starts)
    first = decoded.token_ids.reshape(-1)[decoded.candidate_offsets[:-1]]
    label_of = original.candidate_positions()
    is_first = original.token_ids.reshape(-1) == first[label_of]
    is_best = original.logprobs.reshape(-1) == best[label_of]
    agrees: NDArray[np.bool_] = np.bincount(label_of[is_first & is_best], minlength=len(original)) > 0
    return agrees


def _sum_by_label(labels: Labels, values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.bincount(labels.candidate_positions(), weights=values, minlength=len(labels)).astype(np.float64)


def _by_id(labels: Labels) -> NDArray[np.int64]:
    order: NDArray[np.int64] = np.lexsort((labels.token_ids.reshape(-1), labels.candidate_positions()))
    return order
