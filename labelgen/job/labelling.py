"""The labelling of some blocks: requests to the teacher, answers to the journal, complete blocks to the publisher."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from labelgen.job.blocks import BlockCollector
from labelgen.job.concerns import ends_in_loop
from labelgen.job.progress import RunProgress, RunWatcher
from labelgen.job.publisher import BlockPublisher
from labelgen.job.stopping import StoppedError, StopSignals
from labelgen.job.suspects import SuspectFinder
from labelgen.teachers.teacher import Request, Teacher
from labelstore.journal import Journal

__all__ = ["Labelling"]

# What a job that was told to stop waits for the block that is being encoded; its responses are in the journal anyway.
_PUBLISHER_SECONDS = 3.0


class Labelling:
    """Carries some blocks through. Journal and publisher work in threads of their own beside it."""

    def __init__(
        self,
        teacher: Teacher,
        collector: BlockCollector,
        publisher: BlockPublisher,
        journal: Journal,
        finder: SuspectFinder,
        watcher: RunWatcher,
        *,
        total_prompts: int,
    ) -> None:
        self._teacher = teacher
        self._collector = collector
        self._publisher = publisher
        self._journal = journal
        self.finder = finder
        self._watcher = watcher
        self._total_prompts = total_prompts
        self._started: float | None = None
        self._answered: float | None = None
        self.num_records = 0
        self.num_labels = 0
        self.num_looping = 0  # responses that end by repeating themselves
        self._num_requests = 0
        self._num_drawn = 0
        self._kept_mass_sum = 0.0

    @property
    def progress(self) -> RunProgress:
        """How it stands. May be asked from any thread."""
        return RunProgress(
            num_requests=self._num_requests,
            num_prompts=self._collector.num_prompts_drawn,
            total_prompts=self._total_prompts,
            num_labels=self.num_labels,
            num_rejected=self._collector.num_rejected,
            seconds=self.seconds,
            num_prompts_done=self._collector.num_prompts_done,
            num_prompts_answered=self._collector.num_prompts_answered,
            num_open_prompts=max(self._collector.num_prompts_done - self._publisher.num_prompts, 0),
            num_in_flight=self._num_drawn - self._num_requests,
            kept_mass=self._kept_mass_sum / self.num_labels if self.num_labels else None,
            num_published_labels=self._publisher.num_labels,
            num_published_bytes=self._publisher.num_bytes,
        )

    @property
    def in_flight(self) -> list[str]:
        """The ids of the requests that the teacher has and has not answered. May be asked from any thread."""
        return self.finder.in_flight

    @property
    def is_alone(self) -> bool:
        """Is what is in flight a suspect that runs with nothing beside it?"""
        return self.finder.is_alone

    @property
    def published_blocks(self) -> list[str]:
        """The blocks that are published. May be asked from any thread."""
        return list(self._publisher.blocks)

    @property
    def has_begun(self) -> bool:
        """Is the teacher at work?"""
        return self._started is not None

    @property
    def seconds(self) -> float:
        """From the first request to the last answer so far."""
        if self._started is None or self._answered is None:
            return 0.0
        return self._answered - self._started

    def run(self, stop: StopSignals) -> None:
        """Label until all is published, or the job is told to stop: then all that was answered is in the journal.

        Raises:
            StoppedError: it was told to stop.
            EngineError, StorageError, OSError: it cannot go on; what was answered is in the journal too.
        """
        self._journal.start()
        self._publisher.start()
        try:
            self._label(stop)
            if stop.is_asked:
                raise StoppedError
            with stop.interruptible():
                self._publisher.finish()
        finally:
            try:
                self._journal.close()  # first of all: from here on nothing can be lost
            finally:
                self._publisher.give_up(timeout_seconds=_PUBLISHER_SECONDS)

    def _label(self, stop: StopSignals) -> None:
        made = self._collector.requests()
        requests = self._counted(itertools.takewhile(lambda _: not stop.is_asked, made))
        first = next(requests, None)
        if first is not None:  # where all is rejected, or in the journal, no engine is started
            self._watcher.stage("loading the teacher")
            with stop.interruptible():
                self._teacher.start()
            requests = itertools.chain([first], requests)
        self._started = time.monotonic()
        answers = self.finder.label(requests)
        while True:
            with stop.interruptible(has_grace=True):
                answer = next(answers, None)
            if answer is None:
                break
            record = self._collector.take(answer)
            self._num_requests += 1
            if record is not None:
                self.num_records += 1
                self.num_labels += len(record.labels)
                if record.finish_reason is not None:
                    self.num_looping += ends_in_loop(record.input_ids[record.spans[0, 0] :])
                self._kept_mass_sum += float(record.labels.kept_mass.sum())
            self._answered = time.monotonic()
            self._submit(stop)
            self._watcher.advance(self.progress)
        self._submit(stop)  # blocks that needed no answer

    def _counted(self, requests: Iterator[Request]) -> Iterator[Request]:
        for request in requests:
            self._num_drawn += 1
            yield request

    def _submit(self, stop: StopSignals) -> None:
        self._publisher.check()  # a failed write ends the job now, not when the next block is complete
        for block, unasked in self._collector.take_complete():
            with stop.interruptible(has_grace=True):
                self._publisher.submit(block, unasked)
