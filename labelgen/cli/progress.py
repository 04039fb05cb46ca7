"""How a run goes, on stderr: a bar on a terminal, a line every 30 seconds elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from labelgen.job.progress import RunProgress

__all__ = ["TerminalWatcher"]

_SECONDS_BETWEEN_LINES = 30.0


class TerminalWatcher:
    """Shows notes and progress on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line: float | None = None

    def __enter__(self) -> TerminalWatcher:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, message: str, /) -> None:
        self._console.print(f"note: {message}", markup=False, soft_wrap=True)

    def advance(self, progress: RunProgress, /) -> None:
        if self._console.is_terminal:
            self._show_bar(progress)
        elif self._last_line is None:
            self._last_line = time.monotonic()
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._console.print(
                f"{progress.num_prompts:,} of {progress.total_prompts:,} prompts begun, "
                f"{progress.num_requests:,} answers, {_rate(progress)}"
            )

    def _show_bar(self, progress: RunProgress) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("labelling"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("prompts begun, {task.description}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=progress.total_prompts)
        assert self._task is not None
        self._bar.update(self._task, completed=progress.num_prompts, description=_rate(progress))


def _rate(progress: RunProgress) -> str:
    rate = progress.num_labels / progress.seconds if progress.seconds else 0.0
    rejected = f", {progress.num_rejected:,} rejected" if progress.num_rejected else ""
    return f"{progress.num_labels:,} labels, {rate:,.0f} labels/s{rejected}"
