"""Gathers a job's heartbeat from its parts, while they work."""

from __future__ import annotations

import time
from dataclasses import replace
from types import TracebackType

from labelgen.job.heartbeat import Heartbeat, HeartbeatWriter, ProcessName, remove_heartbeats
from labelgen.job.labelling import Labelling
from labelgen.job.predecessors import Predecessors
from labelgen.job.stopping import JobStoppedError
from labelgen.job.suspects import SuspectFinder
from labelstore.store import Store

__all__ = ["Pulse"]


class Pulse:
    """The heartbeat of one job, from its beginning to its end: use it as a context manager."""

    def __init__(self, store: Store, predecessors: Predecessors) -> None:
        now = time.time()
        self._store = store
        self._dead = list(predecessors.dead)
        self._heartbeat = Heartbeat(
            process=ProcessName.of_this(),
            state="reading",
            started_at=now,
            beat_at=now,
            deaths=predecessors.deaths,
            lone_deaths=predecessors.lone_deaths,
        )
        self._parts: tuple[Labelling, SuspectFinder] | None = None
        self._writer = HeartbeatWriter(store, beat=self._gather)

    def __enter__(self) -> Pulse:
        self._writer.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc_type is None:
            self._heartbeat = replace(self._heartbeat, state="finished")
        elif not issubclass(exc_type, JobStoppedError):
            self._heartbeat = replace(self._heartbeat, state="failed")
        self._writer.close()

    def follow(
        self, labelling: Labelling, finder: SuspectFinder, *, num_prompts_before: int, num_records_before: int
    ) -> None:
        """Follow the labelling from now on. What dead jobs said is taken over, and their files are deleted."""
        self._heartbeat = replace(
            self._heartbeat,
            state="starting",
            total_prompts=num_prompts_before + labelling.progress.total_prompts,
            done_prompts=num_prompts_before,
            records_at_start=num_records_before,
        )
        self._parts = (labelling, finder)
        self._writer.hurry()
        remove_heartbeats(self._store, self._dead)

    def beat(self) -> None:
        """Write the heartbeat now."""
        self._writer.write()

    def stop(self) -> Heartbeat:
        """Note that the job was told to stop; return how it stands."""
        self._heartbeat = replace(self._gather(), state="stopped")
        self._parts = None
        return self._heartbeat

    def _gather(self) -> Heartbeat:
        base = replace(self._heartbeat, beat_at=time.time())
        if self._parts is None:
            return base
        labelling, finder = self._parts
        progress = labelling.progress
        is_labelling = base.state == "starting" and labelling.has_begun
        return replace(
            base,
            state="labelling" if is_labelling else base.state,
            done_prompts=base.done_prompts + progress.num_prompts_done,
            answered_prompts=progress.num_prompts_answered,
            num_records=labelling.num_records,
            num_labels=labelling.num_labels,
            num_rejected=progress.num_rejected,
            labelling_seconds=progress.seconds,
            in_flight=tuple(finder.in_flight),
            is_alone=finder.is_alone,
        )
