"""The journal: finished responses of blocks that are not published yet, in memory for a while, then on disk.

It is what a killed job goes on from, and the buffer of open blocks: a block that waits for a straggler takes disk, not
memory. A response whose block is published within `flush_seconds` never touches the journal's disk.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from labelstore.errors import DamagedDatasetError, FingerprintError
from labelstore.journal_segment import (
    RefusedResponse,
    SegmentReader,
    block_of_segment,
    segment_bytes,
    segment_name,
)
from labelstore.location import Location
from labelstore.record import LabelRecord
from labelstore.store import open_writable_store

__all__ = ["JOURNAL_DIR", "BlockResponses", "Journal", "Recovery"]

JOURNAL_DIR = ".labelgen/journal"
DEFAULT_FLUSH_SECONDS = 30.0
# What may wait in memory before it is written down early: at K = 64 a label takes 540 bytes, so a million labels, or 50
# seconds at 20,000 labels/s. Through the disk and back a label costs 5 microseconds of a core more (2026-11-24).
MAX_PENDING_BYTES = 1 << 29
# Whoever adds waits at so many times that.
_PATIENCE = 1.25
# A segment is encoded in memory: two copies of so much.
_MAX_SEGMENT_BYTES = 1 << 25


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockResponses:
    """All finished responses of a block, each once, in no order."""

    records: list[LabelRecord]
    refused: list[RefusedResponse]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What an earlier job left in the journal."""

    num_records: int
    num_refused: int
    set_aside: tuple[str, ...]  # what was wrong with each segment that cannot be used


@dataclass(slots=True)
class _Block:
    sha256: str = ""  # of the block's prompts
    pending: list[LabelRecord | RefusedResponse] = field(default_factory=list)
    segments: list[str] = field(default_factory=list)  # file names, in the order of writing
    recovered: set[str] = field(default_factory=set)  # record ids that earlier jobs answered or refused


class Journal:
    """The responses of open blocks. Safe to use from several threads; a thread of its own writes them down."""

    def __init__(
        self,
        location: Location,
        *,
        fingerprint: str,
        flush_seconds: float = DEFAULT_FLUSH_SECONDS,
        max_pending_bytes: int = MAX_PENDING_BYTES,
    ) -> None:
        """Keep segments in `.labelgen/journal/` below `location`: the dataset's, or a folder on a faster disk.

        Writes nothing and reads nothing yet; see `recover` and `start`.
        """
        self._store = open_writable_store(location)
        self._fingerprint = fingerprint
        self._flush_seconds = flush_seconds
        self._max_pending_bytes = max_pending_bytes
        self._blocks: dict[str, _Block] = {}
        self._pending_bytes = 0
        self._changed = threading.Condition()  # guards the three above
        self._files = threading.Lock()  # held while segments are written, read or removed; taken before `_changed`
        self._failure: BaseException | None = None
        self._is_closing = False
        self._flusher: threading.Thread | None = None

    @property
    def has_segments(self) -> bool:
        """Does it hold responses of an earlier job?"""
        return bool(self.segment_blocks)

    @property
    def segment_blocks(self) -> set[str]:
        """The blocks that it holds responses of."""
        return {block for name in self._segment_names() if (block := block_of_segment(name)) is not None}

    def recover(
        self, block_sha256s: dict[str, str], *, published: Container[str], elsewhere: Container[str] = ()
    ) -> Recovery:
        """Take over what earlier jobs left, for the blocks named with the hash of their prompts.

        Segments of published blocks are deleted: a job was killed between the entry and this. Those of blocks that are
        labelled `elsewhere` are left alone. One that is damaged, or belongs to other prompts, is renamed to
        `<name>.damaged` and reported; its responses are made again.

        Raises:
            FingerprintError: a segment holds labels of another teacher or other settings.
        """
        self._store.remove_stale_scratch()
        set_aside, num_records, num_refused = [], 0, 0
        for name in list(self._segment_names()):
            block = block_of_segment(name)
            assert block is not None, "only segments are listed"
            if block in published:
                self._store.delete(f"{JOURNAL_DIR}/{name}")
                continue
            if block in elsewhere:
                continue
            try:
                segment = self._open(name)
                if segment.fingerprint == self._fingerprint and segment.block_sha256 != block_sha256s.get(block):
                    raise DamagedDatasetError(f"{name}: belongs to other prompts than those of block {block}")
                ids = segment.record_ids()
            except DamagedDatasetError as error:
                self._store.move(f"{JOURNAL_DIR}/{name}", f"{JOURNAL_DIR}/{name}.damaged")
                set_aside.append(str(error))
                continue
            if segment.fingerprint != self._fingerprint:
                raise FingerprintError(
                    f"{self._store}/{JOURNAL_DIR}/{name}: holds responses of another teacher or other settings "
                    f"(fingerprint {segment.fingerprint[:16]}, this job's is {self._fingerprint[:16]}). Use the old "
                    f"settings to go on with them, or move the journal away."
                )
            state = self._blocks.setdefault(block, _Block())
            state.segments.append(name)
            num_records += len(set(ids) - state.recovered)
            state.recovered.update(ids)
            refused_ids = {response.record_id for response in segment.refused} - state.recovered
            num_refused += len(refused_ids)
            state.recovered |= refused_ids
        return Recovery(num_records=num_records, num_refused=num_refused, set_aside=tuple(set_aside))

    def start(self) -> None:
        """Begin to write down, every `flush_seconds` and whenever much is pending."""
        self._flusher = threading.Thread(target=self._flush_regularly, name="labelgen-journal", daemon=True)
        self._flusher.start()

    def open_block(self, block: str, *, sha256: str) -> set[str]:
        """Begin a block; return the ids of its records that earlier jobs answered or refused."""
        with self._changed:
            state = self._blocks.setdefault(block, _Block())
            state.sha256 = sha256
            recovered, state.recovered = state.recovered, set()
            return recovered

    def add(self, block: str, response: LabelRecord | RefusedResponse) -> None:
        """Take in a finished response of an open block; waits where the disk is too slow for what comes in.

        Raises:
            OSError: an earlier response could not be written down.
        """
        with self._changed:
            self._raise_failure()
            self._blocks[block].pending.append(response)
            self._pending_bytes += _size_of(response)
            if self._pending_bytes >= self._max_pending_bytes:
                self._changed.notify_all()
            while self._pending_bytes >= _PATIENCE * self._max_pending_bytes and self._flusher is not None:
                self._changed.wait(1.0)
                self._raise_failure()

    def flush(self) -> None:
        """Write down all that is pending; when it returns, no crash can lose it.

        Raises:
            OSError: it cannot be written; what is not stays pending.
        """
        with self._files:
            with self._changed:
                batches = [(block, state, list(state.pending)) for block, state in self._blocks.items()]
            for block, state, responses in batches:
                for part in _parts(responses):
                    content = segment_bytes(
                        [response for response in part if isinstance(response, LabelRecord)],
                        [response for response in part if isinstance(response, RefusedResponse)],
                        fingerprint=self._fingerprint,
                        block_sha256=state.sha256,
                    )
                    name = segment_name(block, content)
                    self._store.put_new(f"{JOURNAL_DIR}/{name}", content)  # taken: the same bytes are there
                    with self._changed:
                        state.segments.append(name)
                        del state.pending[: len(part)]
                        self._pending_bytes -= sum(_size_of(response) for response in part)
                        self._changed.notify_all()

    def read(self, block: str) -> BlockResponses:
        """Return all responses of an open block. Of two of the same id the first wins.

        Raises:
            DamagedDatasetError: a segment that this or an earlier job wrote cannot be read any more.
        """
        with self._files:
            with self._changed:
                state = self._blocks[block]
                pending = list(state.pending)
            records: dict[str, LabelRecord] = {}
            refused: dict[str, RefusedResponse] = {}
            for name in state.segments:
                segment = self._open(name)
                for record in segment.records():
                    records.setdefault(record.record_id, record)
                for response in segment.refused:
                    refused.setdefault(response.record_id, response)
        for item in pending:
            if isinstance(item, LabelRecord):
                records.setdefault(item.record_id, item)
            else:
                refused.setdefault(item.record_id, item)
        return BlockResponses(
            records=list(records.values()),
            refused=[response for name, response in refused.items() if name not in records],
        )

    def remove(self, block: str) -> None:
        """Forget a block that is published, and delete its segments."""
        with self._files:
            with self._changed:
                state = self._blocks.pop(block)
                self._pending_bytes -= sum(_size_of(response) for response in state.pending)
                self._changed.notify_all()
            for name in state.segments:
                self._store.delete(f"{JOURNAL_DIR}/{name}")

    def close(self) -> None:
        """Write down what is pending and stop.

        Raises:
            OSError: it cannot be written.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._flusher is not None:
            self._flusher.join()
            self._flusher = None
        self.flush()

    def _segment_names(self) -> Iterator[str]:
        names = (name.rsplit("/", 1)[-1] for name in self._store.names(JOURNAL_DIR))
        return (name for name in names if block_of_segment(name) is not None)

    def _open(self, name: str) -> SegmentReader:
        try:
            return SegmentReader(name, self._store.read(f"{JOURNAL_DIR}/{name}"))
        except FileNotFoundError as error:
            raise DamagedDatasetError(f"{self._store}/{JOURNAL_DIR}/{name}: the segment is missing") from error

    def _flush_regularly(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_closing or self._pending_bytes >= self._max_pending_bytes, self._flush_seconds
                )
                if self._is_closing:
                    return
            try:
                self.flush()
            except BaseException as error:
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                return

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _parts(responses: list[LabelRecord | RefusedResponse]) -> Iterator[list[LabelRecord | RefusedResponse]]:
    """Cut responses into runs of a bounded size."""
    part: list[LabelRecord | RefusedResponse] = []
    num_bytes = 0
    for response in responses:
        part.append(response)
        num_bytes += _size_of(response)
        if num_bytes >= _MAX_SEGMENT_BYTES:
            yield part
            part, num_bytes = [], 0
    if part:
        yield part


def _size_of(response: LabelRecord | RefusedResponse) -> int:
    """Return about how many bytes a response takes in memory."""
    if isinstance(response, RefusedResponse):
        return 500
    labels = response.labels
    arrays = (labels.token_ids, labels.logprobs, labels.draw_counts, response.input_ids)
    # The arrays of one value a label: offsets 8 bytes, the others 4. A record's own objects take about a kilobyte.
    return (
        1000 + 24 * len(labels) + len(response.text or "") + sum(array.nbytes for array in arrays if array is not None)
    )
