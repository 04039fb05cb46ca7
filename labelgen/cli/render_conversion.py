"""How a conversion goes, on stderr, and what came of it, on stdout."""

from __future__ import annotations

import json
import time

import click

from labelgen.cli.plain_text import plain
from labelgen.cli.progress_display import ProgressDisplay
from labelgen.cli.render import count_values, print_rows, size_rows
from labelgen.cli.units import bytes_text
from labelstore.convert import ConversionProgress, ConversionSummary

__all__ = ["TerminalConversionWatcher", "print_conversion"]


class TerminalConversionWatcher:
    """Shows warnings, notes and progress on stderr."""

    def __init__(self, *, quiet: bool) -> None:
        self._display = ProgressDisplay(doing="converting", unit="blocks")
        self._display.start_clock()
        self._quiet = quiet
        self._started = time.monotonic()

    def __enter__(self) -> TerminalConversionWatcher:
        return self

    def __exit__(self, *details: object) -> None:
        self._display.__exit__(*details)

    def note(self, message: str, /) -> None:
        if not self._quiet:
            self._display.note(message)

    def warn(self, message: str, /) -> None:
        self._display.console.print(plain(f"warning: {message}"), style="yellow", markup=False, soft_wrap=True)

    def advance(self, progress: ConversionProgress, /) -> None:
        if self._quiet:
            return
        rate = f"{progress.num_labels:,} labels, {progress.num_labels / (time.monotonic() - self._started):,.0f}/s"
        self._display.show(
            done=progress.num_blocks,
            total=progress.total_blocks,
            rate=rate,
            line=f"{progress.num_blocks:,} of {progress.total_blocks:,} blocks, {rate}",
        )


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
