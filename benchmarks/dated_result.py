"""Writes what a benchmark measured: a dated JSON file and its Markdown table, with how to get each number again."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["write_result"]

RESULTS_DIR = Path(__file__).resolve().parent / "results"


def write_result(name: str, *, title: str, table: str, note: str, command: str, content: dict[str, Any]) -> None:
    """Write benchmarks/results/<name>-<date>.json and .md."""
    date = datetime.date.today().isoformat()
    load = os.getloadavg()[2]  # of the last 15 minutes: above the number of processors, others shared the machine
    machine = f"{platform.machine()}, {_processor()}, {os.cpu_count()} processors, load {load:.1f}"
    origin = {"date": date, "command": command, "commit": _commit(), "machine": machine}
    RESULTS_DIR.mkdir(exist_ok=True)
    everything = {**origin, "python": platform.python_version(), **content}
    (RESULTS_DIR / f"{name}-{date}.json").write_text(json.dumps(everything, indent=1) + "\n")
    (RESULTS_DIR / f"{name}-{date}.md").write_text(
        f"# {title}, {date}\n\n{table}\n\n{note}\nMachine: {machine}. Again with `{command}`.\n"
    )


def _commit() -> str:
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
