"""Reading a label dataset: by index, or from front to end."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelstore.entry import Entry, ShardEntry, total_counts
from labelstore.errors import DamagedDatasetError
from labelstore.header import Header
from labelstore.manifest import Manifest, read_contents
from labelstore.record import LabelRecord
from labelstore.rescored import Rescored
from labelstore.schema import offsets_of
from labelstore.shard_reader import RowGroup, ShardReader, find_changed_bytes
from labelstore.store import ReadableStore, open_store

__all__ = ["LabelDataset", "open_dataset"]

_CACHED_ROW_GROUPS = 4  # of the codec open: about 2 MiB each
_CACHED_SHARDS = 64  # footers only


class LabelDataset(Sequence[LabelRecord]):
    """The records of a dataset, in the order of its prompt set. It keeps no file open, so it can be pickled and forked.

    Every row group is checked against its hash when it is read; a damaged one raises DamagedDatasetError.
    """

    def __init__(self, store: ReadableStore, contents: Manifest, *, hash_files: bool = False) -> None:
        self._store = store
        self._contents = contents
        self._shards: list[ShardEntry] = [shard for entry in contents.entries for shard in entry.shards]
        # Names of shards whose files are still to be hashed as wholes.
        self._unhashed = {shard.name for shard in self._shards} if hash_files else set()
        self._blocks: list[str] = [entry.block for entry in contents.entries for _ in entry.shards]
        self._group_starts = offsets_of([n for shard in self._shards for n in shard.row_group_records])
        self._shard_groups = offsets_of([len(shard.row_group_records) for shard in self._shards])
        self._readers: OrderedDict[int, ShardReader] = OrderedDict()
        self._row_groups: OrderedDict[int, RowGroup] = OrderedDict()

    @property
    def header(self) -> Header:
        """The teacher, its fingerprint, vocab_size and the selection."""
        return self._contents.header

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What each block published."""
        return self._contents.entries

    @property
    def rescored(self) -> Rescored | None:
        """What the last job found when its teacher read records again; None if none has looked."""
        return self._contents.rescored

    @property
    def num_labels(self) -> int:
        """Labels in all records."""
        return total_counts(self.entries).num_labels

    @property
    def num_bytes(self) -> int:
        """Bytes of all shards on disk, everything included."""
        return sum(shard.num_bytes for shard in self._shards)

    @property
    def row_group_starts(self) -> NDArray[np.int64]:
        """The first record of each row group of the dataset, and behind them the number of records [G + 1]."""
        return self._group_starts

    def read_row_group(self, place: int) -> RowGroup:
        """Read and check a row group of the dataset, counted over all shards; it is kept by the caller alone.

        Raises:
            DamagedDatasetError: it is not what its entry says.
        """
        shard = self._shard_of(place)
        return self._reader(shard).row_group(place - int(self._shard_groups[shard]))

    def read_hard_columns(self, place: int, columns: Sequence[str]) -> pa.Table:
        """Read and check some hard columns of a row group; no soft label is read.

        Raises:
            DamagedDatasetError: it is not what its entry says.
        """
        shard = self._shard_of(place)
        return self._reader(shard).hard_columns(place - int(self._shard_groups[shard]), columns)

    def __len__(self) -> int:
        return int(self._group_starts[-1])

    @overload
    def __getitem__(self, index: int) -> LabelRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[LabelRecord]: ...
    def __getitem__(self, index: int | slice) -> LabelRecord | list[LabelRecord]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row_group, row = self._locate(index)
        return row_group.record(row)

    def with_tolerance(self, index: int) -> tuple[LabelRecord, NDArray[np.float64] | None]:
        """Return a record, and by how much codecs may have moved the root of a probability in each label [N] of it.

        None: by nothing, the values are the teacher's.
        """
        row_group, row = self._locate(index)
        record = row_group.record(row)
        return record, row_group.whole_tolerance(record)

    def block_of(self, index: int) -> str:
        """Return the block of prompts that a record belongs to."""
        return self._blocks[self._shard_of(self._place_of(index))]

    def __iter__(self) -> Iterator[LabelRecord]:
        for shard in self._shards:
            reader = self._open_shard(shard)
            for index in range(reader.num_row_groups):
                yield from reader.row_group(index)

    def __repr__(self) -> str:
        return f"LabelDataset({str(self._store)!r}: {len(self):,} records, {self.num_labels:,} labels)"

    def _place_of(self, index: int) -> int:
        """Return the row group that a record is in, counted over all shards."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of a dataset with {len(self)} records")
        return bisect.bisect_right(self._group_starts, index % len(self)) - 1

    def _locate(self, index: int) -> tuple[RowGroup, int]:
        """Return the row group that a record is in, and its row there."""
        place = self._place_of(index)
        return self._row_group(place), index % len(self) - int(self._group_starts[place])

    def _row_group(self, place: int) -> RowGroup:
        if place not in self._row_groups:
            self._row_groups[place] = self.read_row_group(place)
            _trim(self._row_groups, _CACHED_ROW_GROUPS)
        self._row_groups.move_to_end(place)
        return self._row_groups[place]

    def _shard_of(self, place: int) -> int:
        return bisect.bisect_right(self._shard_groups, place) - 1

    def _reader(self, shard: int) -> ShardReader:
        if shard not in self._readers:
            self._readers[shard] = self._open_shard(self._shards[shard])
            _trim(self._readers, _CACHED_SHARDS)
        return self._readers[shard]

    def _open_shard(self, shard: ShardEntry) -> ShardReader:
        if shard.name in self._unhashed:
            try:
                problem = find_changed_bytes(self._store, shard)
            except FileNotFoundError:
                problem = "the file is missing"
            if problem is not None:
                raise DamagedDatasetError(
                    f"{self._store}/{shard.name}: {problem}; copy it again, or see verify --repair"
                )
            self._unhashed.discard(shard.name)
        return ShardReader(self._store, shard)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_readers": OrderedDict(), "_row_groups": OrderedDict()}


def open_dataset(location: str | Path, *, hash_files: bool = False) -> LabelDataset:
    """Open a dataset folder, or a finished dataset behind an fsspec URL.

    Footers and row groups are always checked against their hashes as they are read. `hash_files` hashes each shard's
    whole file too, before its first record is read.

    Raises:
        NotADatasetError: there is no dataset.
        FormatVersionError: it is of another format version.
        DamagedDatasetError: header, entries or manifest are damaged.
    """
    store = open_store(location)
    return LabelDataset(store, read_contents(store), hash_files=hash_files)


def _trim(cache: OrderedDict[Any, Any], max_items: int) -> None:
    while len(cache) > max_items:
        cache.popitem(last=False)
