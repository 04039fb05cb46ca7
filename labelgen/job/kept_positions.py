"""Soft labels of only some positions of a record; its spans, the hard labels, stay whole."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from labelstore.cut import take_labels
from labelstore.labels import Labels
from labelstore.record import LabelRecord

__all__ = ["KeptPositions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPositions:
    """Which labels of a record are kept; the same ones whenever the record is made again.

    Raises:
        ValueError: the number is out of its range.
    """

    rule: Literal["every", "entropy"]
    number: float  # every: one label in so many; entropy: the share of those with the highest entropy

    def __post_init__(self) -> None:
        if self.rule == "every" and (self.number < 2 or self.number != int(self.number)):
            raise ValueError(f"--keep-positions every:N keeps one label in N, N at least 2; got {self.number:g}")
        if self.rule == "entropy" and not 0 < self.number < 1:
            raise ValueError(f"--keep-positions entropy:SHARE keeps a share between 0 and 1, got {self.number:g}")

    @classmethod
    def parse(cls, text: str) -> KeptPositions:
        """Return what `every:4` or `entropy:0.25` says.

        Raises:
            ValueError: it says neither.
        """
        rule, _, number = text.partition(":")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if rule == "every" and not math.isnan(value):
            return cls(rule="every", number=value)
        if rule == "entropy" and not math.isnan(value):
            return cls(rule="entropy", number=value)
        raise ValueError(f"--keep-positions must be every:N or entropy:SHARE, such as every:4, got {text!r}")

    def __str__(self) -> str:
        return f"{self.rule}:{self.number:g}"

    def thin(self, record: LabelRecord) -> LabelRecord:
        """Return the record with the labels that are kept, one at least where it has any."""
        rows = self._rows(record.labels, record.record_id)
        return replace(
            record,
            labels=take_labels(record.labels, rows),
            label_positions=record.positions[rows].astype(np.int32),
        )

    def _rows(self, labels: Labels, record_id: str) -> NDArray[np.int64]:
        """Return which of N labels are kept, rising."""
        if len(labels) == 0:
            return np.zeros(0, dtype=np.int64)
        if self.rule == "every":
            # Another first one in each record, so that no place of a response is kept in all records or in none.
            digest = hashlib.blake2b(record_id.encode(), digest_size=8).digest()
            step = int(self.number)
            return np.arange(int.from_bytes(digest, "little") % min(step, len(labels)), len(labels), step)
        count = math.ceil(self.number * len(labels))
        return np.sort(np.argsort(-_entropy(labels), kind="stable")[:count])


def _entropy(labels: Labels) -> NDArray[np.float64]:
    """Return the entropy of each label [N] in nats; where it was not kept, with all of the tail as one more outcome."""
    if labels.entropy is not None:
        return labels.entropy.astype(np.float64)
    logprobs = labels.logprobs.reshape(-1).astype(np.float64)
    of_candidates = np.bincount(labels.candidate_positions(), -np.exp(logprobs) * logprobs, minlength=len(labels))
    tail = labels.tail_mass.astype(np.float64)
    entropy: NDArray[np.float64] = of_candidates - tail * np.log(np.maximum(tail, np.finfo(np.float64).tiny))
    return entropy
