"""A job's heartbeat: a small file in `.labelgen/jobs/` that says how it stands, to `labelgen status` and the next job.

A job that was killed leaves its last heartbeat behind. From it the next one knows what is done again, and which
requests were in flight each time that a job died.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from labelstore.errors import UnreachableStoreError
from labelstore.location import is_url
from labelstore.store import ReadableStore, Store

__all__ = ["Heartbeat", "HeartbeatWriter", "ProcessName", "read_heartbeats", "remove_heartbeats"]

JOBS_DIR = ".labelgen/jobs"
BEAT_SECONDS = 2.0
REMOTE_BEAT_SECONDS = 15.0  # each is a request that is paid for
_FIRST_PAUSE_SECONDS = 0.05  # each is twice the one before
# A job of another machine, whose process cannot be looked at, counts as dead after so long without a heartbeat.
_DEAD_AFTER_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessName:
    """A process, told from a later one with the same number."""

    host: str
    pid: int
    started_ticks: int  # since the machine was booted, /proc/<pid>/stat

    @classmethod
    def of_this(cls) -> ProcessName:
        return cls(host=socket.gethostname(), pid=os.getpid(), started_ticks=_started_ticks(os.getpid()) or 0)

    @property
    def is_running(self) -> bool | None:
        """Is it there? None: it is another machine's."""
        if self.host != socket.gethostname():
            return None
        return _started_ticks(self.pid) == self.started_ticks


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """How a job stood at one moment. Counts are of this job's own run unless they say otherwise."""

    process: ProcessName
    state: str  # reading, starting, labelling; finished, stopped, failed
    started_at: float  # seconds since 1970
    beat_at: float
    share: str = ""  # "part 3/8" or "replica 5", where it does not label all of the dataset
    total_prompts: int = 0  # of its share
    done_prompts: int = 0  # of its share: every response of theirs is answered or refused
    open_prompts: int = 0  # of those, in blocks that it has not published yet
    answered_prompts: int = 0  # of those, by this job
    records_at_start: int = 0  # of its share, published or in the journal
    num_records: int = 0
    num_labels: int = 0
    num_rejected: int = 0
    labelling_seconds: float = 0.0
    in_flight: tuple[str, ...] = ()  # request ids
    is_alone: bool = False  # what is in flight is one suspect with nothing beside it
    deaths: Mapping[str, int] = field(default_factory=dict)  # by request id: jobs in a row that died over it, before
    lone_deaths: Mapping[str, int] = field(default_factory=dict)  # of those, with nothing beside it

    @property
    def is_replica(self) -> bool:
        """Is it one of the engines of a job, whose heartbeat counts it in?"""
        return self.share.startswith("replica ")

    @property
    def is_over(self) -> bool:
        """Did the job end by itself?"""
        return self.state in ("finished", "stopped", "failed")

    @property
    def is_alive(self) -> bool:
        """Is the job still running, as far as can be seen from here?"""
        if self.is_over:
            return False
        is_running = self.process.is_running
        return time.time() - self.beat_at < _DEAD_AFTER_SECONDS if is_running is None else is_running


class HeartbeatWriter:
    """Writes a job's heartbeat from a thread of its own, and when it is asked to.

    It does so every two seconds, to an object store every 15.
    """

    def __init__(self, store: Store, *, beat: Callable[[], Heartbeat]) -> None:
        """Write what `beat` returns beside the labels. It is called from several threads."""
        self._store = store
        self.name = f"{JOBS_DIR}/{uuid.uuid4().hex}.json"
        self._beat = beat
        self._lock = threading.Lock()
        self._is_over = False
        self._has_written = False
        self._beat_seconds = REMOTE_BEAT_SECONDS if is_url(store.location) else BEAT_SECONDS
        self._pause_seconds = self._beat_seconds
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._work, name="labelgen-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; the first heartbeat comes after a pause, so that a job with nothing to do writes nothing."""
        self._thread.start()

    def hurry(self) -> None:
        """Write now, and soon again: a prompt that takes the job down at once must be known to have been in flight."""
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._woken.set()
        self.write()

    def write(self) -> None:
        """Write the heartbeat now. No job ends because this fails: its labels do not need it."""
        with self._lock, contextlib.suppress(OSError, UnreachableStoreError):
            # What must outlive the process is only the process's own death.
            self._store.jot(self.name, json.dumps(asdict(self._beat())).encode())
            self._has_written = True

    def close(self) -> None:
        """Write a last heartbeat, if there was a first one."""
        self._is_over = True
        self._woken.set()
        self._thread.join()
        if self._has_written:
            self.write()

    def _work(self) -> None:
        while not self._is_over:
            if not self._woken.wait(self._pause_seconds):
                self._pause_seconds = min(2 * self._pause_seconds, self._beat_seconds)
                self.write()
            self._woken.clear()


def read_heartbeats(store: ReadableStore) -> dict[str, Heartbeat]:
    """Return the last heartbeat of each job on a dataset by its file's name, the latest last."""
    found = {}
    for name in store.names(JOBS_DIR):
        if not name.endswith(".json"):
            continue
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # another version's, or just removed
            content: dict[str, Any] = json.loads(store.read(name))
            process = ProcessName(**content.pop("process"))
            found[name] = Heartbeat(process=process, **{**content, "in_flight": tuple(content["in_flight"])})
    return dict(sorted(found.items(), key=lambda item: item[1].beat_at))


def remove_heartbeats(store: Store, names: Iterable[str]) -> None:
    """Delete heartbeats of dead jobs, once a living one has taken over what they say."""
    for name in names:
        with contextlib.suppress(OSError, UnreachableStoreError):
            store.delete(name)
            store.delete(f"{name.removesuffix('.json')}.tmp")


def _started_ticks(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])  # field 22 of proc(5), counted from behind the name
