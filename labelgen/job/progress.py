"""How a run stands, for whoever watches, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from labelstore.entry import LabelCounts
from labelstore.location import Location
from labelstore.rescored import Rescored

__all__ = ["NullWatcher", "RunProgress", "RunSummary", "RunWatcher"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """What has been done in this run so far."""

    num_requests: int  # answered
    num_prompts: int  # whose requests have all been made
    total_prompts: int  # to be labelled in this run
    num_labels: int
    num_rejected: int
    seconds: float  # since the first request
    num_prompts_done: int = 0  # every response of theirs is answered or refused, by this job or an earlier one
    num_prompts_answered: int = 0  # of those, by this job
    num_open_prompts: int = 0  # done, in blocks that are not published yet
    num_in_flight: int = 0  # requests that the teacher has and has not answered
    kept_mass: float | None = None  # mean over this job's labels; None before the first
    num_published_labels: int = 0  # of blocks that this job has published
    num_published_bytes: int = 0  # on disk, everything included

    @property
    def labels_per_second(self) -> float:
        return self.num_labels / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_label(self) -> float | None:
        """Of what is published; None before the first block is."""
        return self.num_published_bytes / self.num_published_labels if self.num_published_labels else None

    @property
    def projected_bytes(self) -> float | None:
        """What this job's labels will take in all; None before it can be told."""
        if self.bytes_per_label is None or not self.num_prompts_answered:
            return None
        num_prompts = self.total_prompts - self.num_prompts_done + self.num_prompts_answered
        return self.bytes_per_label * self.num_labels * num_prompts / self.num_prompts_answered

    @property
    def seconds_left(self) -> float | None:
        """At the rate so far; None before as much is answered as is in flight: the first answers are the short ones."""
        if not self.num_prompts_answered or self.num_requests < self.num_in_flight:
            return None
        return (self.total_prompts - self.num_prompts_done) * self.seconds / self.num_prompts_answered


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run came to."""

    output_dir: Location
    counts: LabelCounts  # of the whole dataset, or of the part that was labelled
    num_bytes: int  # of all shards of that
    num_new_labels: int  # made by this run
    num_new_records: int
    num_rejected: int  # rows and prompts that gave no record, in all
    num_duplicates: int  # rows of this reading that were there already
    seconds: float  # this run's labelling, without loading the teacher
    notes: tuple[str, ...] = field(default=())
    rescored: Rescored | None = None  # what reading records again came to; None where this run labelled nothing
    num_blocks_left: int = 0  # of the dataset, that other parts have not published

    @property
    def labels_per_second(self) -> float:
        return self.num_new_labels / self.seconds if self.seconds else 0.0


class RunWatcher(Protocol):
    """Is told how a run goes."""

    def stage(self, message: str, /) -> None:
        """What the job does now, before there are labels: called again and again while it goes on."""

    def note(self, message: str, /) -> None: ...
    def advance(self, progress: RunProgress, /) -> None: ...


class NullWatcher:
    """Watches nothing."""

    def stage(self, message: str, /) -> None:
        pass

    def note(self, message: str, /) -> None:
        pass

    def advance(self, progress: RunProgress, /) -> None:
        pass
