"""Real SIGKILLs, at random and at chosen moments: nothing is lost, nothing doubled, and only what had to be is redone.

`make test-faults` sends 200 of them.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed_job import LOG_NAME, DeadlyTeacher, Moment, OutOfOrderTeacher, make_spec, start_job

import labelstore
from labelgen.job.runner import run
from labelstore.labels import Labels
from rejected_rows import rejected_rows

NUM_PROMPTS = 80
NUM_KILLS = 24 if os.environ.get("LABELGEN_FAULTS", "1") == "1" else 200
MOMENTS = [
    Moment(kind="prompts/", step="write", number=2),
    Moment(kind="prompts/", step="link", number=2),
    Moment(kind="prompts/", step="linked", number=3),
    Moment(kind="sources.json", step="rename"),
    Moment(kind="header.json", step="linked"),
    Moment(kind="journal/", step="write"),
    Moment(kind="journal/", step="sync", number=2),
    Moment(kind="journal/", step="link", number=2),
    Moment(kind="journal/", step="linked", number=3),
    Moment(kind="journal/", step="remove"),
    Moment(kind="journal/", step="remove", number=2),
    Moment(kind="shard", step="write"),
    Moment(kind="shard", step="write", number=4),
    Moment(kind="data/", step="sync", number=2),
    Moment(kind="data/", step="link", number=2),
    Moment(kind="data/", step="linked"),
    Moment(kind="entries/", step="write", number=2),
    Moment(kind="entries/", step="link"),
    Moment(kind="entries/", step="linked", number=3),
    Moment(kind="manifest.json", step="write"),
    Moment(kind="manifest.json", step="rename"),
]


@dataclass(slots=True, kw_only=True)
class Tally:
    killed: int = 0
    lost: int = 0
    doubled: int = 0
    redone: int = 0
    answers: int = 0
    moments: list[str] = field(default_factory=list)  # that were reached


def write_prompts(path: Path) -> None:
    rows = [{"id": f"r{i}", "prompt": f"question {i}"} for i in range(NUM_PROMPTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def bits(root: Path) -> list[tuple[Any, ...]]:
    """Return all that a reader sees, record by record, in order."""
    return [
        (
            record.record_id,
            record.text,
            record.input_ids.tobytes(),
            *(
                None if (array := getattr(record.labels, name)) is None else np.asarray(array).tobytes()
                for name in Labels.__slots__
            ),
        )
        for record in labelstore.open_dataset(root)
    ]


@pytest.mark.timeout(120 + 20 * NUM_KILLS)
def test_no_kill_loses_or_doubles_a_response(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(0)
    (tmp_path / "whole").mkdir()
    write_prompts(tmp_path / "whole/prompts.jsonl")
    run(make_spec(tmp_path / "whole"), teacher=OutOfOrderTeacher())
    wanted = bits(tmp_path / "whole/out")
    assert len(wanted) == NUM_PROMPTS
    tally = Tally()
    for folder in itertools.count():
        root = tmp_path / f"job-{folder}"
        root.mkdir()
        write_prompts(root / "prompts.jsonl")
        kill_until_finished(root, set(wanted), rng, tally)
        check(root, wanted, tally)
        if tally.killed >= NUM_KILLS:
            break
    with capsys.disabled():
        print(
            f"\nkilled {tally.killed} times, {tally.killed - len(tally.moments)} of them at random, else at "
            f"{len(set(tally.moments))} chosen moments; lost {tally.lost}, doubled {tally.doubled}, "
            f"redone {tally.redone} of {tally.answers} answers"
        )
    assert tally.lost == tally.doubled == 0
    assert len(set(tally.moments)) > len(MOMENTS) / 2, "too few of the chosen moments come at all"


def kill_until_finished(root: Path, wanted: set[tuple[Any, ...]], rng: random.Random, tally: Tally) -> None:
    """Run the job of a folder again and again: killed at the chosen moments in their order, and between them at random.

    A moment that does not come lets the job finish.
    """
    left = [moment for moment in MOMENTS if str(moment) not in tally.moments] or list(MOMENTS)
    while True:
        moment = left.pop(0) if left and rng.random() < 0.75 else None
        num_lines = count_lines(root / LOG_NAME)
        process = start_job(root, moment)
        if moment is None and tally.killed < NUM_KILLS:
            wait_at_random(process, root / LOG_NAME, num_lines, rng)
            process.kill()
        process.join(120)
        assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
        if process.exitcode == 0:
            return
        tally.killed += 1
        tally.moments += [] if moment is None else [str(moment)]
        if (root / "out/.labelgen/entries").exists():  # whatever a reader sees of it is right
            assert set(bits(root / "out")) <= wanted


def wait_at_random(process: BaseProcess, log_path: Path, num_lines: int, rng: random.Random) -> None:
    """Wait a little from the start, or from one of the first events of the job on: answers, flushes."""
    if rng.random() < 0.8:
        wanted = num_lines + rng.randrange(1, 60)
        while process.is_alive() and count_lines(log_path) < wanted:
            process.join(0.002)
    process.join(rng.uniform(0.0, 0.05))


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def check(root: Path, wanted: list[tuple[Any, ...]], tally: Tally) -> None:
    """Compare a finished job with one that was never killed, and count what was done again."""
    got = bits(root / "out")
    names = [row[0] for row in got]
    tally.lost += len({row[0] for row in wanted} - set(names))
    tally.doubled += len(names) - len(set(names))
    assert got == wanted
    assert labelstore.verify_dataset(root / "out").findings == []
    left = [path for path in (root / "out/.labelgen/journal").glob("*") if path.is_file()]
    assert left == [], "segments outlive their blocks"
    answered, again = read_log(root / LOG_NAME)
    tally.answers += answered
    tally.redone += answered - NUM_PROMPTS
    assert again == [], "a response is made again that was written down"


def read_log(path: Path) -> tuple[int, list[str]]:
    """Return how many answers were given, and which requests were answered again although a flush had saved them.

    The answer before the beginning of a flush may not have reached the journal yet, so that it does not count.
    """
    safe: set[str] = set()
    again: list[str] = []
    answered: list[str] = []
    flushing: list[str] = []
    total = 0
    for line in path.read_text().splitlines():
        if line == "start":
            answered, flushing = [], []
        elif line == "flush":
            flushing = answered[:-1]
        elif line == "flushed":
            safe.update(flushing)
        elif line != "end":
            total += 1
            again += [line] if line in safe else []
            answered.append(line)
    return total, again


def test_a_prompt_that_takes_the_job_down_does_not_do_so_for_ever(tmp_path: Path) -> None:
    rows = [{"id": f"r{i}", "prompt": "the poison" if i == 37 else f"question {i}"} for i in range(NUM_PROMPTS)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    exit_codes: list[int | None] = []
    while exit_codes[-1:] != [0] and len(exit_codes) < 20:
        process = start_job(tmp_path, teacher=DeadlyTeacher)
        process.join(120)
        exit_codes.append(process.exitcode)
    # Three deaths make it suspect; of the few suspects each runs alone, and three more deaths are enough.
    assert exit_codes == [-signal.SIGKILL] * 6 + [0]
    (reject,) = rejected_rows(tmp_path / "out")
    assert reject["id"] == "r37" and "jobs in a row died over it, the last 3 with nothing beside it" in reject["reason"]
    names = [record.prompt_id for record in labelstore.open_dataset(tmp_path / "out")]
    assert names == [f"r{i}" for i in range(NUM_PROMPTS) if i != 37]


def test_two_jobs_on_one_folder_give_what_one_gives(tmp_path: Path) -> None:
    for name in ("whole", "both"):
        (tmp_path / name).mkdir()
        write_prompts(tmp_path / name / "prompts.jsonl")
    run(make_spec(tmp_path / "whole"), teacher=OutOfOrderTeacher())
    first = start_job(
        tmp_path / "both", Moment(kind="journal/", step="linked", number=2)
    )  # the prompts are read by then
    first.join(120)
    assert first.exitcode == -signal.SIGKILL
    jobs = [start_job(tmp_path / "both") for _ in range(2)]
    for job in jobs:
        job.join(120)
        assert job.exitcode == 0
    assert bits(tmp_path / "both/out") == bits(tmp_path / "whole/out")
    assert labelstore.verify_dataset(tmp_path / "both/out").findings == []
