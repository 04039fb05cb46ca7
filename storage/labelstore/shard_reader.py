"""Reads one shard; every byte is hashed before a Parquet parser sees it."""

from __future__ import annotations

import hashlib
import io
import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from labelstore.checksums import HASH_BYTES, Range, column_ranges, hash_list_bytes
from labelstore.codecs import CODECS, DecodedLabels, Decoder
from labelstore.entry import ShardEntry
from labelstore.errors import DamagedDatasetError
from labelstore.parquet_bounds import check_bounds
from labelstore.record import LabelRecord, record_id_of
from labelstore.schema import NUM_HARD_COLUMNS, HardColumns
from labelstore.store import ReadableStore, read_pieces, read_range

__all__ = ["RowGroup", "ShardReader", "find_changed_bytes"]


class RowGroup:
    """The decoded records of one row group."""

    def __init__(
        self,
        table: pa.Table,
        labels: DecodedLabels,
        *,
        origin: str,
        index: int,
        first_record: int,
        earlier_tolerance: float,
    ) -> None:
        self._hard = HardColumns(table)
        self._labels = labels
        self._earlier_tolerance = earlier_tolerance
        self._origin = origin
        self._index = index
        self._first_record = first_record
        self._num_records = len(table)

    def __len__(self) -> int:
        return self._num_records

    def record(self, row: int) -> LabelRecord:
        """Return one record.

        Raises:
            DamagedDatasetError: its values are not what a record may hold.
        """
        return self._to_record(row, self._hard.record_fields(row))

    def _to_record(self, row: int, fields: dict[str, Any]) -> LabelRecord:
        try:
            return LabelRecord(labels=self._labels.row(row), **fields)
        except ValueError as error:
            place = f"row group {self._index}: record {self._first_record + row}"
            raise DamagedDatasetError(f"{self._origin}: {place}: {error}") from error

    def tolerance(self, record: LabelRecord) -> NDArray[np.float64] | None:
        """Return by how much this shard's codec may have moved the root of a probability in each label [N].

        None: by nothing.
        """
        return self._labels.tolerance(record.labels)

    def whole_tolerance(self, record: LabelRecord) -> NDArray[np.float64] | None:
        """Return the same for all codecs that the values have been through, before a conversion too."""
        own = self.tolerance(record)
        if not self._earlier_tolerance:
            return own
        earlier = np.full(len(record.labels), self._earlier_tolerance)
        return earlier if own is None else own + earlier

    def __iter__(self) -> Iterator[LabelRecord]:
        return (self._to_record(row, fields) for row, fields in enumerate(self._hard.all_record_fields()))


class ShardReader:
    """One shard of a dataset, checked against its entry as it is read. It keeps no file open."""

    def __init__(self, store: ReadableStore, entry: ShardEntry) -> None:
        """Read and check the footer.

        Raises:
            DamagedDatasetError: the file is missing, or is not what its entry says.
        """
        self._store = store
        self._entry = entry
        self._origin = f"{store}/{entry.name}"
        if entry.codec not in CODECS:
            raise self._damage(f"has the codec {entry.codec!r}, unknown to this labelgen")
        self._hashes, self._footer, model = self._read_tail()
        self._metadata = self._parse_footer()
        # One parser for all row groups: opening one takes as long as reading two columns.
        self._source = _KnownBytes(size=entry.num_bytes)
        self._parquet = self._open_parser()
        self._parsing = threading.Lock()
        self._decoder = self._open_decoder(model)
        first = 0
        self._first_records: list[int] = []
        for num_records in entry.row_group_records:
            self._first_records.append(first)
            first += num_records

    @property
    def metadata(self) -> pq.FileMetaData:
        """The Parquet footer."""
        return self._metadata

    def read_model(self) -> bytes:
        """Read the codec's model.

        Raises:
            DamagedDatasetError: it is not the one that the entry says.
        """
        return self._read_tail()[2]

    @property
    def num_row_groups(self) -> int:
        return len(self._entry.row_group_records)

    def row_group(self, index: int) -> RowGroup:
        """Read, check and decode one row group.

        Raises:
            DamagedDatasetError: the bytes are not what the entry says, or do not decode.
        """
        table = self._read_table(index, num_ranges=2)
        try:
            labels = self._decoder.decode(table)
            first_record = self._first_records[index]
            return RowGroup(
                table,
                labels,
                origin=self._origin,
                index=index,
                first_record=first_record,
                earlier_tolerance=self._entry.earlier_tolerance,
            )
        except (pa.ArrowException, ValueError, OSError) as error:
            raise self._damage(f"row group {index} does not decode: {error}") from error

    def record_ids(self, index: int) -> list[str]:
        """Return the ids of a row group's records; of its bytes, only the hard columns are read.

        Raises:
            DamagedDatasetError: the bytes are not what the entry says.
        """
        names = ["prompt_id", "document_offset", "response_index"]
        columns = self.hard_columns(index, names)
        try:
            prompt_ids, offsets, responses = (columns.column(name).to_pylist() for name in names)
        except (pa.ArrowException, ValueError, OSError) as error:
            raise self._damage(f"row group {index} does not decode: {error}") from error
        return [record_id_of(*parts) for parts in zip(prompt_ids, offsets, responses, strict=True)]

    def hard_columns(self, index: int, names: Sequence[str]) -> pa.Table:
        """Return some hard columns of a row group; of its bytes, only the hard ones are read.

        Raises:
            DamagedDatasetError: the bytes are not what the entry says.
        """
        return self._read_table(index, num_ranges=1, columns=names)

    def unread_bytes(self) -> list[Range]:
        """Return the ranges that no hash of the list covers: padding between parts, which must be none."""
        covered = sorted(
            [part for index in range(self.num_row_groups) for part in self._ranges(index)], key=lambda part: part.start
        )
        stop = self._tail_start
        edges = [Range(0, 4), *covered, Range(stop, self._entry.num_bytes)]
        return [Range(a.stop, b.start) for a, b in itertools.pairwise(edges) if a.stop < b.start]

    def _read_table(self, index: int, *, num_ranges: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read and check the hard range of a row group, or both; return columns that stand there."""
        start, content = self._read_checked(index, num_ranges)
        with self._parsing:
            self._source.hold(start, content)
            try:
                check_bounds(self._metadata, index, num_bytes=self._entry.num_bytes)
                return self._parquet.read_row_group(index, columns=columns, use_threads=False)
            except (pa.ArrowException, ValueError, OSError) as error:
                raise self._damage(f"row group {index} does not decode: {error}") from error
            finally:
                self._source.hold(0, memoryview(b""))

    def _ranges(self, index: int) -> tuple[Range, Range]:
        hard, soft = column_ranges(self._metadata, index, num_hard=NUM_HARD_COLUMNS)
        if not 4 <= hard.start <= hard.stop <= soft.start <= soft.stop <= self._tail_start:
            raise self._damage(f"row group {index} has no place: hard columns {hard}, soft columns {soft}")
        return hard, soft

    @property
    def _tail_start(self) -> int:
        """Where the row groups end, and model, hash list and footer begin."""
        entry = self._entry
        return entry.num_bytes - entry.footer_bytes - hash_list_bytes(self.num_row_groups) - entry.model_bytes

    def _read_tail(self) -> tuple[list[bytes], bytes, bytes]:
        list_bytes = hash_list_bytes(self.num_row_groups)
        if self._tail_start < 4:
            raise self._damage("is too short for the row groups in its entry")
        tail = read_range(self._store, self._entry.name, self._tail_start, self._entry.num_bytes)
        model, hash_list = tail[: self._entry.model_bytes], tail[self._entry.model_bytes :][:list_bytes]
        footer = tail[self._entry.model_bytes + list_bytes :]
        if hashlib.sha256(hash_list).hexdigest() != self._entry.hash_list_sha256:
            raise self._damage("its hash list is not the one in its entry")
        hashes = [hash_list[i : i + HASH_BYTES] for i in range(0, list_bytes, HASH_BYTES)]
        for part, content, expected in (("footer", footer, hashes[0]), ("model", model, hashes[1])):
            if hashlib.sha256(content).digest() != expected:
                raise self._damage(f"its {part} does not have the hash in its hash list")
        return hashes, footer, model

    def _open_decoder(self, model: bytes) -> Decoder:
        try:
            return CODECS[self._entry.codec].decoder(model)
        except ValueError as error:
            raise self._damage(f"its model cannot be read: {error}") from error

    def _parse_footer(self) -> pq.FileMetaData:
        # The parser wants a whole file: "PAR1", then the footer that was just checked.
        try:
            metadata = pq.read_metadata(io.BytesIO(b"PAR1" + self._footer))
        except (pa.ArrowException, OSError) as error:
            raise self._damage(f"its footer cannot be read: {error}") from error
        counted = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        if counted != self._entry.row_group_records:
            raise self._damage(f"its row groups hold {counted} records, its entry says {self._entry.row_group_records}")
        return metadata

    def _open_parser(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(pa.PythonFile(self._source, mode="r"), metadata=self._metadata, pre_buffer=False)
        except (pa.ArrowException, ValueError, OSError) as error:
            raise self._damage(f"its columns cannot be read: {error}") from error

    def _read_checked(self, index: int, num_ranges: int) -> tuple[int, memoryview]:
        """Read the hard range of a row group, or both, as one; return where that begins, and its bytes."""
        ranges = self._ranges(index)[:num_ranges]
        start = ranges[0].start
        content = memoryview(read_range(self._store, self._entry.name, start, ranges[-1].stop))
        for kind, part, expected in zip(("hard", "soft"), ranges, self._hashes[2 + 2 * index :], strict=False):
            if hashlib.sha256(content[part.start - start : part.stop - start]).digest() != expected:
                raise self._damage(f"the {kind} columns of row group {index} do not have the hash in its hash list")
        return start, content

    def _damage(self, what: str) -> DamagedDatasetError:
        return DamagedDatasetError(
            f"{self._origin}: {what}. The shard is damaged: copy it again from where it came, or run "
            f"'labelgen verify --repair' and then the command that made the dataset, which makes its block again."
        )


def find_changed_bytes(store: ReadableStore, entry: ShardEntry) -> str | None:
    """Return in what a file is not the one that was published, whose hash is in its entry; reads all of it.

    Raises:
        FileNotFoundError: it is missing.
    """
    size = store.size(entry.name)
    if size != entry.num_bytes:
        return f"has {size} bytes, its entry says {entry.num_bytes}"
    digest = hashlib.sha256()
    for piece in read_pieces(store, entry.name, size):
        digest.update(piece)
    return None if digest.hexdigest() == entry.sha256 else "does not have the hash in its entry"


class _KnownBytes(io.RawIOBase):
    """A file of which only one run of bytes is known at a time; reading any other is an error."""

    def __init__(self, *, size: int) -> None:
        self._size = size
        self._place = 0
        self.hold(0, memoryview(b""))

    def hold(self, start: int, content: memoryview) -> None:
        """Know these bytes from here on, and no others."""
        self._start = start
        self._content = content

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int | None = -1) -> memoryview:
        start = self._place - self._start
        stop = (self._size if size is None or size < 0 else min(self._place + size, self._size)) - self._start
        if not 0 <= start <= stop <= len(self._content):
            raise OSError(f"bytes [{self._place}, {self._start + stop}) are outside the row group")
        self._place += stop - start
        return self._content[start:stop]
