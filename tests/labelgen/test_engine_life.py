"""The real job from the shell: killed with SIGKILL, nothing of ours is left alive; run again, it is finished."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

import labelstore
from labelgen.teachers.engine_guard import MARK, EngineGuard, marked_processes
from labelstore.journal_segment import SegmentReader
from rejected_rows import rejected_rows
from teachers import fetch_teacher

ROOT = Path(__file__).resolve().parent.parent.parent


def wait_for(condition: object, *, seconds: float) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def marks_of(driver: int) -> set[str]:
    """Return the marks of the living processes that were started by a driver."""
    found = set()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            for variable in environ.read_bytes().split(b"\0"):
                if variable.startswith(f"{MARK}={driver}-".encode()):
                    found.add(variable.decode().split("=", 1)[1])
    return found


def descendants(parent: int) -> dict[int, str]:
    """Return all processes below one, with their titles."""
    parents: dict[int, tuple[int, str]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            above = int(path.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1])
            title = path.joinpath("cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            parents[int(path.name)] = (above, title)
    found: dict[int, str] = {}
    while new := {
        pid: title for pid, (above, title) in parents.items() if above in {parent, *found} and pid not in found
    }:
        found |= new
    return found


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def test_the_guard_kills_what_a_killed_driver_leaves() -> None:
    # A grandchild in a session of its own, as an engine's worker is; no model needed.
    code = (
        "import subprocess, sys, time\n"
        "from labelgen.teachers.engine_guard import EngineGuard\n"
        "with EngineGuard().marking():\n"
        "    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None and driver.stdout.readline() == "ready\n"
    assert wait_for(lambda: marks_of(driver.pid), seconds=10)
    (mark,) = marks_of(driver.pid)
    driver.kill()
    driver.wait()
    driver.stdout.close()
    assert wait_for(lambda: not marked_processes(mark), seconds=10), "a process outlives its driver"


def test_closing_the_guard_kills_stragglers_and_unmarks_the_driver() -> None:
    guard = EngineGuard()
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    with guard.marking() as mark:
        child = subprocess.Popen(sleep)
    other = subprocess.Popen(sleep)  # the host program's own: none of the guard's business
    assert wait_for(lambda: marked_processes(mark), seconds=10)
    guard.close()
    assert child.wait() == -signal.SIGKILL
    assert MARK not in os.environ and not marked_processes(mark)
    assert other.poll() is None
    other.kill()
    other.wait()


def blocked_signals(pid: int) -> set[signal.Signals]:
    """Return the signals that a process does not hear, of those that a job may get."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")), 16)
    candidates = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    return {number for number in candidates if mask & 1 << (number - 1)}


def test_what_the_guard_marks_does_not_hear_the_drivers_signals() -> None:
    guard = EngineGuard()
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # or the one for all later tests is started, marked and killed here
    with guard.marking() as mark:
        shielded = context.Process(target=time.sleep, args=(600,))
        shielded.start()
    assert wait_for(lambda: marked_processes(mark), seconds=10)
    other = context.Process(target=time.sleep, args=(600,))
    other.start()
    assert shielded.pid is not None and other.pid is not None
    assert blocked_signals(shielded.pid) == {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}
    assert not blocked_signals(other.pid) and not blocked_signals(os.getpid())
    guard.close()
    shielded.join(10)
    assert shielded.exitcode == -signal.SIGKILL
    other.kill()
    other.join()


@contextlib.contextmanager
def running(command: list[str], log_path: Path, *, in_own_group: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, start_new_session=in_own_group)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def count_records(out: Path) -> int:
    """Return how many records are published or in the journal."""
    published = len(labelstore.open_dataset(out)) if (out / ".labelgen/entries").exists() else 0
    segments = list((out / ".labelgen/journal").glob("*.parquet"))
    return published + sum(len(SegmentReader(path.name, path.read_bytes()).record_ids()) for path in segments)


def kill_when(command: list[str], log_path: Path, is_time: Callable[[], bool]) -> None:
    """Start a job, kill it with SIGKILL when the time has come, and see that no process of it is left."""
    with running(command, log_path) as process:
        came = wait_for(lambda: process.poll() is not None or is_time(), seconds=300)
        assert came and process.poll() is None, log_path.read_text()
        (mark,) = marks_of(process.pid)
        engine = {pid: name for pid, name in descendants(process.pid).items() if name.startswith("VLLM::")}
        assert len(engine) >= 2 and engine.keys() <= set(marked_processes(mark)), "the guard does not see the engine"
        everyone = {process.pid, *descendants(process.pid)}
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert wait_for(lambda: not marked_processes(mark), seconds=15), "the engine outlives its driver"
    # A dying process loses its environment, and so its mark, before it is gone: its memory is given back in between.
    assert wait_for(lambda: not any(_is_alive(pid) for pid in everyone), seconds=15), "a process of ours is still there"


@pytest.mark.engine
@pytest.mark.timeout(1200)
def test_a_job_killed_twice_leaves_no_process_and_is_finished_by_the_same_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "prompts.jsonl"
    chats = (ROOT / "examples/prompts/chats.jsonl").read_text().splitlines()
    bad = [json.dumps({"id": "question-00", "prompt": "other content"}), "{not json"]
    source.write_text("\n".join([*chats, *bad]) + "\n")
    out = tmp_path / "labels"
    command = [sys.executable, "-m", "labelgen", "generate", str(source), "-o", str(out), "--block-size", "8"]
    command += ["--teacher", str(fetch_teacher("smollm2")), "--max-tokens", "16", "--top-k", "16"]
    command += ["--max-model-len", "512", "--responses", "4", "--flush-seconds", "0.2", "--json"]
    num_records = 4 * len(chats)  # more than one engine-load
    entries = out / ".labelgen/entries"
    kill_when(command, tmp_path / "first.log", lambda: any((out / ".labelgen/journal").glob("*.parquet")))
    num_first = count_records(out)
    kill_when(command, tmp_path / "second.log", lambda: entries.is_dir() and any(entries.iterdir()))
    num_second = count_records(out)
    assert 0 < num_first < num_second < num_records
    with running(command, tmp_path / "third.log") as process:
        assert process.wait(timeout=400) == 0, (tmp_path / "third.log").read_text()
    for name in ("second.log", "third.log"):
        said = (tmp_path / name).read_text()
        assert "are in the journal" in said and "the last job was killed" in said, said
    summary = json.loads((tmp_path / "third.log").read_text().splitlines()[-1])
    assert (summary["records"], summary["rejected"]) == (num_records, 2)
    # Whatever was published or in the journal is not made again.
    assert summary["new_records"] == num_records - num_second
    names = [record.record_id for record in labelstore.open_dataset(out)]
    wanted = [f"{json.loads(line)['id']}#{i}" for line in chats for i in range(4)]
    with capsys.disabled():
        print(
            f"\nkilled 2 times with a real teacher, at {num_first} and {num_second} of {num_records} records kept; "
            f"lost {len(set(wanted) - set(names))}, doubled {len(names) - len(set(names))}"
        )
    assert names == wanted
    assert labelstore.verify_dataset(out).findings == []
    rejected = rejected_rows(out)
    assert [row["line"] for row in rejected] == [len(chats) + 1, len(chats) + 2]


@pytest.mark.engine
@pytest.mark.timeout(900)
def test_ctrl_c_in_a_terminal_finishes_what_is_in_flight(tmp_path: Path) -> None:
    # As a terminal does, it goes to every process of the group, the engine's too.
    out = tmp_path / "labels"
    command = [sys.executable, "-m", "labelgen", "generate", str(ROOT / "examples/prompts/chats.jsonl"), "-o", str(out)]
    command += ["--teacher", str(fetch_teacher("smollm2")), "--max-tokens", "16", "--top-k", "16", "--limit", "40"]
    command += ["--max-model-len", "512", "--flush-seconds", "0.2", "--grace-seconds", "300"]
    with running(command, tmp_path / "log", in_own_group=True) as process:
        journal = out / ".labelgen/journal"
        assert wait_for(lambda: process.poll() is not None or any(journal.glob("*.parquet")), seconds=300)
        assert process.poll() is None, (tmp_path / "log").read_text()
        (mark,) = marks_of(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=300) == 130
    assert "stopped by SIGINT: 40 of 40 prompts are done" in (tmp_path / "log").read_text()
    assert not marked_processes(mark) and count_records(out) == 40


@pytest.mark.more_engines
@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_late", [False, True], ids=["before-the-engine", "in-the-middle"])
def test_ctrl_c_while_the_teacher_loads_ends_the_job_at_once_and_leaves_no_process(
    tmp_path: Path, is_late: bool
) -> None:
    log_path, out = tmp_path / "log", tmp_path / "labels"
    command = [sys.executable, "-m", "labelgen", "generate", str(ROOT / "examples/prompts/chats.jsonl"), "-o", str(out)]
    command += ["--teacher", str(fetch_teacher("smollm2")), "--max-tokens", "4", "--limit", "4"]
    with running(command, log_path, in_own_group=True) as process:

        def is_loading() -> bool:
            if "loading the teacher" not in log_path.read_text():
                return False
            return not is_late or any(name.startswith("VLLM::") for name in descendants(process.pid).values())

        assert wait_for(lambda: process.poll() is not None or is_loading(), seconds=120)
        assert process.poll() is None, log_path.read_text()
        everyone = {process.pid, *descendants(process.pid)}
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=30) == 130, log_path.read_text()
    said = log_path.read_text()
    assert "Traceback" not in said and "stopped by SIGINT: " in said and "Run the same command again" in said, said
    assert wait_for(lambda: not any(_is_alive(pid) for pid in everyone), seconds=15), "a process of ours is still there"
