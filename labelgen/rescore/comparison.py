"""How far stored labels are from what the teacher says of the same tokens now: array math, label by label.

P pairs of a stored and a rescored label, M candidates that both of a pair name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.labels import Labels

__all__ = ["Candidates", "Comparison", "Matches", "compare_labels", "match_candidates"]

_MIN_REST = 1e-5  # probability; the rest of a float32 distribution is not known better


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """The candidates of P labels, flat [C]."""

    pair: NDArray[np.int64]  # [C], which of the P labels
    token_ids: NDArray[np.int64]  # [C]
    logprobs: NDArray[np.float64]  # [C], nats
    is_head: NDArray[np.bool_]  # [C], one of the most likely; False: drawn at random
    num_pairs: int

    @classmethod
    def of(cls, labels: Labels, rows: NDArray[np.int64]) -> Candidates:
        """Take the candidates of some labels."""
        counts = np.diff(labels.candidate_offsets)[rows]
        pair = np.repeat(np.arange(len(rows), dtype=np.int64), counts)
        first = np.cumsum(counts) - counts
        place = np.arange(len(pair)) - first[pair] + labels.candidate_offsets[rows][pair]
        is_head = np.ones(len(pair), dtype=bool)
        if labels.draw_counts is not None:
            is_head = labels.draw_counts.reshape(-1)[place] == 0
        return cls(
            pair=pair,
            token_ids=labels.token_ids.reshape(-1)[place].astype(np.int64),
            logprobs=labels.logprobs.reshape(-1)[place].astype(np.float64),
            is_head=is_head,
            num_pairs=len(rows),
        )

    def cutoffs(self) -> NDArray[np.float64]:
        """Return what no token outside a label's head exceeds [P], in nats; 0 where it has no head."""
        cutoffs = np.zeros(self.num_pairs)
        np.minimum.at(cutoffs, self.pair[self.is_head], self.logprobs[self.is_head])
        return cutoffs

    def first(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return each label's most likely token and its logprob [P]; -1 where it has no head."""
        ids, logprobs = np.full(self.num_pairs, -1, dtype=np.int64), np.zeros(self.num_pairs)
        head = np.flatnonzero(self.is_head)[::-1]  # backwards, so that a label's first one is set last
        ids[self.pair[head]], logprobs[self.pair[head]] = self.token_ids[head], self.logprobs[head]
        return ids, logprobs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """The candidates that the labels of a pair both name: their places in two flat arrays [M]."""

    stored: NDArray[np.int64]
    again: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """P labels, compared."""

    differences: NDArray[np.float64]  # [P], nats: the largest of a label, beyond what the codec may have changed
    kls: NDArray[np.float64]  # [P], nats: KL(teacher now || stored) over common candidates and all the rest as one
    is_argmax_equal: NDArray[np.bool_]  # [P]; True too where a label has no head to compare
    argmax_gaps: NDArray[np.float64]  # [P], nats: how much likelier the teacher's token is now than the stored one


def compare_labels(
    stored: Labels,
    again: Labels,
    *,
    stored_rows: NDArray[np.int64],
    again_rows: NDArray[np.int64],
    tolerance: NDArray[np.float64] | None,
    with_targets: bool = True,
) -> Comparison:
    """Compare label stored_rows[i] with label again_rows[i].

    `tolerance` [N] is what the stored labels' codec may have moved the square root of a probability by (None:
    nothing); a difference is counted from there on. A candidate that only one of the two names is compared with the
    bound that the other one's head sets. `with_targets=False` leaves the targets' own log-probabilities out.
    """
    left, right = Candidates.of(stored, stored_rows), Candidates.of(again, again_rows)
    matches = match_candidates(left, right)
    slack = np.zeros(len(stored_rows)) if tolerance is None else tolerance[stored_rows]
    low, high = _interval(left.logprobs, slack[left.pair])
    differences = np.zeros(len(stored_rows))

    values = right.logprobs[matches.again]
    _raise_to(differences, left.pair[matches.stored], low[matches.stored] - values)
    _raise_to(differences, left.pair[matches.stored], values - high[matches.stored])
    only_left = np.setdiff1d(np.arange(len(left.pair)), matches.stored)
    _raise_to(differences, left.pair[only_left], low[only_left] - right.cutoffs()[left.pair[only_left]])
    only_right = np.setdiff1d(np.arange(len(right.pair)), matches.again)
    _, highest_outside = _interval(left.cutoffs(), slack)
    _raise_to(differences, right.pair[only_right], right.logprobs[only_right] - highest_outside[right.pair[only_right]])
    if with_targets:
        low, high = _interval(stored.target_logprobs[stored_rows].astype(np.float64), slack)
        values = again.target_logprobs[again_rows].astype(np.float64)
        differences = np.maximum.reduce([differences, low - values, values - high])
    is_equal, gaps = _compare_argmax(left, right)
    return Comparison(
        differences=differences,
        kls=_kls(left, right, matches),
        is_argmax_equal=is_equal,
        argmax_gaps=gaps,
    )


def match_candidates(left: Candidates, right: Candidates) -> Matches:
    """Find the candidates that both labels of a pair name."""
    left_keys, right_keys = (side.pair << 32 | side.token_ids for side in (left, right))
    _, stored, again = np.intersect1d(left_keys, right_keys, assume_unique=True, return_indices=True)
    return Matches(stored=stored, again=again)


def _interval(
    logprobs: NDArray[np.float64], slack: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and highest logprob that a codec may have made these of."""
    roots = np.exp(logprobs / 2)
    with np.errstate(divide="ignore"):
        low = np.where(slack > 0, 2 * np.log(np.maximum(roots - slack, 0.0)), logprobs)
    high = np.where(slack > 0, 2 * np.log(roots + slack), logprobs)
    return low, high


def _raise_to(largest: NDArray[np.float64], pair: NDArray[np.int64], values: NDArray[np.float64]) -> None:
    np.maximum.at(largest, pair, values)


def _compare_argmax(left: Candidates, right: Candidates) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    (stored_ids, _), (again_ids, top) = left.first(), right.first()
    # What the teacher thinks now of the token that was the most likely one; where it does not say, its cutoff at most.
    of_stored = right.cutoffs()
    is_stored_top = stored_ids[right.pair] == right.token_ids
    of_stored[right.pair[is_stored_top]] = right.logprobs[is_stored_top]
    is_known = (stored_ids >= 0) & (again_ids >= 0)
    is_equal = ~is_known | (stored_ids == again_ids)
    return is_equal, np.where(is_equal, 0.0, top - of_stored)


def _kls(left: Candidates, right: Candidates, matches: Matches) -> NDArray[np.float64]:
    pair = left.pair[matches.stored]
    stored, again = left.logprobs[matches.stored], right.logprobs[matches.again]
    probabilities = np.exp(again)

    def by_label(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(pair, weights, minlength=left.num_pairs).astype(np.float64)

    kls = by_label(probabilities * (again - stored))
    rest, stored_rest = (np.maximum(1 - by_label(mass), _MIN_REST) for mass in (probabilities, np.exp(stored)))
    return np.asarray(np.maximum(kls + rest * np.log(rest / stored_rest), 0.0), dtype=np.float64)
