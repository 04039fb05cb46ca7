"""How an epoch is dealt to ranks and workers: one track each, of equal length, and what is left after some steps.

A track is a run of the epoch's order, so that each worker reads pools of row groups of its own. Where two tracks meet
within a pool, both workers read it; tracks shorter than a pool share it with several. What is left when a job stops is
a set of intervals, whoever read the rest: any other number of ranks and workers can go on with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from labelstore.reading_order import Interval

__all__ = ["Tracks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """Some ordinals of an epoch, dealt to ranks of `num_workers` workers each, in batches of `batch_size` records.

    A rank's step n comes from its worker n % num_workers, as torch's DataLoader takes them. All ranks have the same
    number of steps. The tracks differ by at most one record; one that has none left in its last step repeats a record.

    Raises:
        ValueError: a number is below 1.
    """

    intervals: tuple[Interval, ...]  # not empty, rising, not overlapping
    num_ranks: int
    num_workers: int
    batch_size: int

    def __post_init__(self) -> None:
        for name in ("num_ranks", "num_workers", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def num_records(self) -> int:
        return sum(stop - start for start, stop in self.intervals)

    @property
    def num_tracks(self) -> int:
        return self.num_ranks * self.num_workers

    @property
    def num_steps(self) -> int:
        """Batches that each rank has."""
        longest = -(-self.num_records // self.num_tracks)
        return self.num_workers * -(-longest // self.batch_size)

    def batch_sizes(self, rank: int, worker: int, *, from_step: int) -> Iterator[tuple[int, int]]:
        """Yield the rank's step and the number of records of each batch that a worker makes, from a step on.

        0 records: the batch is the one of `repeated` once more.
        """
        start, stop = self._edges(rank * self.num_workers + worker)
        for step in range(worker, self.num_steps, self.num_workers):
            if step >= from_step:
                done = self._num_done(worker, step)
                yield step, max(0, min(self.batch_size, stop - start - done))

    def track(self, rank: int, worker: int, *, from_step: int = 0) -> list[Interval]:
        """Return the ordinals of a worker's track, but for those of its batches before a step."""
        start, stop = self._edges(rank * self.num_workers + worker)
        return self._cut(min(start + self._num_done(worker, from_step), stop), stop)

    def repeated(self, rank: int, worker: int) -> list[Interval]:
        """Return the ordinal that a worker repeats when its track has none left: its first, or the first of all."""
        start, stop = (self.track(rank, worker) or self.intervals)[0]
        return [(start, min(start + 1, stop))]

    def left_after(self, step: int) -> tuple[Interval, ...]:
        """Return the ordinals that no rank has had when all have made this many steps."""
        left: list[Interval] = []
        for rank in range(self.num_ranks):
            for worker in range(self.num_workers):
                left += self.track(rank, worker, from_step=step)
        return tuple(_joined(left))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            "intervals": [list(interval) for interval in self.intervals],
            "num_ranks": self.num_ranks,
            "num_workers": self.num_workers,
            "batch_size": self.batch_size,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Tracks:
        """Return the tracks of `to_json`."""
        return cls(**{**content, "intervals": tuple((start, stop) for start, stop in content["intervals"])})

    def _num_done(self, worker: int, step: int) -> int:
        """Return how many records of its track a worker has been through before the rank's step."""
        return self.batch_size * max(0, -(-(step - worker) // self.num_workers))

    def _edges(self, track: int) -> Interval:
        return track * self.num_records // self.num_tracks, (track + 1) * self.num_records // self.num_tracks

    def _cut(self, start: int, stop: int) -> list[Interval]:
        """Return what the places [start, stop) of all ordinals in a row are."""
        found, before = [], 0
        for low, high in self.intervals:
            first, last = max(start - before, 0), min(stop - before, high - low)
            if first < last:
                found.append((low + first, low + last))
            before += high - low
        return found


def _joined(intervals: Sequence[Interval]) -> Iterator[Interval]:
    """Yield rising intervals, those that touch as one."""
    so_far: Interval | None = None
    for start, stop in intervals:
        if so_far is None:
            so_far = start, stop
        elif start == so_far[1]:
            so_far = so_far[0], stop
        else:
            yield so_far
            so_far = start, stop
    if so_far is not None:
        yield so_far
