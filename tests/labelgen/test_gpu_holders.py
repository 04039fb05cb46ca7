"""What holds a GPU is named. No GPU was at hand: a script that prints what nvidia-smi prints stands for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labelgen.teachers.gpu_holders import describe_gpu_holders


def put_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, apps: str, used: str, status: int = 0) -> Path:
    script = tmp_path / "nvidia-smi"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncase "$1" in\n*compute-apps*) printf "{apps}";;\n'
        f'*) printf "{used}";;\nesac\nexit {status}\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "calls"


def test_processes_on_the_gpu_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apps = f"4711, 30123, /opt/venv/bin/python, train\\n{os.getpid()}, 500, python\\n815, [N/A], other\\n"
    calls = put_nvidia_smi(tmp_path, monkeypatch, apps=apps, used="30700\\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    first, second = describe_gpu_holders()
    assert first.startswith("process 4711 (/opt/venv/bin/python, train) holds 30,123 MiB of GPU memory; if it is left")
    assert second.startswith("process 815 (other) holds 0 MiB")
    assert all(line.endswith("-i 1") for line in calls.read_text().splitlines())


def test_memory_of_processes_that_cannot_be_seen_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_nvidia_smi(tmp_path, monkeypatch, apps="", used="300\\n70000\\n")
    (line,) = describe_gpu_holders()
    assert line.startswith("70,300 MiB of GPU memory are held by what cannot be seen from here")


def test_free_gpus_and_a_failing_tool_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_nvidia_smi(tmp_path, monkeypatch, apps="", used="300\\n12\\n")
    assert describe_gpu_holders() == ()
    put_nvidia_smi(tmp_path, monkeypatch, apps="4711, 30123, x\\n", used="30700\\n", status=9)
    assert describe_gpu_holders() == ()
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert describe_gpu_holders() == ()
