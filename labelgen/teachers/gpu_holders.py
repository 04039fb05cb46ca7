"""Who holds GPU memory already: an engine that starts beside something else runs out of it, minutes later."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

__all__ = ["describe_gpu_holders"]

# A driver and a display take some hundred MiB of a GPU that nobody works on.
_IDLE_MIB = 1024
_TIMEOUT_SECONDS = 20


def describe_gpu_holders() -> tuple[str, ...]:
    """Return a line for each process on the GPUs that this one may use, and for memory whose holder is not visible.

    Empty where there is nothing to say, or no nvidia-smi. Inside a container nvidia-smi sees no other's processes, but
    their memory.
    """
    return tuple(_lines()) if shutil.which("nvidia-smi") else ()


def _lines() -> Iterator[str]:
    visible_mib = 0
    for pid, used, name in _query("--query-compute-apps=pid,used_gpu_memory,process_name"):
        used_mib = int(used) if used.isdigit() else 0  # "[N/A]" on some drivers
        visible_mib += used_mib
        if pid != str(os.getpid()):
            yield (
                f"process {pid} ({name}) holds {used_mib:,} MiB of GPU memory; if it is left over from something, end "
                f"it, or the engine may find too little"
            )
    held = [int(used) for (used,) in _query("--query-gpu=memory.used") if used.isdigit()]
    hidden_mib = sum(held) - visible_mib
    if hidden_mib > _IDLE_MIB * max(len(held), 1):
        yield (
            f"{hidden_mib:,} MiB of GPU memory are held by what cannot be seen from here, perhaps another container; "
            f"the engine may find too little"
        )


def _query(what: str) -> list[list[str]]:
    """Return the rows of a query of nvidia-smi over the GPUs that this process may use; none where it fails."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    command = ["nvidia-smi", what, "--format=csv,noheader,nounits", *(["-i", devices] if devices else [])]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return []
    return [[cell.strip() for cell in line.split(",", 2)] for line in found.stdout.splitlines() if line.strip()]
