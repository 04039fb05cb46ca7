"""How a job is told to stop: by SIGINT, SIGTERM, or SIGUSR1 (which Slurm sends as a warning)."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["JobStoppedError", "StopSignals", "StoppedError"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StoppedError(BaseException):
    """The job was told to stop, and is at a place where it can be left. Like KeyboardInterrupt, no plain error."""


class JobStoppedError(Exception):
    """The job has stopped because it was told to; what was done is on disk."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopSignals:
    """Takes the signals while it is entered; one that never is takes none, and the job is never asked to stop.

    The first signal asks to stop: nothing more is fed to the engine, and after the grace the job is left where it
    waits. A second one ends the grace.
    """

    def __init__(self, *, grace_seconds: float = 0.0) -> None:
        self._grace_seconds = grace_seconds
        self._signal: int | None = None
        self._is_due = False
        self._is_interruptible = False
        self._has_grace = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python gives signals to no other
            self._before = {number: signal.signal(number, self._take) for number in _SIGNALS}
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._end_grace)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def is_asked(self) -> bool:
        """Was the job told to stop?"""
        return self._signal is not None

    @property
    def is_due(self) -> bool:
        """Is the grace over?"""
        return self._is_due

    def ask(self) -> None:
        """Ask to stop, as a first signal does, with as much grace as it takes."""
        self._signal = self._signal or signal.SIGTERM

    def error(self, done: str) -> JobStoppedError:
        """Return what a stopped job ends with; `done` says what is done."""
        name = "" if self._signal is None else f" by {signal.Signals(self._signal).name}"
        # 130 after Ctrl-C, 143 after the others: 128 and the number of the signal.
        exit_code = 128 + (signal.SIGINT if self._signal == signal.SIGINT else signal.SIGTERM)
        return JobStoppedError(f"stopped{name}: {done}. Run the same command again to go on.", exit_code=exit_code)

    @contextlib.contextmanager
    def interruptible(self, *, has_grace: bool = False) -> Iterator[None]:
        """Mark a stretch of the main thread's work that may be left at any point.

        `has_grace`: responses are in flight, for which the grace is.

        Raises:
            StoppedError: the job was told to stop, and the grace is over.
        """
        self._is_interruptible, self._has_grace = True, has_grace
        try:
            if self._is_due or (self.is_asked and not has_grace):
                raise StoppedError
            yield
        finally:
            self._is_interruptible = False

    def _take(self, number: int, _: FrameType | None) -> None:
        is_first, self._signal = self._signal is None, self._signal or number
        is_without_grace = self._is_interruptible and not self._has_grace
        if is_first and self._grace_seconds > 0 and not is_without_grace:
            signal.setitimer(signal.ITIMER_REAL, self._grace_seconds)
        else:
            self._leave()

    def _end_grace(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self._is_due = True
        if self._is_interruptible:
            self._is_interruptible = False  # once: what cleans up behind it is not to be interrupted again
            raise StoppedError
