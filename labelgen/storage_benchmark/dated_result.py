"""Writes what a benchmark measured: a dated JSON file and its Markdown table, with how to get each number again."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import labelgen

__all__ = ["write_dated_result"]


def write_dated_result(
    name: str, *, folder: Path, title: str, table: str, note: str, command: str, content: Mapping[str, Any]
) -> Path:
    """Write <name>-<date>.json and .md into a folder; return the path of the latter."""
    date = datetime.date.today().isoformat()
    load = os.getloadavg()[2]  # of the last 15 minutes: above the number of processors, others shared the machine
    machine = f"{platform.machine()}, {_processor()}, {os.cpu_count()} processors, load {load:.1f}"
    origin = {"date": date, "command": command, "commit": _commit(), "machine": machine}
    versions = {
        "python": platform.python_version(),
        "labelgen": labelgen.__version__,
        "numpy": np.__version__,
        "pyarrow": pa.__version__,
    }
    folder.mkdir(parents=True, exist_ok=True)
    everything = {**origin, **versions, **content}
    (folder / f"{name}-{date}.json").write_text(json.dumps(everything, indent=1) + "\n")
    table_path = folder / f"{name}-{date}.md"
    table_path.write_text(f"# {title}, {date}\n\n{table}\n\n{note}\nMachine: {machine}. Again with `{command}`.\n")
    return table_path


def _commit() -> str | None:
    """Return the commit of the code that runs; None where it is not run from its repository."""
    path = Path(__file__)
    git = ["git", "-C", str(path.parent)]
    try:
        # Installed, it may lie inside a repository of somebody else's.
        is_ours = subprocess.run([*git, "ls-files", "--error-unmatch", path.name], capture_output=True).returncode == 0
        result = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    except OSError:  # no git
        return None
    return result.stdout.strip() if is_ours else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
