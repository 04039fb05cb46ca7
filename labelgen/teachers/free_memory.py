"""How much memory this process and its children may still take: of the machine, of its control group, of its limits."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

__all__ = ["free_memory_bytes"]


def free_memory_bytes(*, proc_dir: Path = Path("/proc"), cgroup_dir: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the least of what the machine has, what the control group leaves, and the limits of `ulimit`.

    A container sees the machine's /proc/meminfo; what kills it is its control group.
    """
    lines = (proc_dir / "meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    groups = (proc_dir / "self" / "cgroup").read_text().splitlines() if (proc_dir / "self" / "cgroup").exists() else []
    return max(min([available, *_left_in_groups(groups, cgroup_dir), *_limits()]), 0)


def _limits() -> Iterator[int]:
    """Yield the limits of `ulimit -v` and `ulimit -d`; each process of the engine has them whole."""
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            yield soft


def _left_in_groups(groups: list[str], cgroup_dir: Path) -> Iterator[int]:
    """Yield what each control group above this process leaves; v2 and v1, also where its own is mounted as the root."""
    for line in groups:
        _, controllers, name = line.split(":", 2)
        if controllers == "":  # v2
            root, limit_name, used_name = cgroup_dir, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit_name, used_name = cgroup_dir / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        path = root / name.replace("/..", "").lstrip("/")  # /../..: a group outside of what a container sees
        for folder in (path, *(above for above in path.parents if above.is_relative_to(root))):
            limit, used = _read_number(folder / limit_name), _read_number(folder / used_name)
            if limit is not None and used is not None:
                yield limit - used + _reclaimable_bytes(folder / "memory.stat")


def _reclaimable_bytes(path: Path) -> int:
    """Return what a group counts as used and the kernel gives back at need: files read and not in use."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)


def _read_number(path: Path) -> int | None:
    """Return a file's number; None where there is none, or no limit (`max`)."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
