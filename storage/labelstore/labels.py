"""The labels of one sequence as arrays: N labels, each with K candidates (K may differ), C candidates in all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Labels", "tail_mass_of", "top_k_labels"]

_DTYPES = {
    "token_ids": np.dtype(np.int32),
    "logprobs": np.dtype(np.float32),
    "candidate_offsets": np.dtype(np.int64),
    "target_logprobs": np.dtype(np.float32),
    "target_ranks": np.dtype(np.int32),
    "tail_mass": np.dtype(np.float32),
    "draw_counts": np.dtype(np.int32),
    "entropy": np.dtype(np.float32),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: arrays have no truth value
class Labels:
    """What the teacher believed about N tokens.

    The candidates of label n are the entries candidate_offsets[n] : candidate_offsets[n + 1] of the flattened
    `token_ids` and `logprobs`, most likely first. Where every label has the same number of candidates K, both are
    held as [N, K]; else they are flat [C]. Flattening is free: `token_ids.reshape(-1)`.

    Raises:
        ValueError: shapes or values contradict each other; the message names the first bad place.
    """

    token_ids: NDArray[np.int32]  # [N, K] or [C], >= 0
    logprobs: NDArray[np.float32]  # as token_ids; nats, finite, <= 0, falling within a label
    candidate_offsets: NDArray[np.int64]  # [N + 1]
    target_logprobs: NDArray[np.float32]  # [N], nats, of the token that really follows
    target_ranks: NDArray[np.int32]  # [N], from 1: how many tokens are at least as likely, itself included
    tail_mass: NDArray[np.float32]  # [N], in [0, 1]: 1 - sum of the candidates' probabilities
    draw_counts: NDArray[np.int32] | None = None  # [C]: how often each was drawn; 0 for the exact head beside draws
    entropy: NDArray[np.float32] | None = None  # [N], nats, of the full distribution

    def __post_init__(self) -> None:
        self._check_shapes()
        counts = self.candidate_offsets[1:] - self.candidate_offsets[:-1]  # np.diff takes three times as long
        num_labels = len(counts)
        if num_labels and (counts == counts[0]).all():
            for name in ("token_ids", "logprobs"):
                object.__setattr__(self, name, getattr(self, name).reshape(num_labels, counts[0]))
        if not self._is_sound():
            self._name_bad_value()

    def __len__(self) -> int:
        return len(self.target_logprobs)

    @property
    def kept_mass(self) -> NDArray[np.float64]:
        """The candidates' summed probability [N], in float64."""
        return _mass_by_label(self.logprobs.reshape(-1), self.candidate_offsets)

    def candidate_positions(self) -> NDArray[np.int64]:
        """The label n that each of the C candidates belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.candidate_offsets))

    def _check_shapes(self) -> None:
        for name, dtype in _DTYPES.items():
            array = getattr(self, name)
            if array is not None and array.dtype != dtype:
                raise ValueError(f"{name} must be {dtype}, got {array.dtype}")
        offsets = self.candidate_offsets
        if offsets.ndim != 1 or len(offsets) == 0 or offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any():
            raise ValueError(f"candidate_offsets must be [N + 1], start at 0 and never fall, got {offsets!r}")
        num_labels, num_candidates = len(offsets) - 1, int(offsets[-1])
        for name in ("target_logprobs", "target_ranks", "tail_mass", "entropy"):
            array = getattr(self, name)
            if array is not None and array.shape != (num_labels,):
                raise ValueError(f"{name} must be [{num_labels}] as candidate_offsets say, got {array.shape}")
        for name in ("token_ids", "logprobs", "draw_counts"):
            array = getattr(self, name)
            if array is not None and array.size != num_candidates:
                raise ValueError(
                    f"{name} must hold {num_candidates} candidates as candidate_offsets say, got {array.shape}"
                )

    def _is_sound(self) -> bool:
        """Return whether all values are as they must be, by the fewest passes over them; NaN is never sound.

        False for labels of differing K and for empty ones too: `_name_bad_value` looks at each value there.
        """
        logprobs, ids = self.logprobs, self.token_ids
        if logprobs.ndim != 2 or logprobs.size == 0 or self.draw_counts is not None or self.entropy is not None:
            return False
        targets, tail = self.target_logprobs, self.tail_mass
        flat, width = logprobs.reshape(-1), logprobs.shape[1]
        is_falling = flat[1:] <= flat[:-1]
        is_falling[width - 1 :: width] = True  # from one label to the next
        return bool(
            is_falling.all()  # so the first of a label is its highest, the last its lowest
            and logprobs[:, 0].max() <= 0
            and logprobs[:, -1].min() > -np.inf
            and ids.min() >= 0
            and targets.max() <= 0
            and targets.min() > -np.inf
            and self.target_ranks.min() >= 1
            and tail.min() >= 0
            and tail.max() <= 1
        )

    def _name_bad_value(self) -> None:
        logprobs = self.logprobs.reshape(-1)
        label_of = self.candidate_positions  # called only where there is something to name
        # Each test is written so that NaN counts as bad.
        _refuse_first(~((logprobs <= 0) & (logprobs > -np.inf)), logprobs, "logprobs", "finite and <= 0", label_of)
        is_rising = np.diff(logprobs, prepend=logprobs[:1]) > 0
        starts = self.candidate_offsets[:-1]
        is_rising[starts[starts < len(logprobs)]] = False
        _refuse_first(is_rising, logprobs, "logprobs", "in falling order", label_of)
        token_ids = self.token_ids.reshape(-1)
        _refuse_first(token_ids < 0, token_ids, "token_ids", ">= 0", label_of)

        def labels() -> NDArray[np.int64]:
            return np.arange(len(self), dtype=np.int64)

        targets = self.target_logprobs
        _refuse_first(~((targets <= 0) & (targets > -np.inf)), targets, "target_logprobs", "finite and <= 0", labels)
        _refuse_first(self.target_ranks < 1, self.target_ranks, "target_ranks", "at least 1", labels)
        tail = self.tail_mass
        _refuse_first(~((tail >= 0) & (tail <= 1)), tail, "tail_mass", "in [0, 1]", labels)
        if self.draw_counts is not None:
            _refuse_first(self.draw_counts < 0, self.draw_counts, "draw_counts", "at least 0", label_of)
        if self.entropy is not None:
            is_bad = ~((self.entropy >= 0) & (self.entropy < np.inf))
            _refuse_first(is_bad, self.entropy, "entropy", "finite and >= 0", labels)


def top_k_labels(
    *,
    token_ids: NDArray[np.int32],
    logprobs: NDArray[np.float32],
    target_logprobs: NDArray[np.float32],
    target_ranks: NDArray[np.int32],
) -> Labels:
    """Build labels from the K most likely candidates of N positions, both [N, K]; the tail mass follows from them.

    Raises:
        ValueError: a value is not what a label may hold.
    """
    num_labels, top_k = token_ids.shape
    return Labels(
        token_ids=token_ids,
        logprobs=logprobs,
        candidate_offsets=np.arange(num_labels + 1, dtype=np.int64) * top_k,
        target_logprobs=target_logprobs,
        target_ranks=target_ranks,
        tail_mass=_rest_of(_mass_by_row(logprobs)),
    )


def tail_mass_of(logprobs: NDArray[np.float32], candidate_offsets: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return 1 - the candidates' mass for each label [N]; summed in float64, clipped to [0, 1]."""
    return _rest_of(_mass_by_label(logprobs.reshape(-1), candidate_offsets))


def _rest_of(kept_mass: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.maximum(1.0 - kept_mass, 0.0).astype(np.float32)  # at most 1, as masses are not negative


def _mass_by_row(logprobs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the summed probability [N] of candidates [N, K]."""
    # Half the time of sum(axis=1) where rows are short.
    masses: NDArray[np.float64] = np.einsum("nk->n", np.exp(logprobs.astype(np.float64)))
    return masses


def _mass_by_label(logprobs: NDArray[np.float32], candidate_offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    counts = candidate_offsets[1:] - candidate_offsets[:-1]
    if len(counts) and (counts == counts[0]).all():  # the common case
        return _mass_by_row(logprobs.reshape(len(counts), counts[0]))
    masses = np.zeros(len(counts))
    is_filled = counts > 0  # reduceat gives nonsense for empty runs
    if is_filled.any():
        masses[is_filled] = np.add.reduceat(np.exp(logprobs.astype(np.float64)), candidate_offsets[:-1][is_filled])
    return masses


def _refuse_first(
    is_bad: NDArray[np.bool_],
    values: NDArray[np.generic],
    name: str,
    wanted: str,
    label_of: Callable[[], NDArray[np.int64]],
) -> None:
    if is_bad.any():
        place = int(np.argmax(is_bad))
        raise ValueError(f"{name} must be {wanted}, got {values[place]} in label {label_of()[place]}")
