"""A record of a dataset beside what the teacher says of the same tokens now."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelgen.rescore.comparison import Comparison, compare_labels
from labelstore.labels import Labels
from labelstore.record import LabelRecord

__all__ = ["Reading"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """A record, and the teacher's labels of its first S tokens: label m of `again` is about input_ids[m + 1]."""

    record: LabelRecord  # T tokens, N labels
    tolerance: NDArray[np.float64] | None  # [N]: what codecs may have moved the square root of a probability by
    again: Labels  # S - 1 labels, S <= T

    def rows(self, shift: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which stored labels [P] can be compared, and with which labels of `again` [P].

        With a shift, the stored label of a position is paired with the teacher's of the position `shift` before it.
        """
        again_rows = self.record.positions - 1 - shift
        stored_rows = np.flatnonzero((again_rows >= 0) & (again_rows < len(self.again)))
        return stored_rows, again_rows[stored_rows]

    def compare(self, shift: int = 0, *, with_targets: bool = True) -> Comparison:
        """Compare the labels that `rows` pairs."""
        stored_rows, again_rows = self.rows(shift)
        return compare_labels(
            self.record.labels,
            self.again,
            stored_rows=stored_rows,
            again_rows=again_rows,
            tolerance=self.tolerance,
            with_targets=with_targets,
        )
