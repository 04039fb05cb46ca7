"""Batches of a dataset, read in order: one pass over its row groups, shuffled or not, dealt to ranks and workers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from labelstore.dataset import LabelDataset
from labelstore.reading_order import Interval, ReadingOrder
from labelstore.record import LabelRecord
from labelstore.record_filter import RecordFilter, select_records
from labelstore.shard_reader import RowGroup
from labelstore.torch.batch import Batch
from labelstore.torch.collate import Collator
from labelstore.tracks import Tracks

__all__ = ["BatchStream"]

_POOL_ROW_GROUPS = 32  # 9 MB of `standard`, 70 MB of `open`, for each worker


class BatchStream(IterableDataset[Batch]):
    """The batches of one rank; give it to a DataLoader with `batch_size=None`, or take a BatchLoader, which does.

    The order is a function of (seed, epoch) and of the numbers of ranks and workers. Every record comes once in an
    epoch; where the last step has too few for all ranks, some come twice. All ranks have the same number of steps.

    A worker holds one pool of row groups at a time, and reads a row group once for all its records of the pool. Workers
    whose runs of the order meet within a pool each read it: where an epoch has fewer pools than workers, take a
    smaller pool.

    `state_dict` is plain JSON values, the same on all ranks. It can be loaded with any number of ranks and workers and
    any batch size: the epoch then goes on with exactly the records that no step has had.
    """

    def __init__(
        self,
        dataset: LabelDataset,
        collate: Collator,
        *,
        batch_size: int,
        seed: int | None = 0,
        rank: int = 0,
        num_ranks: int = 1,
        num_workers: int = 0,
        record_filter: RecordFilter | None = None,
        pool_row_groups: int = _POOL_ROW_GROUPS,
    ) -> None:
        """Find the records to read; `batch_size` is in records, for each rank.

        `seed` None: in the dataset's order. `num_workers` is the DataLoader's, 0 like 1. A pool of row groups is
        what is shuffled and held in memory at once, by each worker.

        Raises:
            ValueError: a number is out of its bounds, or no record passes.
        """
        if not 0 <= rank < num_ranks:
            raise ValueError(f"rank must be in [0, {num_ranks}), got {rank}")
        self._dataset = dataset
        self._fingerprint = dataset.header.fingerprint
        self._collate = collate
        self._rank = rank
        self._seed = seed
        self._pool_row_groups = pool_row_groups
        self._group_records = select_records(dataset, record_filter or RecordFilter())
        self._num_records = sum(map(len, self._group_records))
        if self._num_records == 0:
            raise ValueError(f"{dataset!r}: has no record that passes {record_filter}")
        self._epoch = 0
        self._step = 0
        self._first_worker = 0  # which of our workers the DataLoader's first one is
        self._tracks = Tracks(
            intervals=((0, self._num_records),),
            num_ranks=num_ranks,
            num_workers=max(1, num_workers),
            batch_size=batch_size,
        )
        self._order()  # refuses what it cannot do, before anything is started

    @property
    def num_records(self) -> int:
        """Records in an epoch, over all ranks."""
        return self._num_records

    @property
    def num_steps_left(self) -> int:
        """Batches that each rank will have in what is left of this epoch."""
        return self._tracks.num_steps - self._step

    @property
    def num_workers(self) -> int:
        """Worker processes that the epoch is dealt to, at least 1."""
        return self._tracks.num_workers

    @property
    def epoch(self) -> int:
        """The epoch that iterating reads, or goes on with."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; the one that a loaded state is in the middle of goes on."""
        if epoch != self._epoch:
            self._epoch, self._step, self._first_worker = epoch, 0, 0
            self._tracks = replace(self._tracks, intervals=((0, self._num_records),))

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches that are left of this epoch; then go to the next one.

        Raises:
            ValueError: the DataLoader has another number of workers than the stream.
            DamagedDatasetError: a row group is damaged.
        """
        worker = get_worker_info()
        count, place = (1, 0) if worker is None else (worker.num_workers, worker.id)
        place = (place + self._first_worker) % count
        if count != self._tracks.num_workers:
            raise ValueError(
                f"the stream has num_workers={self._tracks.num_workers}, the DataLoader {count}: give both one"
            )
        first = self._step
        records = self._records(self._tracks.track(self._rank, place, from_step=first))
        for step, size in self._tracks.batch_sizes(self._rank, place, from_step=first):
            taken = list(itertools.islice(records, size))
            taken = taken or list(self._records(self._tracks.repeated(self._rank, place)))
            self._step = step + 1
            yield replace(self._collate(taken), stream_state=self.state_dict())
        self.set_epoch(self._epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands, as plain JSON values: behind the batch that it yielded last."""
        return {
            "fingerprint": self._fingerprint,
            "num_records": self._num_records,
            "seed": self._seed,
            "pool_row_groups": self._pool_row_groups,
            "epoch": self._epoch,
            "step": self._step,
            "tracks": self._tracks.to_json(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where another stream stood, which may have had other ranks, workers and batches.

        Raises:
            ValueError: it read other records, or in another order.
        """
        mine = self.state_dict()
        for name in ("fingerprint", "num_records", "seed", "pool_row_groups"):
            if state[name] != mine[name]:
                raise ValueError(
                    f"the state is of a stream with {name} {state[name]}, this one has {mine[name]}: "
                    f"an epoch can only go on over the same records in the same order"
                )
        before, step = Tracks.from_json(state["tracks"]), int(state["step"])
        here = replace(self._tracks, intervals=before.intervals)
        if before != here:
            here, step = replace(here, intervals=before.left_after(step)), 0
        self._epoch, self._tracks, self._step = int(state["epoch"]), here, step
        # A DataLoader that starts now asks its first worker first. StatefulDataLoader gives each worker a state of its
        # own, in the worker, and goes on with the one whose turn it was.
        self._first_worker = step % here.num_workers if get_worker_info() is None else 0

    def _order(self) -> ReadingOrder:
        return ReadingOrder(
            group_records=self._group_records,
            seed=self._seed,
            epoch=self._epoch,
            pool_row_groups=self._pool_row_groups,
        )

    def _records(self, intervals: list[Interval]) -> Iterator[LabelRecord]:
        """Yield the records at some ordinals; one pool of row groups is in memory at a time."""
        starts = self._dataset.row_group_starts
        groups: dict[int, RowGroup] = {}
        for pool in self._order().pools(intervals):
            places = np.searchsorted(starts, pool, side="right") - 1
            groups = {place: groups[place] for place in groups.keys() & places.tolist()}  # intervals may share a pool
            for record, place in zip(pool.tolist(), places.tolist(), strict=True):
                if place not in groups:
                    groups[place] = self._dataset.read_row_group(place)
                yield groups[place].record(record - int(starts[place]))
