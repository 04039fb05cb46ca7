"""Do the readings of some records agree with what is stored? Figures over all labels, and the records that do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labelgen.rescore.limits import Limits
from labelgen.rescore.reading import Reading

__all__ = ["Agreement", "measure_agreement"]

_MAX_ARGMAX_SHARE = 1e-3  # of labels whose most likely token is another, beyond the noise


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Agreement:
    """What comparing readings came to."""

    num_records: int
    num_labels: int
    median_nats: float
    p999_nats: float
    largest_nats: float
    kl_nats: float
    num_argmax_equal: int
    num_argmax_tied: int
    num_argmax_different: int
    disagreeing: tuple[Reading, ...]  # whose median label is beyond what the noise explains
    limits: Limits

    @property
    def agrees(self) -> bool:
        """Whether the noise explains all differences."""
        return (
            not self.disagreeing
            and self.median_nats <= self.limits.median_nats
            and self.p999_nats <= self.limits.p999_nats
            and self.num_argmax_different <= _MAX_ARGMAX_SHARE * self.num_labels
        )


def measure_agreement(readings: Sequence[Reading], limits: Limits) -> Agreement:
    """Compare the labels of some readings. A most likely token within `limits` of the other one ties with it."""
    comparisons = [reading.compare() for reading in readings]
    differences = np.concatenate([np.zeros(0), *(comparison.differences for comparison in comparisons)])
    kls = np.concatenate([np.zeros(0), *(comparison.kls for comparison in comparisons)])
    is_equal = np.concatenate([np.zeros(0, dtype=bool), *(comparison.is_argmax_equal for comparison in comparisons)])
    gaps = np.concatenate([np.zeros(0), *(comparison.argmax_gaps for comparison in comparisons)])
    is_tied = ~is_equal & (gaps <= limits.p999_nats)
    has_labels = len(differences) > 0
    return Agreement(
        num_records=len(readings),
        num_labels=len(differences),
        median_nats=float(np.median(differences)) if has_labels else 0.0,
        p999_nats=float(np.quantile(differences, 0.999)) if has_labels else 0.0,
        largest_nats=float(differences.max(initial=0.0)),
        kl_nats=float(kls.mean()) if has_labels else 0.0,
        num_argmax_equal=int(is_equal.sum()),
        num_argmax_tied=int(is_tied.sum()),
        num_argmax_different=int((~is_equal & ~is_tied).sum()),
        disagreeing=tuple(
            reading
            for reading, comparison in zip(readings, comparisons, strict=True)
            if len(comparison.differences) and np.median(comparison.differences) > limits.p999_nats
        ),
        limits=limits,
    )
