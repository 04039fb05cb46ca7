"""The labelling of blocks by several replicas: who gets which, who is started again, and how they stand together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from labelgen.job.dispatcher import Dispatcher
from labelgen.job.heartbeat import read_heartbeats, remove_heartbeats
from labelgen.job.progress import RunProgress, RunWatcher
from labelgen.job.replica import Order, ReplicaState
from labelgen.job.stopping import StoppedError, StopSignals
from labelgen.prompts.rejects import RejectLimit
from labelgen.teachers.teacher import EngineError
from labelstore.rescored import Rescored
from labelstore.store import Store

__all__ = ["ReplicaDeath", "ReplicaPool", "ReplicatedLabelling"]

_WAIT_SECONDS = 0.2
_FLUSH_SECONDS = 20.0  # what a job that is told to stop waits for the replicas' journals
_LONGEST_PAUSE_SECONDS = 60.0  # before a replica is started again; each pause is twice the one before
# Deaths of one replica in a row, without an answer between them. A poison takes seven at worst to be found.
_MAX_DEATHS_IN_A_ROW = 8
# A replica that answers no poll so long is not there any more.
_SILENT_SECONDS = 60.0
# One that has requests in flight and gives no answer so long hangs; the longest responses take minutes.
_STALLED_SECONDS = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaDeath:
    """A replica's process is gone, or cannot be reached."""

    reason: str


class ReplicaPool(Protocol):
    """Starts replicas, polls them and ends them; whoever runs them."""

    def num_wanted(self) -> int:
        """Return how many replicas there should be now; it may grow while the job runs."""

    def start(self, number: int) -> None:
        """Start a replica, or start it again; it may take its time."""

    def poll(self, number: int, order: Order) -> None:
        """Send an order to a replica; its state comes with `wait`."""

    def wait(self, timeout_seconds: float) -> list[tuple[int, ReplicaState | ReplicaDeath]]:
        """Return the answers of polls, as they come."""

    def kill(self, number: int) -> None:
        """End a replica, whatever it does."""

    def close(self) -> None:
        """End all replicas."""


@dataclass(slots=True, kw_only=True)
class _Slot:
    """One replica, over all its lives."""

    start_at: float = 0.0  # time.monotonic()
    is_started: bool = False
    is_given_up: bool = False
    deaths_in_a_row: int = 0
    state: ReplicaState | None = None  # of this life
    polled_at: float = 0.0
    changed_at: float = 0.0  # when it last gave an answer
    past: list[ReplicaState] = field(default_factory=list)  # the last one of each life before


class ReplicatedLabelling:
    """Carries blocks through with the replicas of a pool."""

    def __init__(
        self,
        pool: ReplicaPool,
        dispatcher: Dispatcher,
        watcher: RunWatcher,
        *,
        store: Store,
        total_prompts: int,
        learn: Callable[[Dispatcher], None] = lambda _: None,
        max_rejects: RejectLimit | None = None,
    ) -> None:
        """`learn` is called when the dispatcher has learned of a death."""
        self._pool = pool
        self._dispatcher = dispatcher
        self._watcher = watcher
        self._store = store
        self._total_prompts = total_prompts
        self._learn = learn
        self._max_rejects = max_rejects
        self._slots: dict[int, _Slot] = {}
        self._began_at: float | None = None
        self._answered_at: float | None = None
        self._is_stopping = False
        self._last_reason = ""
        self.num_records = 0  # known at the end, from what is published

    @property
    def progress(self) -> RunProgress:
        """How it stands, all replicas together. May be asked from any thread."""
        states = self._states
        live = [slot.state for slot in list(self._slots.values()) if slot.state is not None]
        num_labels = self.num_labels
        num_open = sum(state.num_open_prompts for state in live)
        num_done = self._dispatcher.num_published_prompts + num_open
        return RunProgress(
            num_requests=sum(state.num_requests for state in states),
            num_prompts=num_done,
            total_prompts=self._total_prompts,
            num_labels=num_labels,
            num_rejected=sum(state.num_rejected for state in states),
            seconds=self.seconds,
            num_prompts_done=min(num_done, self._total_prompts),
            num_prompts_answered=sum(state.num_prompts_answered for state in states),
            num_open_prompts=num_open,
            num_in_flight=sum(state.num_in_flight for state in live),
            kept_mass=sum(state.kept_mass_sum for state in states) / num_labels if num_labels else None,
            num_published_labels=sum(state.num_published_labels for state in states),
            num_published_bytes=sum(state.num_published_bytes for state in states),
        )

    @property
    def num_labels(self) -> int:
        return sum(state.num_labels for state in self._states)

    @property
    def num_looping(self) -> int:
        return sum(state.num_looping for state in self._states)

    @property
    def has_begun(self) -> bool:
        """Is a teacher at work?"""
        return self._began_at is not None

    @property
    def in_flight(self) -> Sequence[str]:
        """None: each replica's heartbeat says what it has in flight."""
        return ()

    @property
    def is_alone(self) -> bool:
        return False

    @property
    def seconds(self) -> float:
        """From the first request to the last answer so far."""
        if self._began_at is None or self._answered_at is None:
            return 0.0
        return self._answered_at - self._began_at

    def run(self, stop: StopSignals) -> None:
        """Label until all is published, or the job is told to stop: then all that was answered is in the journal.

        Raises:
            StoppedError: it was told to stop.
            EngineError: no replica can be kept alive.
            Exception: what else a replica ended with; the others' journals are written down.
        """
        try:
            while not self._dispatcher.is_done:
                with stop.interruptible(has_grace=True):
                    if stop.is_asked and not self._is_stopping:
                        self._is_stopping = True
                        self._watcher.note("told to stop: replicas finish what is in flight and take no more")
                    if self._is_stopping and all(state.is_idle for state in self._live):
                        raise StoppedError
                    self._step()
        except BaseException:
            self._flush()
            raise

    def rescore(self, num_records: int) -> Rescored | None:
        """Let a replica read records again; None where none can."""
        number = next((number for number, slot in self._slots.items() if slot.state is not None), None)
        if number is None:
            return None
        slot = self._slots[number]
        while slot.state is not None and slot.state.rescored is None and slot.state.failure is None:
            self._step(rescoring=(number, num_records))
        return None if slot.state is None else slot.state.rescored

    @property
    def _live(self) -> list[ReplicaState]:
        return [slot.state for slot in self._slots.values() if slot.state is not None]

    @property
    def _states(self) -> list[ReplicaState]:
        slots = list(self._slots.values())
        return [state for slot in slots for state in (*slot.past, slot.state) if state is not None]

    def _step(self, rescoring: tuple[int, int] | None = None) -> None:
        if not self._is_stopping and rescoring is None:
            self._start_some()
        for number, news in self._pool.wait(_WAIT_SECONDS):
            if isinstance(news, ReplicaDeath):
                self._bury(number, news.reason)
            else:
                self._take(number, news, num_rescored=rescoring[1] if rescoring and rescoring[0] == number else 0)
        self._find_hung()
        progress = self.progress
        if self._max_rejects is not None:
            self._max_rejects.check(
                num_rejected=progress.num_rejected,
                num_rows=progress.num_prompts_done,
                last="see .labelgen/rejected/",
            )
        if self.has_begun and rescoring is None:
            self._watcher.advance(progress)

    def _start_some(self) -> None:
        for number in range(1, self._pool.num_wanted() + 1):
            slot = self._slots.setdefault(number, _Slot())
            is_due = not slot.is_started and not slot.is_given_up and slot.start_at <= time.monotonic()
            num_started = sum(other.is_started for other in self._slots.values())
            if is_due and self._dispatcher.has_waiting and num_started < self._dispatcher.num_unpublished:
                slot.is_started, slot.state = True, None
                self._watcher.stage(f"starting replicas: {num_started + 1}")
                self._pool.start(number)
                self._poll(number, Order())

    def _poll(self, number: int, order: Order) -> None:
        self._slots[number].polled_at = time.monotonic()
        self._pool.poll(number, order)

    def _take(self, number: int, state: ReplicaState, *, num_rescored: int) -> None:
        """Take in how a replica stands, and tell it what is next."""
        slot = self._slots[number]
        for note in state.notes:
            self._watcher.note(f"replica {number}: {note}")
        if state.stage and not self.has_begun:
            self._watcher.stage(state.stage)
        now = time.monotonic()
        has_answered = slot.state is None or state.num_requests > slot.state.num_requests
        if has_answered or not state.has_begun or not state.num_in_flight:
            slot.changed_at = now
        if state.num_requests and has_answered:
            slot.deaths_in_a_row = 0
            self._answered_at = now
        if state.has_begun and self._began_at is None:
            self._began_at = now
        slot.state = state
        self._dispatcher.publish(state.published_blocks)
        if state.failure is not None and not state.rescored:
            if not isinstance(state.failure, EngineError):
                raise state.failure
            if not num_rescored:
                self._pool.kill(number)
                self._bury(number, str(state.failure))
            return
        assignment = None
        if state.wants_block and not self._is_stopping:
            assignment = self._dispatcher.next_for(number, is_only=len(self._live) == 1)
        self._poll(
            number,
            Order(
                assignment=assignment,
                has_no_more=state.wants_block and not state.is_idle and assignment is None,
                is_to_stop=self._is_stopping,
                num_rescored=num_rescored,
            ),
        )

    def _bury(self, number: int, reason: str) -> None:
        """Give a dead replica's blocks back, and let it be started again after a while."""
        slot = self._slots[number]
        slot.is_started = False
        slot.deaths_in_a_row += 1
        beats = {}
        if slot.state is not None:
            process = slot.state.process
            beats = {name: beat for name, beat in read_heartbeats(self._store).items() if beat.process == process}
            slot.past.append(slot.state)
            slot.state = None
        if any(beat.num_records for beat in beats.values()):
            slot.deaths_in_a_row = 1  # it had answered since it was polled last
        lost = self._dispatcher.lose(number, last_beats=beats.values())
        self._learn(self._dispatcher)
        remove_heartbeats(self._store, beats)
        self._last_reason = reason
        of_blocks = f"; {len(lost)} blocks go to others" if lost else ""
        if slot.deaths_in_a_row >= _MAX_DEATHS_IN_A_ROW:
            slot.is_given_up = True
            self._watcher.note(
                f"replica {number} died {slot.deaths_in_a_row} times in a row and is given up{of_blocks}"
            )
            if all(other.is_given_up for other in self._slots.values()):
                raise EngineError(f"no replica is left; the last one ended with: {reason}")
            return
        pause = min(2.0 ** (slot.deaths_in_a_row - 1), _LONGEST_PAUSE_SECONDS)
        slot.start_at = time.monotonic() + pause
        self._watcher.note(f"replica {number} died ({reason}){of_blocks}; it is started again in {pause:.0f} s")

    def _find_hung(self) -> None:
        now = time.monotonic()
        for number, slot in self._slots.items():
            if not slot.is_started or slot.state is None:
                continue  # it waits for its machine or its GPUs
            # A process that loads a teacher may have no time for anything else.
            patience = _SILENT_SECONDS if slot.state.has_begun else _STALLED_SECONDS
            if now - slot.polled_at > patience:
                reason = f"it did not answer for {patience:.0f} s"
            elif slot.state.num_in_flight and now - slot.changed_at > _STALLED_SECONDS:
                reason = f"it has given no answer for {_STALLED_SECONDS:.0f} s"
            else:
                continue
            self._pool.kill(number)
            self._bury(number, reason)

    def _flush(self) -> None:
        """Let all replicas write down what is finished, as far as they can."""
        waiting = {number for number, slot in self._slots.items() if slot.state is not None}
        for number in waiting:
            self._pool.poll(number, Order(is_to_flush=True, is_to_stop=True))
        until = time.monotonic() + _FLUSH_SECONDS
        while waiting and time.monotonic() < until:
            waiting -= {number for number, _ in self._pool.wait(_WAIT_SECONDS)}
