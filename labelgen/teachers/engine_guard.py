"""Sees to it that an engine never outlives its driver, and never dies of a signal that is meant for the driver.

A driver that is killed with SIGKILL leaves vLLM's processes alive, holding the GPU. The guard is a small process of
its own: when the driver is gone, however it went, it kills every process that inherited the driver's mark in its
environment. That works while the engine still loads, and for any number of workers.

Ctrl-C reaches every process of a terminal's foreground group, a scheduler's SIGTERM or SIGUSR1 often every process of a
job. An engine that dies of them takes along what is in flight, so its processes are started with these signals blocked,
and pass that on to their own children. They end by SIGKILL, as they have nothing to save.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing import util as multiprocessing_util
from pathlib import Path
from typing import Any

__all__ = ["MARK", "EngineGuard", "marked_processes"]

MARK = "LABELGEN_ENGINE_OF"
_POLL_SECONDS = 0.2
_SHIELDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class EngineGuard:
    """Guards the processes that are started while it marks."""

    def __init__(self) -> None:
        self._mark = f"{os.getpid()}-{uuid.uuid4().hex}"
        environment = {name: value for name, value in os.environ.items() if name != MARK}
        # A session of its own, so that a Ctrl-C meant for the driver does not end the guard first.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "labelgen.teachers.engine_guard", str(os.getpid()), self._mark],
            env=environment,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    @contextlib.contextmanager
    def marking(self) -> Iterator[str]:
        """Mark and shield the processes that are started meanwhile, and all that they start; give the mark.

        A process shows its environment as it was when its program was started. So vLLM must spawn, not fork (its
        default on GPUs), and setproctitle must leave the environment's place in memory alone (SPT_NOENV).
        """
        resource_tracker.ensure_running()  # unmarked: it frees the shared memory of an engine that was killed
        wanted = {MARK: self._mark, "VLLM_WORKER_MULTIPROC_METHOD": "spawn", "SPT_NOENV": "1"}
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            with _shielding():
                yield self._mark
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def close(self) -> None:
        """Kill what is left of the engine, and end the guard."""
        _kill_marked(self._mark)
        self._process.kill()
        self._process.wait()


def marked_processes(mark: str) -> list[int]:
    """Return the ids of the living processes that carry a mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


@contextlib.contextmanager
def _shielding() -> Iterator[None]:
    """Block some signals in the processes that multiprocessing spawns meanwhile; this one keeps getting them.

    A new process inherits what its starting thread blocks. To block them here for as long as an engine loads would be
    simpler, but then they would not wake this process either.
    """
    module: Any = multiprocessing_util
    spawn = module.spawnv_passfds

    def spawn_shielded(path: bytes, args: Sequence[bytes], passfds: Sequence[int]) -> int:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SHIELDED)
        try:
            process: int = spawn(path, args, passfds)
            return process
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    module.spawnv_passfds = spawn_shielded
    try:
        yield
    finally:
        module.spawnv_passfds = spawn


def _kill_marked(mark: str) -> None:
    for _ in range(50):  # a process may start another while we look
        processes = marked_processes(mark)
        if not processes:
            return
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)


def _guard(driver: int, mark: str) -> None:
    while os.getppid() == driver:
        time.sleep(_POLL_SECONDS)
    _kill_marked(mark)


if __name__ == "__main__":
    _guard(int(sys.argv[1]), sys.argv[2])
