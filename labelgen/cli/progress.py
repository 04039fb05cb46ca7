"""How a run goes: on stderr for people, or as events on stdout for programs."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from labelgen.cli.progress_display import ProgressDisplay
from labelgen.cli.units import bytes_text, duration_text
from labelgen.job.progress import RunProgress

__all__ = ["EventWatcher", "TerminalWatcher", "print_event", "progress_line", "progress_text"]

_SECONDS_BETWEEN_EVENTS = 5.0


class TerminalWatcher:
    """Shows stages, notes and progress on stderr."""

    def __init__(self) -> None:
        self._display = ProgressDisplay(doing="labelling", unit="prompts done")

    def __enter__(self) -> TerminalWatcher:
        return self

    def __exit__(self, *details: object) -> None:
        self._display.__exit__(*details)

    def stage(self, message: str, /) -> None:
        self._display.stage(message)

    def note(self, message: str, /) -> None:
        self._display.note(message)

    def advance(self, progress: RunProgress, /) -> None:
        self._display.show(
            done=progress.num_prompts_done,
            total=progress.total_prompts,
            rate=progress_text(progress),
            line=progress_line(progress),
        )


class EventWatcher:
    """Prints each event as a line of JSON on stdout; progress at most every five seconds. See docs/jobs.md."""

    def __init__(self) -> None:
        self._last_progress = 0.0
        self._last_stage = ""

    def __enter__(self) -> EventWatcher:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def stage(self, message: str, /) -> None:
        name, _, detail = message.partition(": ")
        if name != self._last_stage or self._is_due():
            self._last_stage = name
            print_event("stage", stage=name, detail=detail)

    def note(self, message: str, /) -> None:
        print_event("note", message=message)

    def advance(self, progress: RunProgress, /) -> None:
        if self._is_due():
            print_event("progress", **_progress_values(progress))

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now - self._last_progress < _SECONDS_BETWEEN_EVENTS:
            return False
        self._last_progress = now
        return True


def print_event(event: str, **values: Any) -> None:
    """Print one event as a line of JSON on stdout."""
    click.echo(json.dumps({"event": event, **values}))


def progress_text(progress: RunProgress) -> str:
    """Return how a run stands, in a line."""
    parts = [
        f"{progress.num_requests:,} answers, {progress.num_in_flight:,} in flight",
        f"{progress.num_labels:,} labels, {progress.labels_per_second:,.0f}/s",
    ]
    if progress.kept_mass is not None:
        parts.append(f"kept mass {progress.kept_mass:.3f}")
    if progress.bytes_per_label is not None:
        parts.append(f"{progress.bytes_per_label:,.1f} bytes/label")
        of_all = "" if progress.projected_bytes is None else f" of some {bytes_text(round(progress.projected_bytes))}"
        parts.append(f"{bytes_text(progress.num_published_bytes)}{of_all} on disk")
    if progress.num_rejected:
        parts.append(f"{progress.num_rejected:,} rejected")
    return ", ".join(parts)


def progress_line(progress: RunProgress) -> str:
    """Return how far a run is and how long it still takes, where there is no bar."""
    left = "" if progress.seconds_left is None else f", {duration_text(progress.seconds_left)} left"
    of_all = f"{progress.num_prompts_done:,} of {progress.total_prompts:,} prompts done"
    return f"{of_all}, {progress_text(progress)}{left}"


def _progress_values(progress: RunProgress) -> dict[str, Any]:
    return {
        "prompts_done": progress.num_prompts_done,
        "prompts": progress.total_prompts,
        "answers": progress.num_requests,
        "in_flight": progress.num_in_flight,
        "labels": progress.num_labels,
        "labels_per_second": progress.labels_per_second,
        "kept_mass": progress.kept_mass,
        "rejected": progress.num_rejected,
        "published_bytes": progress.num_published_bytes,
        "bytes_per_label": progress.bytes_per_label,
        "projected_bytes": progress.projected_bytes,
        "seconds": progress.seconds,
        "seconds_left": progress.seconds_left,
    }
