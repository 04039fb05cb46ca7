"""Publishes complete blocks in a thread of its own, while the engine works on the next ones."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from labelgen.job.blocks import collect_block
from labelgen.prompts.prompt import Reject
from labelgen.prompts.rejects import RejectLog
from labelgen.prompts.snapshot import PromptSnapshot
from labelstore.dataset_writer import DatasetWriter
from labelstore.errors import DamagedDatasetError
from labelstore.journal import BlockResponses, Journal

__all__ = ["BlockPublisher"]

# Blocks that may wait for the one that is encoded: the engine need not. More of them would only say that the encoder is
# slower than the engine.
_MAX_WAITING = 1


class BlockPublisher:
    """Takes complete blocks from the journal, encodes and publishes them one after the other, in the order given."""

    def __init__(
        self,
        writer: DatasetWriter,
        journal: Journal,
        snapshot: PromptSnapshot,
        rejects: RejectLog,
        *,
        recorded: Mapping[str, Any],
        note: Callable[[str], None],
    ) -> None:
        self._writer = writer
        self._journal = journal
        self._snapshot = snapshot
        self._rejects = rejects
        self._recorded = recorded
        self._note = note
        self._queue: queue.Queue[tuple[str, list[Reject]] | None] = queue.Queue(maxsize=_MAX_WAITING)
        self._failure: BaseException | None = None
        self.blocks: list[str] = []  # that are published, by this job or another one first
        self.num_prompts = 0  # of those
        self.num_labels = 0  # published by this job
        self.num_bytes = 0
        # A daemon: a job that is told to stop does not wait until a block is encoded, as the journal has it.
        self._thread = threading.Thread(target=self._work, name="labelgen-publisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, block: str, unasked: list[Reject]) -> None:
        """Publish a block soon; waits where too many wait already. `unasked`: rejects of prompts without a request.

        Raises:
            Exception: what an earlier block failed with.
        """
        self.check()
        self._queue.put((block, unasked))

    def check(self) -> None:
        """Raise what a block failed with, if one did."""
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Wait until all is published.

        Raises:
            Exception: what a block failed with.
        """
        self._queue.put(None)
        while self._thread.is_alive():  # in short waits, or no signal would be handled meanwhile
            self._thread.join(0.2)
        self.check()

    def give_up(self, *, timeout_seconds: float) -> None:
        """Begin no further block; wait a while for the one at hand."""
        self._failure = self._failure or InterruptedError("the job was told to stop")
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._queue.put(None)
        self._thread.join(timeout_seconds)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._failure is None:  # else only make room, so that nobody waits for it
                try:
                    self._publish(*item)
                except BaseException as error:
                    self._failure = error

    def _publish(self, block: str, unasked: list[Reject]) -> None:
        responses = None if self._writer.is_published(block) else self._read(block)
        was_first = False
        if responses is not None:
            complete = collect_block(block, self._snapshot.read_block(block), responses, unasked)
            for reject in complete.rejects:
                self._rejects.add(reject)
            self._rejects.flush()
            was_first = self._writer.publish_block(
                block,
                complete.records,
                num_prompts=complete.num_prompts,
                num_rejected=complete.num_rejected,
                num_refused=complete.num_refused,
                recorded=self._recorded,
                are_checked=True,  # when they came
            )
            if was_first:
                shards = self._writer.entries[block].shards
                self.num_labels += sum(shard.counts.num_labels for shard in shards)
                self.num_bytes += sum(shard.num_bytes for shard in shards)
        self._journal.remove(block)
        self.num_prompts += self._snapshot.num_prompts(block)
        self.blocks.append(block)
        if not was_first:
            self._note(f"block {block} was published by another job first; this one's copy is dropped")

    def _read(self, block: str) -> BlockResponses | None:
        """Return a block's responses; None where another job has published them, and tidied the journal."""
        try:
            return self._journal.read(block)
        except DamagedDatasetError:
            if self._writer.is_published(block):
                return None
            raise
