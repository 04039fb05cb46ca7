"""What a label will take on disk, guessed from committed measurements: without an engine and without a prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelstore.selection import Selection

__all__ = ["MEASUREMENTS", "Guess", "guess_bytes_per_label", "guess_truncation_kl"]

MEASUREMENTS = "benchmarks/results/storage-2026-11-24.md"
# (smallest, largest) of eleven captures there, one of them of a bfloat16 head: vocabularies of 49,152 and 262,144;
# English, German, French, Markdown, source code, chats. Bytes a label with everything, by codec and candidates.
_TOP_KS = (8, 16, 32, 64, 128, 256)
_BYTES = {
    "open": ((36.0, 46.6), (56.6, 85.5), (94.5, 162.2), (169.0, 307.0), (315.1, 595.2), (603.6, 1164.0)),
    "exact": ((35.7, 37.2), (63.0, 65.7), (116.6, 122.3), (223.5, 234.3), (435.7, 454.5), (853.5, 887.7)),
    "standard": ((11.5, 13.1), (19.4, 22.5), (34.4, 40.2), (62.9, 73.4), (116.3, 136.0), (217.6, 253.7)),
    "small": ((10.8, 12.3), (17.8, 20.9), (31.0, 36.8), (56.8, 66.7), (104.7, 122.7), (196.2, 228.7)),
}
_TRUNCATION_KL = (  # nats, by candidates
    (0.175, 0.423),
    (0.125, 0.311),
    (0.085, 0.228),
    (0.055, 0.165),
    (0.034, 0.116),
    (0.020, 0.079),
)
# Short records pay for their texts and ids with few labels, and a small dataset for its codec's model: the demo's 44
# labels a record take 93 bytes at K = 64 where long texts take 69 (benchmarks/results/demo-2026-11-24.md).
_SHORT_RECORDS = 1.4
_SHARE_OF_DISTINCT_DRAWS = (0.2, 1.0)  # 50 draws are some 12 ids; of a flat distribution, each is another


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """A range, and nothing better than a guess."""

    low: float
    high: float


def guess_bytes_per_label(selection: Selection, codec: str) -> Guess:
    """Return the range of bytes that a label takes, hard labels included.

    Raises:
        ValueError: nothing was measured of the codec.
    """
    if codec not in _BYTES:
        raise ValueError(f"--codec must be one of {', '.join(_BYTES)}, got {codec!r}")
    fewest, most = _candidates(selection)
    low, high = zip(*_BYTES[codec], strict=True)
    return Guess(low=_at(fewest, low), high=_SHORT_RECORDS * _at(most, high))


def guess_truncation_kl(selection: Selection) -> Guess | None:
    """Return the range of what leaving out the other tokens costs, in nats; None where it was not measured."""
    if selection.draws is not None or selection.keep_mass is not None:
        return None
    low, high = zip(*_TRUNCATION_KL, strict=True)
    assert selection.top_k is not None, "a selection has one of the three"
    # Straight in the logarithms of both, and so on outside.
    return Guess(low=_power_law(selection.top_k, low), high=_power_law(selection.top_k, high))


def _candidates(selection: Selection) -> tuple[float, float]:
    """Return how many candidates a label has, at least and at most."""
    if selection.keep_mass is not None:
        assert selection.min_k is not None and selection.max_k is not None, "keep_mass sets both"
        return selection.min_k, selection.max_k
    drawn = selection.draws or 0
    head = selection.top_k or 0
    return head + _SHARE_OF_DISTINCT_DRAWS[0] * drawn, head + _SHARE_OF_DISTINCT_DRAWS[1] * drawn


def _at(candidates: float, measured: tuple[float, ...]) -> float:
    """Return what is measured at a number of candidates: straight lines between, and on behind the last."""
    if candidates <= _TOP_KS[-1]:
        # A label without candidates still has its target, tail mass and share of the texts: some 4 bytes.
        return float(np.interp(candidates, (0, *_TOP_KS), (4.0, *measured)))
    slope = (measured[-1] - measured[-2]) / (_TOP_KS[-1] - _TOP_KS[-2])
    return measured[-1] + slope * (candidates - _TOP_KS[-1])


def _power_law(top_k: int, measured: tuple[float, ...]) -> float:
    slope, start = np.polyfit(np.log(_TOP_KS), np.log(measured), 1)
    return float(np.exp(start + slope * np.log(top_k)))
