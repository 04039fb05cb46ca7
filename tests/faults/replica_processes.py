"""Replicas in plain processes: as quick to start as to kill, where Ray takes seconds. What a replica does is real."""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from labelgen.job.replica import Order, Replica, ReplicaState, TeacherLoader
from labelgen.job.replicated_labelling import ReplicaDeath
from labelgen.job.spec import RunSpec

__all__ = ["ProcessPool"]


class ProcessPool:
    """Runs each replica in a process that comes from a server with everything imported."""

    def __init__(
        self, spec: RunSpec, load_teacher: TeacherLoader, *, needs_gpus: bool, scored_datasets: object
    ) -> None:
        assert not needs_gpus and not scored_datasets
        self.spec = spec
        self._load_teacher = load_teacher
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["killed_job"])
        self._waiting: dict[int, Connection] = {}
        self._num_waited: collections.Counter[int] = collections.Counter()
        self._connections: dict[int, Connection] = {}
        self.processes: dict[int, BaseProcess] = {}
        self.num_starts = 0

    def num_wanted(self) -> int:
        assert self.spec.replicas is not None
        return self.spec.replicas

    def start(self, number: int) -> None:
        own, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self.spec, number, self._load_teacher))
        process.start()
        theirs.close()
        self._connections[number], self.processes[number], self._num_waited[number] = own, process, 0
        self.num_starts += 1

    def poll(self, number: int, order: Order) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is dead, which `wait` finds
            self._connections[number].send(order)
        self._waiting[number] = self._connections[number]
        self._num_waited[number] += 1

    def wait(self, timeout_seconds: float) -> list[tuple[int, ReplicaState | ReplicaDeath]]:
        if not self._waiting:
            time.sleep(timeout_seconds)
        ready = multiprocessing.connection.wait(list(self._waiting.values()), timeout_seconds)
        found: list[tuple[int, ReplicaState | ReplicaDeath]] = []
        for number, connection in list(self._waiting.items()):
            if connection in ready:
                try:
                    state = connection.recv()
                    self._num_waited[number] -= 1
                    if self._num_waited[number]:
                        continue  # the answer to an earlier poll
                    found.append((number, state))
                except (EOFError, ConnectionResetError):
                    self.processes[number].join()
                    found.append((number, ReplicaDeath(reason=f"exit code {self.processes[number].exitcode}")))
                del self._waiting[number]
        return found

    def kill(self, number: int) -> None:
        self._waiting.pop(number, None)
        self.processes[number].kill()
        self.processes[number].join()

    def close(self) -> None:
        for number in self.processes:
            self.kill(number)


def _serve(connection: Connection, spec: RunSpec, number: int, load_teacher: TeacherLoader) -> None:
    replica = Replica(spec, number, load_teacher)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            connection.send(replica.poll(connection.recv()))
