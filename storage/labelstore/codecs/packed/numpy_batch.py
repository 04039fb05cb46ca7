"""The records that the numpy decoder works on together: their lanes, and what is known of their labels so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.coded import Coded
from labelstore.codecs.packed.frame import Frame
from labelstore.codecs.packed.layout import STATE_LOW
from labelstore.codecs.packed.numpy_lanes import Lanes
from labelstore.codecs.packed.numpy_sort import sort_exact, sort_grid

__all__ = ["Batch", "Round", "starts_of"]

_Ints = NDArray[np.int64]


def starts_of(sizes: _Ints) -> _Ints:
    """Return where each of runs of these sizes begins."""
    starts: _Ints = np.cumsum(sizes) - sizes
    return starts


@dataclass(slots=True, kw_only=True, eq=False)
class Round:
    """One label of each of L lanes, as its head says; the largest first."""

    lanes: Lanes
    record: _Ints
    number: _Ints  # of the label in the batch
    cluster: _Ints
    shape: _Ints
    fit: _Ints
    size: _Ints
    first: _Ints  # where its candidates stand in the batch

    def keep(self, chosen: _Ints) -> None:
        """Keep some of the lanes, in this order."""
        for field in fields(self):
            value = getattr(self, field.name)
            setattr(self, field.name, value.kept(chosen) if isinstance(value, Lanes) else value[chosen])


class Batch:
    """R records with all their labels and candidates in one run of each; `coded` has room for them.

    The lanes of a record stand together, and those of its first labels first.
    """

    def __init__(self, frames: Sequence[Frame], target_ids: Sequence[NDArray[np.int32]], coded: Coded) -> None:
        num_records = len(frames)
        self.coded = coded  # candidates by place until the end
        self.levels = np.empty(len(coded.token_ids), np.int32)
        self.shifts = np.empty(coded.tails.shape, np.int64)  # as in lane_kernels.Round, of each label
        self.target_ids = np.concatenate(target_ids)
        self.num_labels = np.array([len(ids) for ids in target_ids], dtype=np.int64)
        self.first_labels = starts_of(self.num_labels)
        self.units = np.array([frame.unit for frame in frames], dtype=np.int64)
        self.is_bad = np.zeros(num_records, dtype=np.bool_)
        self.num_candidates = np.array([frame.num_candidates for frame in frames], dtype=np.int64)
        self._first_candidates = starts_of(self.num_candidates)
        self._num_placed = np.zeros(num_records, dtype=np.int64)
        self._sizes = np.zeros(len(self.target_ids), dtype=np.int64)  # of each label

        self.num_lanes = np.array([len(frame.lane_starts) - 1 for frame in frames], dtype=np.int64)
        self.lane_records = np.repeat(np.arange(num_records), self.num_lanes)
        self.lane_places = np.arange(len(self.lane_records)) - starts_of(self.num_lanes)[self.lane_records]
        lanes_here = self.num_lanes[self.lane_records]
        self.lane_rounds = (self.num_labels[self.lane_records] - self.lane_places + lanes_here - 1) // lanes_here
        word_starts = starts_of(np.array([len(frame.words) for frame in frames], dtype=np.int64))
        starts = np.concatenate([frame.lane_starts[:-1] for frame in frames]) + word_starts[self.lane_records]
        self._ends = np.concatenate([frame.lane_starts[1:] for frame in frames]) + word_starts[self.lane_records]
        words = np.concatenate([frame.words for frame in frames]).astype(np.uint64)
        states = (words[starts + 1] << np.uint64(32)) | words[starts]
        self.lanes = Lanes(states, starts + 2, words, np.arange(len(states)))

    @property
    def num_rounds(self) -> int:
        return int(self.lane_rounds.max(initial=0))

    def refuse(self, records: _Ints) -> None:
        """Note that the bytes of these records are not what an encoder writes."""
        self.is_bad[records] = True

    def place_labels(self, record: _Ints, number: _Ints, size: _Ints) -> _Ints:
        """Return where the candidates of each record's next labels will stand; refuse records with too many."""
        before = starts_of(size)
        is_next = np.diff(record, prepend=-1) > 0
        of_record = np.maximum.accumulate(np.where(is_next, np.arange(len(record)), 0))
        first: _Ints = self._first_candidates[record] + self._num_placed[record] + before - before[of_record]
        np.add.at(self._num_placed, record, size)
        self.is_bad |= self._num_placed > self.num_candidates
        self._sizes[number] = size
        return first

    def results(self, log_of_level: _Ints) -> list[Coded | None]:
        """Sort each record's candidates; return its labels as slices of `coded`, None where its bytes are damaged."""
        is_off = (self.lanes.states != STATE_LOW) | (self.lanes.reads != self._ends)
        self.refuse(self.lane_records[is_off])
        self.is_bad |= self._num_placed != self.num_candidates
        return [
            None if self.is_bad[record] else self._result(record, log_of_level) for record in range(len(self.is_bad))
        ]

    def _result(self, record: int, log_of_level: _Ints) -> Coded:
        labels = slice(self.first_labels[record], self.first_labels[record] + self.num_labels[record])
        first = self._first_candidates[record]
        candidates = slice(first, first + self.num_candidates[record])
        coded = self.coded
        record_coded = Coded(
            offsets=np.concatenate([[0], np.cumsum(self._sizes[labels])]).astype(np.int64),
            token_ids=coded.token_ids[candidates],
            logprobs=coded.logprobs[candidates],
            exact_bits=coded.exact_bits[candidates],
            draw_counts=coded.draw_counts[candidates],
            tails=coded.tails[labels],
            ranks=coded.ranks[labels],
            targets=coded.targets[labels],
            entropies=coded.entropies[labels],
        )
        if len(coded.exact_bits):
            sort_exact(record_coded, self.shifts[labels])
        else:
            sort_grid(record_coded, self.levels[candidates], self.shifts[labels], log_of_level)
        return record_coded
