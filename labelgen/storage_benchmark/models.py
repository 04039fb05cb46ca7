"""The codecs' models for every selection of a capture, trained on all cores before anything is timed."""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing
from collections.abc import Mapping, Sequence

from labelgen.storage_benchmark.capture import Capture
from labelgen.storage_benchmark.coding import train_model
from labelgen.storage_benchmark.measure import Workload
from labelstore.codecs import CODECS
from labelstore.selection import Selection

__all__ = ["train_models", "training_pool"]


def training_pool() -> concurrent.futures.ProcessPoolExecutor:
    """Return a pool of processes to train in; the caller shuts it down."""
    # Spawned, as a fork would copy the locks of threads that it does not have.
    return concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))


def train_models(
    capture: Capture, selections: Sequence[Selection], *, pool: concurrent.futures.Executor | None
) -> Mapping[Selection, Mapping[str, bytes]]:
    """Return the models by selection and codec, learned from the capture's train labels; without a pool, one by one."""
    tasks = [(selection, codec) for selection in selections for codec in CODECS]
    run = map if pool is None else pool.map
    trained = dict(zip(tasks, run(functools.partial(_train, capture), tasks), strict=True))
    return {selection: {codec: trained[selection, codec] for codec in CODECS} for selection in selections}


def _train(capture: Capture, task: tuple[Selection, str]) -> bytes:
    selection, codec = task
    cut = _cut(capture, selection)
    return train_model(codec, cut.train, header=cut.header)


@functools.lru_cache(maxsize=1)
def _cut(capture: Capture, selection: Selection) -> Workload:
    return _workload(capture).cut(selection)


@functools.lru_cache(maxsize=1)
def _workload(capture: Capture) -> Workload:
    return Workload.of(capture)
