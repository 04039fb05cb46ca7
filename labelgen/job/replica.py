"""One of several engines that label a dataset together: it asks for blocks one by one, and says how it stands."""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labelgen.job.executor import Executor
from labelgen.job.heartbeat import ProcessName
from labelgen.job.labelling import Labelling
from labelgen.job.predecessors import Predecessors
from labelgen.job.progress import RunProgress
from labelgen.job.pulse import Pulse
from labelgen.job.setup import JobSetup
from labelgen.job.spec import RunSpec
from labelgen.job.stopping import StoppedError, StopSignals
from labelgen.rescore.at_end import rescore_at_end
from labelgen.teachers.teacher import EngineError, Teacher
from labelstore.journal import Journal
from labelstore.manifest import Manifest
from labelstore.rescored import Rescored

__all__ = ["Assignment", "Order", "Replica", "ReplicaState", "TeacherLoader"]

TeacherLoader = Callable[[RunSpec, int], Teacher]  # of a replica with this number
_POLL_SECONDS = 1.0  # what a poll waits for news


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A block to label, and what is known of deaths over it."""

    block: str
    is_suspect: bool = False  # all of it runs apart from other blocks
    suspect_ids: tuple[str, ...] = ()
    verdicts: Mapping[str, str] = field(default_factory=dict)
    deaths: Mapping[str, int] = field(default_factory=dict)
    lone_deaths: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a replica is told when it is polled."""

    assignment: Assignment | None = None
    has_no_more: bool = False  # the block that it asked for: finish what is open, and ask again
    is_to_stop: bool = False  # finish what is in flight, and take no more
    is_to_flush: bool = False  # write down now all that is finished
    num_rescored: int = 0  # all is labelled: read so many records again


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaState:
    """How a replica stands. Counts are of all that it has labelled since it was started."""

    process: ProcessName
    wants_block: bool
    is_idle: bool  # nothing is open
    has_begun: bool  # the teacher is at work
    published_blocks: tuple[str, ...]
    num_requests: int
    num_prompts_answered: int
    num_open_prompts: int
    num_labels: int
    num_rejected: int
    num_looping: int
    num_in_flight: int
    kept_mass_sum: float
    num_published_labels: int
    num_published_bytes: int
    stage: str
    notes: tuple[str, ...]  # since the poll before
    failure: Exception | None  # it has ended with it
    rescored: Rescored | None


class Replica:
    """Works in a thread of its own from the beginning; all else is said by `poll`."""

    def __init__(
        self,
        spec: RunSpec,
        number: int,
        load_teacher: TeacherLoader,
        scored_datasets: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._spec = spec
        self._scored_datasets = scored_datasets
        self._number = number
        self._load_teacher = load_teacher
        self._stop = StopSignals()
        self._changed = threading.Condition()  # guards all that follows
        self._assignments: collections.deque[Assignment] = collections.deque()
        self._has_no_more = False
        self._wants_block = False
        self._has_news = False
        self._is_idle = True
        self._labelling: Labelling | None = None
        self._journal: Journal | None = None
        self._past = _Counts()
        self._notes: list[str] = []
        self._stage = ""
        self._num_rescored = 0
        self._rescored: Rescored | None = None
        self._failure: Exception | None = None
        threading.Thread(target=self._work, name="labelgen-replica", daemon=True).start()

    def poll(self, order: Order) -> ReplicaState:
        """Take an order; return how the replica stands when there is news, after a second at the latest."""
        if order.is_to_stop:
            self._stop.ask()
        journal = self._journal
        if order.is_to_flush and journal is not None:
            journal.flush()
        with self._changed:
            if order.assignment is not None:
                self._assignments.append(order.assignment)
            self._has_no_more = order.has_no_more
            self._num_rescored = order.num_rescored
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._has_news, 0 if order.is_to_flush else _POLL_SECONDS)
            self._has_news = False
            notes, self._notes = self._notes, []
            counts = self._past if self._labelling is None else self._past.plus(self._labelling)
            return ReplicaState(
                process=ProcessName.of_this(),
                wants_block=self._wants_block and not self._assignments,
                is_idle=self._is_idle,
                has_begun=self._labelling is not None and self._labelling.has_begun,
                stage=self._stage,
                notes=tuple(notes),
                failure=self._failure,
                rescored=self._rescored,
                **{name: getattr(counts, name) for name in _Counts.__slots__},
            )

    # What follows makes it the watcher of its own labelling.
    def stage(self, message: str, /) -> None:
        self._stage = message

    def note(self, message: str, /) -> None:
        with self._changed:
            self._notes.append(message)

    def advance(self, progress: RunProgress, /) -> None:
        pass

    def _work(self) -> None:
        teacher: Teacher | None = None
        try:
            teacher = self._load_teacher(self._spec, self._number)
            executor = Executor(JobSetup.of(self._spec, teacher, scored_datasets=self._scored_datasets))
            while not self._stop.is_asked:
                if (assignment := self._next(is_idle=True)) is not None:
                    self._label(executor, teacher, assignment)
                elif self._num_rescored and self._rescored is None:
                    self._rescore(executor, teacher)
        except StoppedError:
            pass
        except EngineError as error:
            self._failure = EngineError(str(error))  # its kinds have more to them than a message, and do not travel
        except Exception as error:
            self._failure = error
        finally:
            if teacher is not None:
                teacher.close()
            with self._changed:
                self._is_idle, self._has_news = True, True
                self._changed.notify_all()

    def _label(self, executor: Executor, teacher: Teacher, first: Assignment) -> None:
        """Label a block, and more of them until there are none."""
        journal = executor.new_journal()
        nothing = Predecessors(beside=(), superseded={}, deaths={}, lone_deaths={})
        with Pulse(executor.writer.store, nothing, share=f"replica {self._number}", is_kept=False) as pulse:
            labelling = executor.labelling(
                teacher,
                self._blocks(first, executor, pulse),
                journal,
                self,
                total_prompts=0,
                before_group=pulse.beat,
            )
            self._labelling, self._journal, self._is_idle = labelling, journal, False
            pulse.follow(labelling, num_prompts_before=0, num_records_before=0)
            try:
                labelling.run(self._stop)
            finally:
                with self._changed:
                    self._past = self._past.plus(labelling)
                    self._labelling, self._journal, self._is_idle, self._has_news = None, None, True, True
                    self._changed.notify_all()

    def _blocks(self, first: Assignment, executor: Executor, pulse: Pulse) -> Iterator[str]:
        assignment: Assignment | None = first
        while assignment is not None:
            block, labelling, journal = assignment.block, self._labelling, self._journal
            assert labelling is not None and journal is not None, "blocks are drawn by a labelling"
            recovery = journal.recover(
                {block: executor.snapshot.block_sha256(block)}, published=(), elsewhere=_AllBut(block)
            )
            for what in recovery.set_aside:
                self.note(f"a segment of the journal is set aside: {what}")
            labelling.finder.learn(
                suspect_ids=assignment.suspect_ids,
                suspect_blocks=[block] if assignment.is_suspect else [],
                verdicts=assignment.verdicts,
            )
            pulse.learn(deaths=assignment.deaths, lone_deaths=assignment.lone_deaths)
            yield block
            assignment = self._next(is_idle=False)

    def _next(self, *, is_idle: bool) -> Assignment | None:
        """Ask for a block; None where there is none, or something else is to be done."""
        with self._changed:
            if not self._assignments:
                self._wants_block, self._has_no_more, self._has_news = True, False, True
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: (
                        self._assignments
                        or self._stop.is_asked
                        or (self._num_rescored and not self._rescored if is_idle else self._has_no_more)
                    )
                )
            self._wants_block = False
            return self._assignments.popleft() if self._assignments and not self._stop.is_asked else None

    def _rescore(self, executor: Executor, teacher: Teacher) -> None:
        """Read records again; that it cannot costs no label."""
        executor.writer.read_on()
        contents = Manifest(header=executor.writer.header, entries=tuple(executor.writer.entries.values()))
        self.stage("reading records again")
        try:
            self._rescored = rescore_at_end(executor.writer.store, contents, teacher, num_records=self._num_rescored)
        except EngineError as error:
            self.note(f"all is labelled, but the teacher could not read records again: {error}")
            self._failure = EngineError(str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """What labellings add up to."""

    published_blocks: tuple[str, ...] = ()
    num_requests: int = 0
    num_prompts_answered: int = 0
    num_open_prompts: int = 0
    num_labels: int = 0
    num_rejected: int = 0
    num_looping: int = 0
    num_in_flight: int = 0
    kept_mass_sum: float = 0.0
    num_published_labels: int = 0
    num_published_bytes: int = 0

    def plus(self, labelling: Labelling) -> _Counts:
        progress = labelling.progress
        return dataclasses.replace(
            self,
            published_blocks=(*self.published_blocks, *labelling.published_blocks),
            num_requests=self.num_requests + progress.num_requests,
            num_prompts_answered=self.num_prompts_answered + progress.num_prompts_answered,
            num_open_prompts=progress.num_open_prompts,
            num_labels=self.num_labels + progress.num_labels,
            num_rejected=self.num_rejected + progress.num_rejected,
            num_looping=self.num_looping + labelling.num_looping,
            num_in_flight=progress.num_in_flight,
            kept_mass_sum=self.kept_mass_sum + (progress.kept_mass or 0.0) * progress.num_labels,
            num_published_labels=self.num_published_labels + progress.num_published_labels,
            num_published_bytes=self.num_published_bytes + progress.num_published_bytes,
        )


@dataclass(frozen=True, slots=True)
class _AllBut:
    """Every block but one."""

    block: str

    def __contains__(self, block: object) -> bool:
        return block != self.block
