"""Several engines on one dataset: shared work, deaths, hangs, a poison, a stop; and the same under a real Ray."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from killed_job import LOG_NAME, DeadlyTeacher, OutOfOrderTeacher, make_spec
from replica_processes import ProcessPool
from test_kills import NUM_PROMPTS, bits, count_lines, read_log, write_prompts

import labelgen.job.replicated_labelling
import labelstore
from labelgen.job.progress import NullWatcher, RunSummary
from labelgen.job.runner import Job, run
from labelgen.job.spec import RunSpec
from labelgen.job.status import read_status
from labelgen.job.stopping import JobStoppedError, StopSignals
from labelgen.teachers.teacher import Answer, EngineError, Refusal, Request
from labelstore.local_store import LocalStore
from labelstore.reject_log import read_rejects


class SlowTeacher(OutOfOrderTeacher):
    """Takes a while for each answer, as an engine does; the replica with the number 2 ten times as long."""

    def __init__(self, log_path: Path | None, number: int) -> None:
        super().__init__(log_path)
        self._pause_seconds = 0.05 if number == 2 else 0.005

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        for answer in super().label(requests):
            time.sleep(self._pause_seconds)
            yield answer


class NeverStarting(OutOfOrderTeacher):
    def start(self) -> None:
        raise EngineError("out of memory")


def load_slow(spec: RunSpec, number: int) -> SlowTeacher:
    return SlowTeacher(Path(spec.output_dir).parent / LOG_NAME, number)


def load_deadly(spec: RunSpec, number: int) -> DeadlyTeacher:
    return DeadlyTeacher(Path(spec.output_dir).parent / LOG_NAME)


def load_never(spec: RunSpec, number: int) -> NeverStarting:
    return NeverStarting()


class Notes(NullWatcher):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str, /) -> None:
        self.notes.append(message)


class Pools:
    """Makes the pool of a job, and keeps it for the test."""

    def __init__(self) -> None:
        self.pool: ProcessPool | None = None

    def __call__(self, *arguments: Any, **options: Any) -> ProcessPool:
        self.pool = ProcessPool(*arguments, **options)
        return self.pool


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelgen.job.replicated_labelling, "_LONGEST_PAUSE_SECONDS", 0.05)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """What one job gives that nothing happens to."""
    root = tmp_path_factory.mktemp("whole")
    write_prompts(root / "prompts.jsonl")
    run(make_spec(root), teacher=OutOfOrderTeacher())
    return bits(root / "out")


def start(
    root: Path,
    load: Any,
    *,
    replicas: int = 2,
    pools: Pools | None = None,
    stop: StopSignals | None = None,
    **spec: Any,
) -> tuple[RunSummary, list[str]]:
    watcher = Notes()
    job = Job(
        make_spec(root, **{"block_size": 10, "replicas": replicas, **spec}),
        teacher=OutOfOrderTeacher(),
        replica_teacher=load,
        make_pool=pools or Pools(),
    )
    return job.run(watcher, stop=stop), watcher.notes


def when(condition: Any, act: Any) -> threading.Thread:
    """Do something from another thread as soon as a condition holds."""

    def wait() -> None:
        until = time.monotonic() + 60
        while not condition() and time.monotonic() < until:
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_replicas_give_what_one_engine_gives_and_the_fast_one_takes_more(
    tmp_path: Path, wanted: list[tuple[Any, ...]]
) -> None:
    write_prompts(tmp_path / "prompts.jsonl")
    summary, _ = start(tmp_path, load_slow, rescore_at_end=4)
    assert bits(tmp_path / "out") == wanted
    assert summary.num_new_records == NUM_PROMPTS and summary.rescored is not None and summary.rescored.agrees
    assert labelstore.verify_dataset(tmp_path / "out").findings == []
    answered, _ = read_log(tmp_path / LOG_NAME)
    assert answered == NUM_PROMPTS
    status = read_status(tmp_path / "out")
    assert (status.state, status.done_prompts, len(status.jobs)) == ("finished", NUM_PROMPTS, 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_blocks_of_a_killed_replica_go_to_others(tmp_path: Path, wanted: list[tuple[Any, ...]], seed: int) -> None:
    write_prompts(tmp_path / "prompts.jsonl")
    rng = random.Random(seed)
    pools = Pools()
    log_path = tmp_path / LOG_NAME

    def kill_one() -> None:
        assert pools.pool is not None
        rng.choice(list(pools.pool.processes.values())).kill()

    killers = [when(lambda at=at: count_lines(log_path) > at, kill_one) for at in (10, 30, 50)]
    _, notes = start(tmp_path, load_slow, pools=pools)
    for killer in killers:
        killer.join()
    assert bits(tmp_path / "out") == wanted
    assert labelstore.verify_dataset(tmp_path / "out").findings == []
    assert any("exit code -9" in note and "it is started again" in note for note in notes)
    assert not list((tmp_path / "out/.labelgen/journal").glob("*.parquet"))


def test_a_replica_that_hangs_is_killed_and_its_blocks_go_to_others(
    tmp_path: Path, wanted: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_SILENT_SECONDS", "_STALLED_SECONDS"):  # the last that was heard of it may be that it loads
        monkeypatch.setattr(labelgen.job.replicated_labelling, name, 4.0)
    write_prompts(tmp_path / "prompts.jsonl")
    pools = Pools()

    def hang() -> None:
        assert pools.pool is not None
        pid = pools.pool.processes[1].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)

    when(lambda: count_lines(tmp_path / LOG_NAME) > 10, hang)
    _, notes = start(tmp_path, load_slow, pools=pools)
    assert bits(tmp_path / "out") == wanted
    assert any("replica 1 died (it did not answer for 4 s)" in note for note in notes)


def test_a_prompt_that_takes_replicas_down_is_rejected_by_name_and_only_it(tmp_path: Path) -> None:
    rows = [{"id": f"r{i}", "prompt": "the poison" if i == 37 else f"question {i}"} for i in range(NUM_PROMPTS)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pools = Pools()
    start(tmp_path, load_deadly, pools=pools)
    (reject,) = map(json.loads, read_rejects(LocalStore(tmp_path / "out")))
    assert reject["id"] == "r37" and "with nothing beside it" in reject["reason"]
    names = [record.prompt_id for record in labelstore.open_dataset(tmp_path / "out")]
    assert names == [f"r{i}" for i in range(NUM_PROMPTS) if i != 37]
    assert pools.pool is not None and pools.pool.num_starts <= 2 + 12


def test_engines_that_never_start_end_the_job_with_their_reason(tmp_path: Path) -> None:
    write_prompts(tmp_path / "prompts.jsonl")
    with pytest.raises(EngineError, match="no replica is left; the last one ended with: out of memory"):
        start(tmp_path, load_never)


def test_a_stopped_job_loses_nothing_and_goes_on(tmp_path: Path, wanted: list[tuple[Any, ...]]) -> None:
    write_prompts(tmp_path / "prompts.jsonl")
    with StopSignals() as stop:
        when(lambda: count_lines(tmp_path / LOG_NAME) > 20, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(JobStoppedError, match=r"of 80 prompts are done"):
            start(tmp_path, load_slow, stop=stop, flush_seconds=1000.0)
    before, _ = read_log(tmp_path / LOG_NAME)
    start(tmp_path, load_slow)
    assert bits(tmp_path / "out") == wanted
    answered, _ = read_log(tmp_path / LOG_NAME)
    # What was in flight when the signal came, or answered and not yet taken, is made again: 7 a replica at most.
    assert answered <= NUM_PROMPTS + 14 and before > 20


def test_replicas_that_come_later_take_blocks_too(tmp_path: Path, wanted: list[tuple[Any, ...]]) -> None:
    write_prompts(tmp_path / "prompts.jsonl")

    class Growing(ProcessPool):
        def num_wanted(self) -> int:
            return 1 if count_lines(tmp_path / LOG_NAME) < 10 else 3

    pools: list[Growing] = []

    def make(*arguments: Any, **options: Any) -> Growing:
        pools.append(Growing(*arguments, **options))
        return pools[0]

    spec = make_spec(tmp_path, block_size=10, replicas=1)
    Job(spec, teacher=OutOfOrderTeacher(), replica_teacher=load_slow, make_pool=make).run(NullWatcher())
    assert bits(tmp_path / "out") == wanted
    assert pools[0].num_starts == 3
