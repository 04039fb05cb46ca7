"""A job that is killed: it runs in a process of its own, which sends itself SIGKILL at a moment or gets it from us.

The children come from a server process that has everything imported, so that one takes a fraction of a second.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from labelgen.job.heartbeat import read_heartbeats
from labelgen.job.part import Part
from labelgen.job.runner import run
from labelgen.job.spec import RunSpec
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.teacher import Answer, GenerateRequest, Refusal, Request
from labelstore import local_files, local_store
from labelstore.journal import Journal
from labelstore.local_files import LocalFile
from labelstore.local_store import LocalStore
from labelstore.selection import Selection

__all__ = ["IN_FLIGHT", "LOG_NAME", "DeadlyTeacher", "Moment", "OutOfOrderTeacher", "make_spec", "start_job"]

IN_FLIGHT = 6
LOG_NAME = "events.log"
SELECTION = Selection(top_k=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The n-th time that a step of writing a kind of file is reached, from 1."""

    kind: str  # a part of the file's name; "shard" while a shard's rows are written
    step: str  # "write": half of it is; "sync", "link", "rename", "remove": just before; "linked": just after
    number: int = 1

    def __str__(self) -> str:
        return f"{self.step} {self.kind} {self.number}"


class OutOfOrderTeacher(FakeTeacher):
    """Has several requests in flight, answers them in any order, and logs each answer before it is taken."""

    def __init__(self, log_path: Path | None = None) -> None:
        super().__init__(selection=SELECTION, vocab_size=257, max_model_len=64)
        self._log_path = log_path

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        rng = random.Random(os.getpid())
        in_flight: list[Request] = []
        waiting = iter(requests)
        while True:
            while len(in_flight) < IN_FLIGHT and (request := next(waiting, None)) is not None:
                in_flight.append(request)
            if not in_flight:
                return
            request = in_flight.pop(rng.randrange(len(in_flight)))
            (answer,) = super().label([request])
            if self._log_path is not None and isinstance(request, GenerateRequest):  # no reading again at the end
                log(self._log_path, request.request_id)
            yield answer


def log(path: Path, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, line.encode() + b"\n")
    os.close(descriptor)


def make_spec(root: Path, **changes: Any) -> RunSpec:
    values: dict[str, Any] = {
        "task": "generate",
        "sources": (str(root / "prompts.jsonl"),),
        "output_dir": root / "out",
        "teacher": "fake",
        "selection": SELECTION,
        "codec": "open",
        "block_size": 20,
        "max_tokens": 4,
        "flush_seconds": 0.02,
    }
    return RunSpec(**{**values, **changes})


class DeadlyTeacher(OutOfOrderTeacher):
    """Takes the whole job down when it comes to a poisoned prompt, in no hurry: a heartbeat has been written before."""

    def __init__(self, log_path: Path) -> None:
        super().__init__(log_path)
        self._root = log_path.parent / "out"

    def _generate(self, request: GenerateRequest) -> Answer | Refusal:
        if "poison" in self.tokenizer.decode(request.prompt_ids):
            while not any(
                request.request_id in job.in_flight for job in read_heartbeats(LocalStore(self._root)).values()
            ):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._generate(request)


def start_job(
    root: Path,
    moment: Moment | None = None,
    *,
    teacher: type[OutOfOrderTeacher] = OutOfOrderTeacher,
    part: Part | None = None,
) -> BaseProcess:
    """Start the job of a folder, or of a part of it; it kills itself at a moment, if one is given."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed_job"])
    process = context.Process(target=_run_job, args=(root, moment, teacher, part))
    process.start()
    return process


def _run_job(root: Path, moment: Moment | None, teacher: type[OutOfOrderTeacher], part: Part | None) -> None:
    log_path = root / LOG_NAME
    log(log_path, "start")
    _log_flushes(log_path)
    if moment is not None:
        _kill_at(moment)
    run(make_spec(root, part=part), teacher=teacher(log_path))
    log(log_path, "end")


def _log_flushes(log_path: Path) -> None:
    flush = Journal.flush

    def logged(self: Journal) -> None:
        log(log_path, "flush")
        flush(self)
        log(log_path, "flushed")

    Journal.flush = logged  # type: ignore[method-assign]


def _kill_at(moment: Moment) -> None:
    """Let this process kill itself when the moment comes."""
    at_hand = threading.local()  # the name of the file that a thread is storing
    count = 0

    def reaches(step: str, name: str) -> bool:
        nonlocal count
        count += step == moment.step and moment.kind in name
        return step == moment.step and moment.kind in name and count == moment.number

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def naming(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def named(self: LocalStore, name: str, *arguments: Any) -> Any:
            at_hand.name = name
            try:
                return method(self, name, *arguments)
            finally:
                at_hand.name = "shard"

        return named

    for method in ("put_new", "replace"):
        setattr(LocalStore, method, naming(getattr(LocalStore, method)))
    write, sync = LocalFile.write, LocalFile.sync
    link, rename, remove = local_files.link, local_files.rename, local_files.remove

    def write_half(self: LocalFile, content: Any) -> int:
        if reaches("write", getattr(at_hand, "name", "shard")):
            write(self, bytes(content)[: len(content) // 2])
            kill()
        return write(self, content)

    def sync_not(self: LocalFile) -> None:
        if reaches("sync", getattr(at_hand, "name", "shard")):
            kill()
        sync(self)

    def link_or_die(path: Path, new_path: Path) -> bool:
        if reaches("link", str(new_path)):
            kill()
        is_new = link(path, new_path)
        if reaches("linked", str(new_path)):
            kill()
        return is_new

    def rename_or_die(path: Path, new_path: Path) -> None:
        if reaches("rename", str(new_path)):
            kill()
        rename(path, new_path)

    def remove_or_die(path: Path) -> None:
        if reaches("remove", str(path)):
            kill()
        remove(path)

    LocalFile.write, LocalFile.sync = write_half, sync_not  # type: ignore[method-assign]
    for name, replacement in (("link", link_or_die), ("rename", rename_or_die), ("remove", remove_or_die)):
        setattr(local_store, name, replacement)
