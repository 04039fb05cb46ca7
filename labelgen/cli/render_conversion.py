"""How a conversion goes, on stderr, and what came of it, on stdout."""

from __future__ import annotations

import json
import time

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from labelgen.cli.render import count_values, print_rows, size_rows
from labelgen.cli.units import bytes_text
from labelstore.convert import ConversionProgress, ConversionSummary

__all__ = ["TerminalConversionWatcher", "print_conversion"]

_SECONDS_BETWEEN_LINES = 30.0


class TerminalConversionWatcher:
    """Shows warnings, notes and progress on stderr."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> TerminalConversionWatcher:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, message: str, /) -> None:
        if not self._quiet:
            self._console.print(f"note: {message}", markup=False, soft_wrap=True)

    def warn(self, message: str, /) -> None:
        self._console.print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)

    def advance(self, progress: ConversionProgress, /) -> None:
        if self._quiet:
            return
        rate = f"{progress.num_labels:,} labels, {progress.num_labels / (time.monotonic() - self._started):,.0f}/s"
        if self._console.is_terminal:
            if self._bar is None:
                self._bar = Progress(
                    TextColumn("converting"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TextColumn("blocks, {task.description}"),
                    TimeRemainingColumn(),
                    console=self._console,
                    transient=True,
                )
                self._bar.start()
                self._task = self._bar.add_task("", total=progress.total_blocks)
            assert self._task is not None, "set with the bar"
            self._bar.update(self._task, completed=progress.num_blocks, description=rate)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._console.print(f"{progress.num_blocks:,} of {progress.total_blocks:,} blocks, {rate}")


def print_conversion(summary: ConversionSummary, *, as_json: bool) -> None:
    """Print what a conversion came to."""
    if as_json:
        values = {
            "output": str(summary.output_dir),
            "codec": summary.codec,
            "blocks": summary.num_blocks,
            "new_blocks": summary.num_new_blocks,
            "copied_blocks": summary.num_copied_blocks,
            "source_bytes": summary.source_num_bytes,
            **count_values(summary.counts, summary.num_bytes),
            "warnings": list(summary.warnings),
        }
        click.echo(json.dumps(values))
        return
    copied = f", {summary.num_copied_blocks:,} of them copied as they are" if summary.num_copied_blocks else ""
    share = f", {summary.num_bytes / summary.source_num_bytes:.0%} of the sources" if summary.source_num_bytes else ""
    rows = {
        "blocks": f"{summary.num_blocks:,} ({summary.num_new_blocks:,} new{copied})",
        "records": f"{summary.counts.num_records:,}",
        "labels": f"{summary.counts.num_labels:,}",
        "codec": summary.codec,
        "sources": bytes_text(summary.source_num_bytes),
        **size_rows(summary.counts, summary.num_bytes, after_size=share),
    }
    print_rows(str(summary.output_dir), rows)
