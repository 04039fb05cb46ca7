"""How much memory is free, as the kernel's files say it: of the machine, and of the control groups of a container."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from labelgen.teachers.free_memory import free_memory_bytes

GIB = 2**30


@pytest.fixture(autouse=True)
def no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def make_proc(root: Path, *, available_gib: int, groups: str) -> Path:
    (root / "self").mkdir(parents=True)
    (root / "meminfo").write_text(f"MemTotal: {64 * 2**20} kB\nMemAvailable:  {available_gib * 2**20} kB\n")
    (root / "self/cgroup").write_text(groups)
    return root


def make_group(folder: Path, *, limit: str, used_gib: int, names: tuple[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(limit + "\n")
    (folder / names[1]).write_text(f"{used_gib * GIB}\n")


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
V2 = ("memory.max", "memory.current")


def test_without_a_group_it_is_what_the_machine_has(tmp_path: Path) -> None:
    proc = make_proc(tmp_path / "proc", available_gib=20, groups="0::/\n")
    assert free_memory_bytes(proc_dir=proc, cgroup_dir=tmp_path / "cgroup") == 20 * GIB


@pytest.mark.parametrize(
    ("groups", "root", "names"), [("0::/pod/job\n", "", V2), ("4:memory:/pod/job\n", "memory", V1)]
)
def test_the_tightest_group_above_this_process_counts(
    tmp_path: Path, groups: str, root: str, names: tuple[str, str]
) -> None:
    proc, cgroup = make_proc(tmp_path / "proc", available_gib=20, groups=groups), tmp_path / "cgroup"
    make_group(cgroup / root / "pod", limit=str(8 * GIB), used_gib=3, names=names)
    make_group(cgroup / root / "pod/job", limit="max", used_gib=2, names=names)
    assert free_memory_bytes(proc_dir=proc, cgroup_dir=cgroup) == 5 * GIB
    (cgroup / root / "pod/memory.stat").write_text(f"active_file 5\ninactive_file {GIB}\n")
    assert free_memory_bytes(proc_dir=proc, cgroup_dir=cgroup) == 6 * GIB, "files read are given back"


def test_a_container_that_sees_its_group_as_the_root_is_bounded_too(tmp_path: Path) -> None:
    proc = make_proc(tmp_path / "proc", available_gib=20, groups="0::/../../pod/job\n")
    make_group(tmp_path / "cgroup", limit=str(4 * GIB), used_gib=1, names=V2)
    assert free_memory_bytes(proc_dir=proc, cgroup_dir=tmp_path / "cgroup") == 3 * GIB


def test_a_limit_of_the_shell_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proc = make_proc(tmp_path / "proc", available_gib=20, groups="")
    limits = {resource.RLIMIT_AS: resource.RLIM_INFINITY, resource.RLIMIT_DATA: 2 * GIB}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], resource.RLIM_INFINITY))
    assert free_memory_bytes(proc_dir=proc, cgroup_dir=tmp_path) == 2 * GIB
