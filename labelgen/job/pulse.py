"""Gathers a job's heartbeat from its parts, while they work."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Protocol

from labelgen.job.heartbeat import Heartbeat, HeartbeatWriter, ProcessName, remove_heartbeats
from labelgen.job.predecessors import Predecessors
from labelgen.job.progress import RunProgress
from labelgen.job.stopping import JobStoppedError
from labelstore.store import Store

__all__ = ["Followed", "Pulse"]


class Followed(Protocol):
    """What a labelling tells of itself; asked from another thread."""

    @property
    def progress(self) -> RunProgress: ...
    @property
    def has_begun(self) -> bool: ...
    @property
    def in_flight(self) -> Sequence[str]: ...
    @property
    def is_alone(self) -> bool: ...
    @property
    def num_records(self) -> int: ...
    @property
    def num_labels(self) -> int: ...


class Pulse:
    """The heartbeat of one job, from its beginning to its end: use it as a context manager."""

    def __init__(self, store: Store, predecessors: Predecessors, *, share: str = "", is_kept: bool = True) -> None:
        """`share` says which part of the dataset the job labels; empty: all of it.

        Unless it `is_kept`, the heartbeat is deleted at the end: it stays behind a death alone.
        """
        now = time.time()
        self._store = store
        self._superseded = list(predecessors.superseded)
        self._heartbeat = Heartbeat(
            process=ProcessName.of_this(),
            state="reading",
            started_at=now,
            beat_at=now,
            share=share,
            deaths=predecessors.deaths,
            lone_deaths=predecessors.lone_deaths,
        )
        self._is_kept = is_kept
        self._labelling: Followed | None = None
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
        if not self._is_kept:
            remove_heartbeats(self._store, [self._writer.name])

    def follow(self, labelling: Followed, *, num_prompts_before: int, num_records_before: int) -> None:
        """Follow the labelling from now on. What dead jobs said is taken over, and their files are deleted."""
        self._heartbeat = replace(
            self._heartbeat,
            state="starting",
            total_prompts=num_prompts_before + labelling.progress.total_prompts,
            done_prompts=num_prompts_before,
            records_at_start=num_records_before,
        )
        self._labelling = labelling
        self._writer.hurry()
        remove_heartbeats(self._store, self._superseded)

    def learn(self, *, deaths: Mapping[str, int], lone_deaths: Mapping[str, int]) -> None:
        """Take in what is known of deaths over requests, so that the next job knows it too."""
        known = self._heartbeat
        self._heartbeat = replace(
            known, deaths={**known.deaths, **deaths}, lone_deaths={**known.lone_deaths, **lone_deaths}
        )

    def beat(self) -> None:
        """Write the heartbeat now."""
        self._writer.write()

    def stop(self) -> Heartbeat:
        """Note that the job was told to stop; return how it stands."""
        self._heartbeat = replace(self._gather(), state="stopped")
        self._labelling = None
        return self._heartbeat

    def _gather(self) -> Heartbeat:
        base = replace(self._heartbeat, beat_at=time.time())
        if self._labelling is None:
            return base
        labelling, progress = self._labelling, self._labelling.progress
        is_labelling = base.state == "starting" and labelling.has_begun
        return replace(
            base,
            state="labelling" if is_labelling else base.state,
            done_prompts=base.done_prompts + progress.num_prompts_done,
            open_prompts=progress.num_open_prompts,
            answered_prompts=progress.num_prompts_answered,
            num_records=labelling.num_records,
            num_labels=labelling.num_labels,
            num_rejected=progress.num_rejected,
            labelling_seconds=progress.seconds,
            in_flight=tuple(labelling.in_flight),
            is_alone=labelling.is_alone,
        )
