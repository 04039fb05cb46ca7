"""Replicas under a real Ray on this machine: an actor is killed, the driver is killed, two real engines end to end.

Ray takes seconds to start; what replicas do is in test_replicas.py, in plain processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killed_job import LOG_NAME, OutOfOrderTeacher, make_spec
from test_kills import bits, count_lines, write_prompts

import labelgen
import labelstore
from labelgen.job.heartbeat import Heartbeat, read_heartbeats
from labelgen.job.runner import run
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.sampling import SamplingChoice
from labelstore.local_store import LocalStore
from labelstore.selection import Selection
from teachers import fetch_teacher

pytestmark = [pytest.mark.more_engines, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
SEARCHED = os.pathsep.join(
    [str(ROOT), str(ROOT / "storage"), str(ROOT / "tests"), str(ROOT / "tests/faults"), str(ROOT / "examples")]
)
JOB = """\
import sys
from pathlib import Path
from killed_job import OutOfOrderTeacher, make_spec
from labelgen.job.progress import NullWatcher
from labelgen.job.runner import Job
from test_replicas import load_slow

class Watcher(NullWatcher):
    def note(self, message):
        print(message, flush=True)

if __name__ == "__main__":
    spec = make_spec(Path(sys.argv[1]), block_size=10, replicas=2)
    Job(spec, teacher=OutOfOrderTeacher(), replica_teacher=load_slow).run(Watcher())
"""


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    root = tmp_path_factory.mktemp("whole")
    write_prompts(root / "prompts.jsonl")
    run(make_spec(root), teacher=OutOfOrderTeacher())
    return bits(root / "out")


def start_driver(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", JOB, str(root)],
        env={**os.environ, "PYTHONPATH": SEARCHED},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(condition: Callable[[], object], *, seconds: float = 300.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.02)


def replicas_of(root: Path) -> list[Heartbeat]:
    return [
        job for job in read_heartbeats(LocalStore(root / "out")).values() if job.is_replica and job.process.is_running
    ]


def test_the_blocks_of_a_killed_actor_go_to_another_and_it_is_started_again(
    tmp_path: Path, wanted: list[tuple[Any, ...]]
) -> None:
    write_prompts(tmp_path / "prompts.jsonl")
    driver = start_driver(tmp_path)
    wait_until(lambda: count_lines(tmp_path / LOG_NAME) > 15 and replicas_of(tmp_path))
    with contextlib.suppress(ProcessLookupError):
        os.kill(replicas_of(tmp_path)[0].process.pid, signal.SIGKILL)
    out, err = driver.communicate(timeout=600)
    assert driver.returncode == 0, err
    assert bits(tmp_path / "out") == wanted
    assert labelstore.verify_dataset(tmp_path / "out").findings == []
    assert "it is started again" in out


def test_a_killed_driver_takes_its_actors_along_and_loses_nothing(
    tmp_path: Path, wanted: list[tuple[Any, ...]]
) -> None:
    write_prompts(tmp_path / "prompts.jsonl")
    driver = start_driver(tmp_path)
    wait_until(lambda: count_lines(tmp_path / LOG_NAME) > 15 and replicas_of(tmp_path))
    driver.kill()
    driver.communicate(timeout=60)
    wait_until(lambda: not replicas_of(tmp_path), seconds=60)
    again = start_driver(tmp_path)
    out, err = again.communicate(timeout=600)
    assert again.returncode == 0, err
    assert bits(tmp_path / "out") == wanted
    assert labelstore.verify_dataset(tmp_path / "out").findings == []
    assert "the last job was killed" in out


def test_two_real_engines_label_one_dataset(tmp_path: Path) -> None:
    rows = [{"id": f"r{i}", "prompt": f"The number {i} is"} for i in range(24)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = "import sys\nfrom labelgen.cli import main\nif __name__ == '__main__':\n    main(sys.argv[1:])"
    teacher = str(fetch_teacher("smollm2"))
    command = [
        *("generate", str(tmp_path / "p.jsonl"), "-o", str(tmp_path / "out"), "--teacher", teacher, "--replicas", "2"),
        *("--block-size", "4", "--max-tokens", "8", "--top-k", "8", "--max-model-len", "128", "--temperature", "0"),
        *("--codec", "open", "--rescore-at-end", "4"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        env={**os.environ, "PYTHONPATH": SEARCHED, "VLLM_CPU_KVCACHE_SPACE": "1"},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    dataset = labelstore.open_dataset(tmp_path / "out")
    assert [record.prompt_id for record in dataset] == [row["id"] for row in rows]
    assert labelstore.verify_dataset(tmp_path / "out").findings == []
    assert dataset.rescored is not None and dataset.rescored.agrees
    # Both took part: each has a log of its engine.
    assert len(list((tmp_path / "out/.labelgen/logs").glob("engine-replica-*.log"))) == 2
    alone = labelgen.RunSpec(
        task="generate",
        sources=(str(tmp_path / "p.jsonl"),),
        output_dir=tmp_path / "alone",
        teacher=teacher,
        selection=Selection(top_k=8),
        codec="open",
        max_tokens=8,
        engine=EngineSettings(max_model_len=128),
        sampling=SamplingChoice(temperature=0.0),
        rescore_at_end=0,
    )
    labelgen.run(alone)
    ids = [record.input_ids.tolist() for record in labelstore.open_dataset(tmp_path / "alone")]
    assert [record.input_ids.tolist() for record in dataset] == ids
