"""Replicas as Ray actors: on this machine, or on a cluster. The only file that imports ray."""

from __future__ import annotations

import logging
import os
import signal
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from labelgen.job.replica import Order, Replica, ReplicaState, TeacherLoader
from labelgen.job.replicated_labelling import ReplicaDeath
from labelgen.job.spec import RunSpec

__all__ = ["RayPool"]

_OBJECT_STORE_BYTES = 100_000_000  # states and orders are small; no label goes through Ray
_RAYS_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Actor:
    """A replica in a process of its own."""

    def __init__(
        self,
        spec: RunSpec,
        number: int,
        load_teacher: TeacherLoader,
        scored_datasets: Sequence[Mapping[str, Any]],
    ) -> None:
        self._replica = Replica(spec, number, load_teacher, scored_datasets)

    def poll(self, order: Order) -> ReplicaState:
        return self._replica.poll(order)


class RayPool:
    """Starts replicas where Ray finds room for them. They die with the process that made the pool."""

    def __init__(
        self,
        spec: RunSpec,
        load_teacher: TeacherLoader,
        *,
        needs_gpus: bool,
        scored_datasets: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Begin a local Ray, or join the cluster that the spec names.

        Raises:
            ImportError: Ray is not installed.
            ValueError: the cluster is not there, or this machine has too few GPUs.
        """
        try:
            import ray
        except ImportError as error:
            raise ImportError("--replicas and --ray need Ray: pip install 'labelgen[ray]'") from error
        self._ray = ray
        self._spec = spec
        self._load_teacher = load_teacher
        self._scored_datasets = scored_datasets
        self._num_gpus = spec.engine.tensor_parallel_size * spec.engine.pipeline_parallel_size if needs_gpus else 0
        self._refs: dict[int, Any] = {}
        self._actors: dict[int, Any] = {}
        self._groups: dict[int, Any] = {}
        self._begin()

    def num_wanted(self) -> int:
        if self._spec.replicas is not None:
            return self._spec.replicas
        gpus = self._ray.cluster_resources().get("GPU", 0)
        return max(1, int(gpus // self._num_gpus)) if self._num_gpus else 1

    def start(self, number: int) -> None:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        if number not in self._groups:
            # All GPUs of a replica on one machine, and kept for it while it is started again.
            bundle = {"CPU": self._num_cpus, **({"GPU": self._num_gpus} if self._num_gpus else {})}
            self._groups[number] = self._ray.util.placement_group([bundle], strategy="STRICT_PACK")
        actor = self._ray.remote(_Actor).options(
            num_cpus=self._num_cpus,
            num_gpus=self._num_gpus,
            max_restarts=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(self._groups[number]),
        )
        self._actors[number] = actor.remote(self._spec, number, self._load_teacher, self._scored_datasets)

    def poll(self, number: int, order: Order) -> None:
        self._refs[number] = self._actors[number].poll.remote(order)

    def wait(self, timeout_seconds: float) -> list[tuple[int, ReplicaState | ReplicaDeath]]:
        numbers = {ref: number for number, ref in self._refs.items()}
        if not numbers:
            time.sleep(timeout_seconds)
            return []
        ready, _ = self._ray.wait(list(numbers), num_returns=1, timeout=timeout_seconds)
        found: list[tuple[int, ReplicaState | ReplicaDeath]] = []
        for ref in ready:
            number = numbers[ref]
            del self._refs[number]
            try:
                found.append((number, self._ray.get(ref)))
            except self._ray.exceptions.RayActorError as error:
                found.append((number, ReplicaDeath(reason=_first_line(error))))
        return found

    def kill(self, number: int) -> None:
        self._refs.pop(number, None)
        self._ray.kill(self._actors[number])

    def close(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._ray.shutdown()

    def _begin(self) -> None:
        ray, spec = self._ray, self._spec
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        handlers = {number: signal.getsignal(number) for number in _RAYS_SIGNALS}
        options: dict[str, Any] = {
            "namespace": f"labelgen-{uuid.uuid4().hex}",
            "log_to_driver": False,
            "logging_level": logging.ERROR,
        }
        if spec.ray is None:
            assert spec.replicas is not None, "one of the two is given"
            num_cpus = max(os.cpu_count() or 1, spec.replicas)
            options |= {
                "address": "local",
                "num_cpus": num_cpus,
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
            }
            self._num_cpus = 1 if self._num_gpus else num_cpus // spec.replicas
        else:
            options |= {"address": spec.ray}
            self._num_cpus = 1
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ValueError(f"--ray {spec.ray}: {_first_line(error)}") from error
        for number, handler in handlers.items():
            signal.signal(number, handler)  # Ray puts its own in their place
        if spec.ray is None and spec.replicas is not None:
            wanted, there = spec.replicas * self._num_gpus, ray.cluster_resources().get("GPU", 0)
            if wanted > there:
                ray.shutdown()
                raise ValueError(
                    f"--replicas {spec.replicas} of {self._num_gpus} GPUs each need {wanted} GPUs, this machine has "
                    f"{there:.0f}; give fewer, or --ray for a cluster"
                )


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
