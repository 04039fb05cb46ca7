"""How a run goes, on stderr."""

from __future__ import annotations

from labelgen.cli.progress_display import ProgressDisplay
from labelgen.job.progress import RunProgress

__all__ = ["TerminalWatcher"]


class TerminalWatcher:
    """Shows notes and progress on stderr."""

    def __init__(self) -> None:
        self._display = ProgressDisplay(doing="labelling", unit="prompts begun")

    def __enter__(self) -> TerminalWatcher:
        return self

    def __exit__(self, *details: object) -> None:
        self._display.__exit__(*details)

    def note(self, message: str, /) -> None:
        self._display.note(message)

    def advance(self, progress: RunProgress, /) -> None:
        rate = _rate(progress)
        self._display.show(
            done=progress.num_prompts,
            total=progress.total_prompts,
            rate=rate,
            line=f"{progress.num_prompts:,} of {progress.total_prompts:,} prompts begun, "
            f"{progress.num_requests:,} answers, {rate}",
        )


def _rate(progress: RunProgress) -> str:
    rate = progress.num_labels / progress.seconds if progress.seconds else 0.0
    rejected = f", {progress.num_rejected:,} rejected" if progress.num_rejected else ""
    return f"{progress.num_labels:,} labels, {rate:,.0f} labels/s{rejected}"
