"""How far something is, on stderr: a bar on a terminal, a line every 30 seconds elsewhere; and notes."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.status import Status

from labelgen.cli.plain_text import plain

__all__ = ["ProgressDisplay"]

_SECONDS_BETWEEN_LINES = 30.0


class ProgressDisplay:
    """Shows how many of `unit` are done; use it as a context manager, so that the bar goes."""

    def __init__(self, *, doing: str, unit: str) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._doing = doing
        self._unit = unit
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line: float | None = None
        self._status: Status | None = None
        self._stage = ""

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
        if self._bar is not None:
            self._bar.stop()

    def stage(self, message: str) -> None:
        """Show what is done before there is a bar: a name, and perhaps ": " and how far it is."""
        name = message.partition(": ")[0]
        if self.console.is_terminal:
            if self._status is None:
                self._status = self.console.status(message)
                self._status.start()
            self._status.update(message)
        elif name != self._stage or self._is_due():
            self._stage = name
            self.start_clock()
            self.console.print(plain(message), markup=False, soft_wrap=True)

    def note(self, message: str) -> None:
        self.console.print(plain(f"note: {message}"), markup=False, soft_wrap=True)

    def start_clock(self) -> None:
        """Let the first line come 30 seconds from now; otherwise that is 30 seconds after the first `show`."""
        self._last_line = time.monotonic()

    def show(self, *, done: int, total: int, rate: str, line: str) -> None:
        """Show the numbers and the rate in the bar, or `line` where there is none."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        if self.console.is_terminal:
            self._show_bar(done, total, rate)
        elif self._last_line is None:
            self.start_clock()
        elif self._is_due():
            self.start_clock()
            self.console.print(line, soft_wrap=True)

    def _is_due(self) -> bool:
        return self._last_line is not None and time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES

    def _show_bar(self, done: int, total: int, rate: str) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn(self._doing),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(f"{self._unit}, {{task.description}}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=total)
        assert self._task is not None, "set with the bar"
        self._bar.update(self._task, completed=done, description=rate)
