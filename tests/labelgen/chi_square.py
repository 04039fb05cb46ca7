"""Are counts draws from a distribution? Pearson's test, without scipy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["chi_square", "is_fair"]


def chi_square(counts: NDArray[np.float64], probabilities: NDArray[np.float64]) -> tuple[float, int]:
    """Return the statistic and its degrees of freedom; all tokens expected less than 5 times are one bin."""
    expected = probabilities * counts.sum()
    is_rare = expected < 5
    observed = np.append(counts[~is_rare], counts[is_rare].sum())
    expected = np.append(expected[~is_rare], max(expected[is_rare].sum(), 1e-9))
    return float(((observed - expected) ** 2 / expected).sum()), max(len(expected) - 1, 1)


def is_fair(statistic: float, degrees: int) -> bool:
    """Return whether a chi-square statistic is below its 99.99% quantile (Wilson and Hilferty's cube)."""
    return bool(statistic < degrees * (1 - 2 / (9 * degrees) + 3.72 * np.sqrt(2 / (9 * degrees))) ** 3)
