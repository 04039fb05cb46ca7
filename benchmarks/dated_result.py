"""Writes this repository's dated results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labelgen.storage_benchmark.dated_result import write_dated_result

__all__ = ["write_result"]

RESULTS_DIR = Path(__file__).resolve().parent / "results"


def write_result(name: str, *, title: str, table: str, note: str, command: str, content: dict[str, Any]) -> None:
    """Write benchmarks/results/<name>-<date>.json and .md."""
    write_dated_result(name, folder=RESULTS_DIR, title=title, table=table, note=note, command=command, content=content)
