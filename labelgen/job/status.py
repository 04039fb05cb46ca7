"""How far a dataset's job is, seen from outside: from what is on disk and the heartbeats of its jobs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from labelgen.job.heartbeat import Heartbeat, read_heartbeats
from labelgen.prompts.snapshot import PromptSnapshot
from labelstore.entry import LabelCounts, read_entries, total_counts
from labelstore.errors import NotADatasetError
from labelstore.header import HEADER_NAME
from labelstore.journal import JOURNAL_DIR
from labelstore.reject_log import read_rejects
from labelstore.store import Store, exists, open_writable_store

__all__ = ["JobStatus", "read_status"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A dataset that is being made, or was."""

    # Those that run, and those that were killed or failed beside them; where none runs, the last one, if remembered.
    jobs: tuple[Heartbeat, ...]
    total_prompts: int
    published_prompts: int
    total_blocks: int
    published_blocks: int
    published: LabelCounts
    num_rejected: int  # rows, prompts and responses, in all
    journal_bytes: int  # finished responses of unpublished blocks

    @property
    def is_running(self) -> bool:
        return any(job.is_alive for job in self.jobs)

    @property
    def state(self) -> str:
        """What the job does or how it ended: labelling, ..., finished, stopped, failed, killed, unfinished."""
        if self.published_blocks and self.published_blocks >= self.total_blocks and not self.is_running:
            return "finished"
        if not self.jobs:
            return "unfinished"
        jobs = self._counted or self.jobs
        last = next((job for job in reversed(jobs) if job.is_alive), jobs[-1])
        return last.state if last.is_alive or last.is_over else "killed"

    @property
    def done_prompts(self) -> int:
        """Prompts of which every response is there, published or not."""
        return min(self.published_prompts + sum(job.open_prompts for job in self._counted), self.total_prompts)

    @property
    def _counted(self) -> list[Heartbeat]:
        return [job for job in self.jobs if not job.is_replica]

    @property
    def labels_per_second(self) -> float | None:
        """What the running jobs make together; None before their first answers."""
        rates = [
            job.num_labels / job.labelling_seconds for job in self._counted if job.is_alive and job.labelling_seconds
        ]
        return sum(rates) if rates else None

    @property
    def seconds_left(self) -> float | None:
        """How long the running jobs still take at the rate so far; None where nobody can know."""
        rates = [
            job.answered_prompts / job.labelling_seconds
            for job in self._counted
            if job.is_alive and job.labelling_seconds
        ]
        return (self.total_prompts - self.done_prompts) / sum(rates) if sum(rates) else None


def read_status(location: str | Path) -> JobStatus:
    """Return how a dataset stands. Writes nothing, and holds no job up.

    Raises:
        NotADatasetError: the folder holds no dataset that a job works on.
        DamagedDatasetError: an entry or the snapshot is damaged.
    """
    store = open_writable_store(location)
    if not exists(store, HEADER_NAME):
        raise NotADatasetError(f"{store}: has no {HEADER_NAME}; give the folder that 'labelgen generate -o' writes")
    entries = read_entries(store)
    snapshot = PromptSnapshot(store.location)
    blocks = snapshot.blocks
    heartbeats = list(read_heartbeats(store).values())
    return JobStatus(
        jobs=_at_work(heartbeats) or tuple([job for job in heartbeats if not job.is_replica][-1:]),
        total_prompts=snapshot.total_prompts,
        published_prompts=sum(entry.num_prompts for entry in entries.values()),
        total_blocks=len(blocks),
        published_blocks=len(entries),
        published=total_counts(entries.values()),
        num_rejected=len(read_rejects(store)),
        journal_bytes=sum(_size(store, name) for name in store.names(JOURNAL_DIR)),
    )


def _at_work(heartbeats: list[Heartbeat]) -> tuple[Heartbeat, ...]:
    """Return the jobs that run, and those that died since the first of them began."""
    alive = [job for job in heartbeats if job.is_alive]
    first = min((job.started_at for job in alive), default=math.inf)
    return tuple(
        job for job in heartbeats if job.is_alive or (job.beat_at > first and job.state not in ("finished", "stopped"))
    )


def _size(store: Store, name: str) -> int:
    try:
        return store.size(name)
    except FileNotFoundError:  # published meanwhile
        return 0
