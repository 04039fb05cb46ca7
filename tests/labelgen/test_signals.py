"""A job that is told to stop saves what is done, says how to go on, and ends in time; what it says is true."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from signalled_job import NUM_QUICK
from test_engine_life import wait_for

import labelstore
from labelgen.job.status import read_status

PROGRAM = Path(__file__).with_name("signalled_job.py")
NUM_PROMPTS = 30


@contextlib.contextmanager
def job_in_the_middle(tmp_path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Start a job; give it when ten answers are there and four are in flight."""
    source = tmp_path / "prompts.jsonl"
    rows = [{"id": f"r{i}", "prompt": f"question {i}"} for i in range(NUM_PROMPTS)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, str(PROGRAM), str(tmp_path / "release"), "generate", str(source)]
    command += ["-o", str(tmp_path / "out"), "--teacher", "fake", "--top-k", "4", "--max-tokens", "3"]
    command += ["--codec", "open", "--block-size", "8", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "waiting\n"
            yield process
        finally:
            process.kill()


def finish(tmp_path: Path) -> str:
    """Go on until all is there; return what the job said."""
    (tmp_path / "release").touch()
    with job_in_the_middle(tmp_path) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [record.prompt_id for record in labelstore.open_dataset(tmp_path / "out")] == [
        f"r{i}" for i in range(NUM_PROMPTS)
    ]
    return said


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)], ids=lambda n: str(n)
)
def test_the_first_signal_saves_what_is_done_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    with job_in_the_middle(tmp_path) as process:
        begin = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == exit_code and time.monotonic() - begin < 10
    assert f"stopped by {number.name}: 10 of 30 prompts are done" in said
    assert "4 responses in flight are given up. Run the same command again to go on." in said
    status = read_status(tmp_path / "out")
    assert (status.state, status.is_running, status.done_prompts) == ("stopped", False, NUM_QUICK)
    assert "are in the journal" in (said := finish(tmp_path))
    assert "the last job stopped" in said and "about 4 responses are made again (4 were in flight, 0 were not" in said
    assert read_status(tmp_path / "out").state == "finished"


def test_with_a_grace_what_is_in_flight_is_finished_and_nothing_new_begun(tmp_path: Path) -> None:
    with job_in_the_middle(tmp_path, "--grace-seconds", "600") as process:
        process.send_signal(signal.SIGTERM)
        assert not wait_for(lambda: process.poll() is not None, seconds=1)
        (tmp_path / "release").touch()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "stopped by SIGTERM: 14 of 30 prompts are done" in said and "given up" not in said
    assert "made again" not in finish(tmp_path)


def test_where_nothing_is_in_flight_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    # Prompts come from a pipe that nobody closes: without an end, the job would read for ever.
    command = [sys.executable, str(PROGRAM), str(tmp_path / "release"), "generate", "-", "-o", str(tmp_path / "out")]
    command += ["--teacher", "fake", "--grace-seconds", "600"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert wait_for((tmp_path / "out/.labelgen/header.json").exists, seconds=60)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert "stopped by SIGINT: no labels" in process.stderr.read()


def test_the_grace_ends_by_itself(tmp_path: Path) -> None:
    with job_in_the_middle(tmp_path, "--grace-seconds", "0.5") as process:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and "stopped by SIGTERM: 10 of 30 prompts are done" in said


def test_a_second_signal_ends_the_grace_and_still_loses_nothing(tmp_path: Path) -> None:
    with job_in_the_middle(tmp_path, "--grace-seconds", "600") as process:
        process.send_signal(signal.SIGINT)
        assert not wait_for(lambda: process.poll() is not None, seconds=0.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped by SIGINT: 10 of 30 prompts are done" in said
    assert "about 4 responses are made again (4 were in flight, 0 were not" in finish(tmp_path)


def test_status_from_another_shell_while_it_runs_and_after_it_was_killed(tmp_path: Path) -> None:
    with job_in_the_middle(tmp_path, "--flush-seconds", "0.01") as process:
        out = tmp_path / "out"
        assert wait_for(lambda: (status := read_status(out)).jobs and status.jobs[0].in_flight, seconds=30)
        command = [sys.executable, "-m", "labelgen", "status", str(out), "--json"]
        shown = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert (shown["state"], shown["running"]) == ("labelling", True)
        assert (shown["done_prompts"], shown["total_prompts"], shown["total_blocks"]) == (NUM_QUICK, NUM_PROMPTS, 4)
        (job,) = shown["jobs"]
        assert (job["pid"], job["in_flight"], job["records"]) == (process.pid, 4, NUM_QUICK)
        assert abs(time.time() - job["heartbeat_at"]) < 30
        assert shown["labels_per_second"] > 0 and shown["seconds_left"] > 0
        process.kill()
        process.wait()
        assert read_status(out).state == "killed"
        text = subprocess.run(command[:-1], check=True, capture_output=True, text=True).stdout
        assert "killed" in text and "10 of 30 done (33.3%)" in text
    assert "the last job was killed" in finish(tmp_path)
