"""How a run stands, for whoever watches, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from labelstore.entry import LabelCounts
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run came to."""

    output_dir: Path
    counts: LabelCounts  # of the whole dataset
    num_bytes: int  # of all its shards
    num_new_labels: int  # made by this run
    num_new_records: int
    num_rejected: int  # rows and prompts that gave no record, in all
    num_duplicates: int  # rows of this reading that were there already
    seconds: float  # this run's labelling, without loading the teacher
    notes: tuple[str, ...] = field(default=())
    rescored: Rescored | None = None  # what reading records again came to; None where this run labelled nothing

    @property
    def labels_per_second(self) -> float:
        return self.num_new_labels / self.seconds if self.seconds else 0.0


class RunWatcher(Protocol):
    """Is told how a run goes."""

    def note(self, message: str, /) -> None: ...
    def advance(self, progress: RunProgress, /) -> None: ...


class NullWatcher:
    """Watches nothing."""

    def note(self, message: str, /) -> None:
        pass

    def advance(self, progress: RunProgress, /) -> None:
        pass
