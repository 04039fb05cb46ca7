"""The proof that labels are right: stored records against the full softmax of a reference that reads the same ids.

N labels, K candidates, V rows of the output layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.record import LabelRecord

__all__ = ["BFLOAT16_LIMITS", "FLOAT32_LIMITS", "Limits", "ParityFigures", "compare_with_reference", "format_figures"]

FullLogprobs = Callable[[NDArray[np.int32]], NDArray[np.float32]]  # input_ids [T] -> [T, V], nats
_TOP = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far an engine may be from the reference."""

    logprob_p999_nats: float
    tail_mass: float
    tie_nats: float  # closer than this, either order is right


FLOAT32_LIMITS = Limits(logprob_p999_nats=1e-3, tail_mass=1e-4, tie_nats=1e-3)
# Against the same float32 reference, where a model in bfloat16 reached 0.8 nat and 0.14 (SmolLM2, CPU, 2026-11-24):
# wide enough for precision, far too narrow for a shift or another temperature.
BFLOAT16_LIMITS = Limits(logprob_p999_nats=2.0, tail_mass=0.3, tie_nats=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityFigures:
    """What the comparison measured, over all labelled positions."""

    num_records: int
    num_positions: int
    candidate_median_nats: float
    candidate_p999_nats: float  # the largest difference among a label's K candidates
    candidate_max_nats: float
    target_p999_nats: float
    target_max_nats: float
    tail_mass_max: float
    num_top8_differ: int  # where no tie decides
    num_ranks_differ: int  # where no tie decides
    num_argmax_differ: int  # where no tie decides
    highest_candidate_id: int

    def failures(self, limits: Limits) -> list[str]:
        """Return what is beyond the limits; nothing if the labels are right."""
        found = []
        for name, value, limit in (
            ("candidates' logprobs, p99.9", self.candidate_p999_nats, limits.logprob_p999_nats),
            ("targets' logprobs, p99.9", self.target_p999_nats, limits.logprob_p999_nats),
            ("tail mass, largest", self.tail_mass_max, limits.tail_mass),
        ):
            if not value <= limit:  # written this way so that NaN fails
                found.append(f"{name}: {value:.2e}, at most {limit:.0e} is right")
        for name, count in (
            ("top-8 sets", self.num_top8_differ),
            ("target ranks", self.num_ranks_differ),
            ("most likely tokens", self.num_argmax_differ),
        ):
            if count:
                found.append(f"{name}: {count:,} of {self.num_positions:,} differ where no tie decides")
        return found

    def to_json(self) -> dict[str, float | int]:
        return dataclasses.asdict(self)


def compare_with_reference(
    records: Iterable[LabelRecord], full_logprobs: FullLogprobs, *, limits: Limits = FLOAT32_LIMITS
) -> ParityFigures:
    """Compare every label of some records with the reference's distribution for the token that it is about."""
    parts = [_compare_record(record, full_logprobs(record.input_ids), limits.tie_nats) for record in records]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return ParityFigures(
        num_records=len(parts),
        num_positions=len(columns["candidate"]),
        candidate_median_nats=float(np.median(columns["candidate"])),
        candidate_p999_nats=float(np.percentile(columns["candidate"], 99.9)),
        candidate_max_nats=float(columns["candidate"].max()),
        target_p999_nats=float(np.percentile(columns["target"], 99.9)),
        target_max_nats=float(columns["target"].max()),
        tail_mass_max=float(columns["tail_mass"].max()),
        num_top8_differ=int(columns["top8_differs"].sum()),
        num_ranks_differ=int(columns["rank_differs"].sum()),
        num_argmax_differ=int(columns["argmax_differs"].sum()),
        highest_candidate_id=int(columns["highest_id"].max()),
    )


def _compare_record(
    record: LabelRecord, full: NDArray[np.float32], tie_nats: float
) -> dict[str, NDArray[np.float64 | np.bool_ | np.int64]]:
    # Row p - 1 is the distribution of the token at position p: written out here, not taken from the code under test.
    reference = np.stack([full[position - 1] for position in record.positions.tolist()])  # [N, V]
    targets = np.array([record.input_ids[position] for position in record.positions.tolist()])
    token_ids, logprobs = record.token_ids, record.logprobs  # [N, K]
    rows = np.arange(len(reference))
    at_candidates = np.take_along_axis(reference, token_ids.astype(np.int64), axis=1)
    at_targets = reference[rows, targets]
    fewest = (reference > at_targets[:, None] + tie_nats).sum(axis=1) + 1
    most = (reference >= at_targets[:, None] - tie_nats).sum(axis=1)
    kept = np.exp(at_candidates.astype(np.float64)).sum(axis=1)
    return {
        "candidate": np.abs(logprobs - at_candidates).max(axis=1).astype(np.float64),
        "target": np.abs(record.target_logprobs - at_targets).astype(np.float64),
        "tail_mass": np.abs(record.tail_mass - (1 - kept)),
        "rank_differs": (record.target_ranks < fewest) | (record.target_ranks > most),
        **_compare_tops(reference, token_ids, tie_nats),
        "highest_id": token_ids.max(axis=1).astype(np.int64),
    }


def _compare_tops(
    reference: NDArray[np.float32], token_ids: NDArray[np.int32], tie_nats: float
) -> dict[str, NDArray[np.bool_]]:
    order = np.argsort(-reference, axis=1)[:, : _TOP + 1]
    best = np.take_along_axis(reference, order, axis=1)
    is_tie_at_8 = best[:, _TOP - 1] - best[:, _TOP] <= tie_nats
    same_set = np.sort(order[:, :_TOP], axis=1) == np.sort(token_ids[:, :_TOP], axis=1)
    is_tie_at_1 = best[:, 0] - best[:, 1] <= tie_nats
    return {
        "top8_differs": ~same_set.all(axis=1) & ~is_tie_at_8,
        "argmax_differs": (order[:, 0] != token_ids[:, 0]) & ~is_tie_at_1,
    }


def format_figures(rows: Sequence[tuple[str, ParityFigures]]) -> str:
    """Return a Markdown table of several comparisons; differences of log-probabilities are in nats."""
    lines = [
        "| labels | positions | candidates, p99.9 | largest | targets, p99.9 | tail mass | top-8, rank, top-1 differ |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, figures in rows:
        lines.append(
            f"| {name} | {figures.num_positions:,} | {figures.candidate_p999_nats:.1e} | "
            f"{figures.candidate_max_nats:.1e} | {figures.target_p999_nats:.1e} | {figures.tail_mass_max:.1e} | "
            f"{figures.num_top8_differ}, {figures.num_ranks_differ}, {figures.num_argmax_differ} |"
        )
    return "\n".join(lines)
