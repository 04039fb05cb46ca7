"""In which order an epoch reads the records of a dataset: known from (seed, epoch) and sizes, before anything is read.

G row groups, M records. An *ordinal* is a record's place in an epoch's order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.schema import offsets_of

__all__ = ["Interval", "ReadingOrder"]

Interval = tuple[int, int]  # ordinals [start, stop)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadingOrder:
    """The order of one epoch.

    Shuffled: the row groups first, then the records within each pool of `pool_row_groups` of them. So a reader holds
    one pool, and reads a row group once for all the ordinals of its pool that it is given; readers that share a pool
    each read it. A record can come anywhere in the epoch. `seed` None: as the dataset is.
    """

    group_records: Sequence[NDArray[np.int64]]  # [G], the records of each row group that are to be read
    seed: int | None
    epoch: int
    pool_row_groups: int

    def __post_init__(self) -> None:
        if self.pool_row_groups < 1:
            raise ValueError(f"pool_row_groups must be at least 1, got {self.pool_row_groups}")

    def __len__(self) -> int:
        return sum(map(len, self.group_records))

    def pools(self, intervals: Iterable[Interval]) -> Iterator[NDArray[np.int64]]:
        """Yield the records at these ordinals, in order, cut where a pool of row groups ends."""
        groups = np.arange(len(self.group_records))
        if self.seed is not None:
            groups = self._rng().permutation(groups)
        sizes = [len(self.group_records[group]) for group in groups.tolist()]
        edges = offsets_of(sizes)[:: self.pool_row_groups]
        edges = np.append(edges, sum(sizes)) if len(sizes) % self.pool_row_groups else edges
        for start, stop in intervals:
            first = int(np.searchsorted(edges, start, side="right")) - 1
            for pool in range(first, len(edges) - 1):
                low, high = int(edges[pool]), int(edges[pool + 1])
                if low >= stop:
                    break
                if low < high:
                    yield self._pool(pool, groups)[max(start - low, 0) : stop - low]

    def _pool(self, pool: int, groups: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the records of one pool in the order in which they are read."""
        places = groups[pool * self.pool_row_groups : (pool + 1) * self.pool_row_groups]
        records = np.concatenate([self.group_records[group] for group in places.tolist()])
        return records if self.seed is None else self._rng(pool).permutation(records)

    def _rng(self, *more: int) -> np.random.Generator:
        assert self.seed is not None, "a sequential order draws nothing"
        return np.random.default_rng([self.seed, self.epoch, *more])
