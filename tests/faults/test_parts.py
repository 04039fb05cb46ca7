"""Parts of a job in processes of their own: killed at any time, run again, twice at once and in other numbers."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from killed_job import LOG_NAME, Moment, OutOfOrderTeacher, make_spec, start_job
from test_kills import NUM_PROMPTS, bits, read_log, wait_at_random, write_prompts

import labelstore
from labelgen.job.part import Part
from labelgen.job.progress import RunSummary
from labelgen.job.runner import run
from labelstore.dataset_writer import finish_dataset

NUM_KILLS = 4 if os.environ.get("LABELGEN_FAULTS", "1") == "1" else 60


def whole(root: Path) -> list[tuple[object, ...]]:
    """Return what one job gives that nothing happens to."""
    root.mkdir()
    write_prompts(root / "prompts.jsonl")
    run(make_spec(root), teacher=OutOfOrderTeacher())
    return bits(root / "out")


def run_part(root: Path, number: int, count: int) -> RunSummary:
    return run(make_spec(root, part=Part(number=number, count=count)), teacher=OutOfOrderTeacher())


def join(*jobs: BaseProcess) -> None:
    for job in jobs:
        job.join(120)
    assert [job.exitcode for job in jobs] == [0] * len(jobs)


def test_parts_one_after_the_other_give_what_one_job_gives_and_the_last_one_finishes(tmp_path: Path) -> None:
    wanted = whole(tmp_path / "whole")
    write_prompts(tmp_path / "prompts.jsonl")
    left = [run_part(tmp_path, number, 3).num_blocks_left for number in (2, 3)]
    assert left == [3, 2] and not (tmp_path / "out/manifest.json").exists()
    assert run_part(tmp_path, 1, 3).num_blocks_left == 0
    assert bits(tmp_path / "out") == wanted
    assert len(json.loads((tmp_path / "out/manifest.json").read_text())["entries"]) == 4
    again = run_part(tmp_path, 1, 3)
    assert (again.num_new_records, again.num_blocks_left) == (0, 0)


def test_parts_that_start_at_once_read_the_prompts_once(tmp_path: Path) -> None:
    wanted = whole(tmp_path / "whole")
    write_prompts(tmp_path / "prompts.jsonl")
    join(*(start_job(tmp_path, part=Part(number=number, count=4)) for number in range(1, 5)))
    assert bits(tmp_path / "out") == wanted
    assert labelstore.verify_dataset(tmp_path / "out").findings == []
    answered, _ = read_log(tmp_path / LOG_NAME)
    assert answered == NUM_PROMPTS, "a part does not do another's work"


def test_a_part_that_dies_over_the_prompts_is_replaced_by_one_that_waits(tmp_path: Path) -> None:
    wanted = whole(tmp_path / "whole")
    write_prompts(tmp_path / "prompts.jsonl")
    reader = start_job(tmp_path, Moment(kind="prompts/", step="linked", number=2), part=Part(number=1, count=2))
    join_killed(reader)
    join(start_job(tmp_path, part=Part(number=2, count=2)), start_job(tmp_path, part=Part(number=1, count=2)))
    assert bits(tmp_path / "out") == wanted


def join_killed(job: BaseProcess) -> None:
    job.join(120)
    assert job.exitcode == -signal.SIGKILL


def test_what_a_killed_part_has_in_the_journal_is_found_in_another_numbering(tmp_path: Path) -> None:
    wanted = whole(tmp_path / "whole")
    write_prompts(tmp_path / "prompts.jsonl")
    # Part 1/2 has the blocks 0 and 2; part 3/3 takes over the second of them.
    job = start_job(tmp_path, Moment(kind="journal/", step="linked", number=2), part=Part(number=1, count=2))
    join_killed(job)
    for number in (3, 2, 1):
        join(start_job(tmp_path, part=Part(number=number, count=3)))
    assert bits(tmp_path / "out") == wanted
    _, again = read_log(tmp_path / LOG_NAME)
    assert again == [], "a response is made again that was written down"
    assert not list((tmp_path / "out/.labelgen/journal").glob("*.parquet"))


@pytest.mark.timeout(120 + 20 * NUM_KILLS)
def test_parts_killed_renumbered_and_run_twice_at_once_lose_and_double_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = whole(tmp_path / "whole")
    rng = random.Random(0)
    killed = 0
    for folder in itertools.count():
        root = tmp_path / f"job-{folder}"
        root.mkdir()
        write_prompts(root / "prompts.jsonl")
        for count in (3, 2, 4):
            numbers = [*range(1, count + 1), rng.randint(1, count)]  # one of them twice
            jobs = [start_job(root, part=Part(number=number, count=count)) for number in numbers]
            victim = rng.choice(jobs)
            wait_at_random(victim, root / LOG_NAME, 0, rng)
            victim.kill()
            for job in jobs:
                job.join(120)
                assert job.exitcode == 0 or job is victim, job.exitcode
            killed += victim.exitcode != 0
            if (root / "out/.labelgen/entries").exists():
                assert set(bits(root / "out")) <= set(wanted)
        for number in (1, 2):
            join(start_job(root, part=Part(number=number, count=2)))
        assert bits(root / "out") == wanted
        finish_dataset(root / "out")
        assert labelstore.verify_dataset(root / "out").findings == []
        assert not list((root / "out/.labelgen/journal").glob("*.parquet")), "segments outlive their blocks"
        if killed >= NUM_KILLS or folder >= 2 * NUM_KILLS:
            break
    with capsys.disabled():
        print(f"\nkilled {killed} parts of {folder + 1} jobs; lost 0, doubled 0")
    assert killed >= NUM_KILLS
