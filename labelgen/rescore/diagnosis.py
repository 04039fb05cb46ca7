"""Why are stored labels not the teacher's? Each explanation is tried on the labels themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from labelgen.rescore.agreement import Agreement
from labelgen.rescore.comparison import Candidates, match_candidates
from labelgen.rescore.reading import Reading

__all__ = ["diagnose_labels"]

_SHIFTS = (1, -1)
_MIN_LABELS = 8
_SCALE_SPREAD = 0.1  # of the slopes' middle half around their median; noise or another model scatter more
_MIN_SCALE_CHANGE = 0.02
_EXPLAINED = 0.1  # an explanation leaves this share of the differences at most
_SURE_LOGPROB_NATS = 0.25  # candidates that a codec has left unsure by more say nothing about a slope
_ROUNDING_NATS = _SURE_LOGPROB_NATS / 4  # root mean square of what rounding leaves unsure
_PRECISION_KL_NATS = 0.05  # a whole model in bfloat16 instead of float32: 2.3e-3 (SmolLM2 135M)
_PRECISION_ARGMAX_SHARE = 0.1


def diagnose_labels(agreement: Agreement) -> str | None:
    """Return what explains the differences best, in one sentence; None where there are none."""
    if agreement.agrees:
        return None
    readings = agreement.disagreeing or ()
    if readings:
        where = f"{len(readings)} of {agreement.num_records} records"
        if (shift := _find_shift(readings, agreement)) is not None:
            return f"the labels of {where} are shifted by {shift:+d}: each stands {_place(shift)} the token it is about"
        if (temperature := _find_temperature(readings, agreement)) is not None:
            if abs(temperature - 1) < _MIN_SCALE_CHANGE:
                return f"the log-probabilities of {where} are normalized otherwise: taken after top-p, top-k or a bias"
            return f"the log-probabilities of {where} are those of another temperature, {temperature:.2f}"
    share = agreement.num_argmax_different / max(agreement.num_labels, 1)
    figures = f"KL {agreement.kl_nats:.2g} nats, {share:.1%} of the most likely tokens differ"
    if agreement.kl_nats < _PRECISION_KL_NATS and share < _PRECISION_ARGMAX_SHARE:
        return f"another precision: the labels are near the teacher's, but beyond its noise ({figures})"
    return f"another model, or the labels of other records: they are not near the teacher's ({figures})"


def _place(shift: int) -> str:
    return "one after" if shift > 0 else "one before"


def _find_shift(readings: Sequence[Reading], agreement: Agreement) -> int | None:
    unshifted = _median_difference(readings, 0)
    for shift in _SHIFTS:
        median = _median_difference(readings, shift)
        if median is not None and unshifted is not None and median <= max(agreement.limits.p999_nats, 0.01 * unshifted):
            return shift
    return None


def _median_difference(readings: Sequence[Reading], shift: int) -> float | None:
    differences = np.concatenate([reading.compare(shift, with_targets=False).differences for reading in readings])
    return float(np.median(differences)) if len(differences) >= _MIN_LABELS else None


def _find_temperature(readings: Sequence[Reading], agreement: Agreement) -> float | None:
    """Return T where each label's stored logprobs are its logits / T, normalized anew; None where they are not."""
    scales, rests, sizes = (
        np.concatenate(parts) for parts in zip(*(_fit(reading) for reading in readings), strict=True)
    )
    if len(scales) < _MIN_LABELS:
        return None
    scale = float(np.median(scales))
    low, high = np.quantile(scales, [0.25, 0.75])
    rest, size = float(np.median(rests)), float(np.median(sizes))
    is_explained = rest <= max(_EXPLAINED * size, agreement.limits.p999_nats)
    if any(reading.tolerance is not None for reading in readings):  # the codec's rounding is left over, too
        is_explained = is_explained or rest <= min(_ROUNDING_NATS, size / 2)
    if scale <= 0 or high - low > _SCALE_SPREAD * scale or not is_explained:
        return None
    return 1 / scale


def _fit(reading: Reading) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Fit stored = scale * again + offset in each label by least squares.

    Returns, for labels with at least three common candidates that the codec leaves sure: the scale, how far the fit is
    off (root mean square, nats), and how far the values themselves are off.
    """
    stored_rows, again_rows = reading.rows()
    left = Candidates.of(reading.record.labels, stored_rows)
    right = Candidates.of(reading.again, again_rows)
    matches = match_candidates(left, right)
    pair, y, x = left.pair[matches.stored], left.logprobs[matches.stored], right.logprobs[matches.again]
    if reading.tolerance is not None:
        is_sure = 4 * reading.tolerance[stored_rows][pair] <= _SURE_LOGPROB_NATS * np.exp(y / 2)
        pair, y, x = pair[is_sure], y[is_sure], x[is_sure]

    def by_label(weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        return np.bincount(pair, weights, minlength=left.num_pairs).astype(np.float64)

    counts = np.maximum(by_label(), 1)
    centred_x, centred_y = x - (by_label(x) / counts)[pair], y - (by_label(y) / counts)[pair]
    spread = by_label(centred_x**2)
    is_usable = (counts >= 3) & (spread > 1e-3)
    scale = by_label(centred_x * centred_y) / np.where(is_usable, spread, 1)
    rest = np.sqrt(by_label((centred_y - scale[pair] * centred_x) ** 2) / counts)
    size = np.sqrt(by_label((y - x) ** 2) / counts)
    return scale[is_usable], rest[is_usable], size[is_usable]
