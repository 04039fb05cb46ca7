"""What the students of each kind of labels came to, over all seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["FULL", "HARD", "QUALITIES", "MethodRow", "rows_of"]

HARD, FULL = "hard labels", "full distribution"
QUALITIES = ("kl_nats", "loss_nats", "calibration_error", "top1_agreement")
_FLOAT16_BYTES = 2  # how the full distribution would be stored


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRow:
    """What a kind of labels costs, and what its students came to: mean and standard deviation over seeds.

    One seed has no deviation: None.
    """

    method: str
    bytes_per_label: float  # hard columns included
    candidates_per_label: float
    read_microseconds_per_label: float | None
    mean: Mapping[str, float]
    spread: Mapping[str, float | None]
    behind_full: tuple[float, float | None] | None  # KL less that of the full distribution's student of the same seed
    share_of_gain: float | None  # 0: as hard labels, 1: as the full distribution


def rows_of(result: Mapping[str, Any]) -> list[MethodRow]:
    """Return a row for each method, in the order of the result."""
    by_method: dict[str, dict[int, Mapping[str, float]]] = {}
    for run in result["runs"]:
        by_method.setdefault(run["method"], {})[run["seed"]] = run
    means = {
        method: {name: statistics.fmean(run[name] for run in runs.values()) for name in QUALITIES}
        for method, runs in by_method.items()
    }
    hard, full = (means.get(method, {}).get("kl_nats") for method in (HARD, FULL))
    rows = []
    for method, runs in by_method.items():
        labels = result["labels"][method]
        size = labels["hard_bytes_per_label"]
        if method == FULL:
            size += _FLOAT16_BYTES * result["vocab_size"]
        elif method != HARD:
            size += labels["soft_bytes_per_label"]
        behind = None
        if full is not None and method != FULL:
            gaps = [run["kl_nats"] - by_method[FULL][seed]["kl_nats"] for seed, run in runs.items()]
            behind = statistics.fmean(gaps), _deviation(gaps)
        kl = means[method]["kl_nats"]
        rows.append(
            MethodRow(
                method=method,
                bytes_per_label=size,
                candidates_per_label=_candidates(method, result),
                read_microseconds_per_label=None if method == FULL else labels["read_microseconds_per_label"],
                mean=means[method],
                spread={name: _deviation([run[name] for run in runs.values()]) for name in QUALITIES},
                behind_full=behind,
                share_of_gain=None if hard is None or full is None else (hard - kl) / (hard - full),
            )
        )
    return rows


def _candidates(method: str, result: Mapping[str, Any]) -> float:
    if method == HARD:
        return 0.0
    if method == FULL:
        return float(result["vocab_size"])
    return float(result["labels"][method]["candidates_per_label"])


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
