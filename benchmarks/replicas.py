"""How much faster several replicas label: under a real Ray, with engines that sleep as a GPU computes.

Each engine has 32 slots and steps of a fixed time, in which every running request gets a token. All replicas begin
together, so that the time Ray takes to start them is left out; the rest is real: blocks handed out one by one, journal,
encoding, shards, entries.

    python benchmarks/replicas.py --write
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dated_result import write_result

from labelgen.job.progress import NullWatcher
from labelgen.job.runner import Job
from labelgen.job.spec import RunSpec
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.teacher import Answer, Refusal, Request
from labelstore.selection import Selection

SELECTION = Selection(top_k=8)
NUM_SLOTS = 32
NUM_TOKENS = 8
BLOCK_SIZE = 64


class SleepingTeacher(FakeTeacher):
    """Computes nothing for a while, then answers what is in its slots."""

    def __init__(self, folder: Path, *, number: int, replicas: int, step_seconds: float) -> None:
        super().__init__(selection=SELECTION, vocab_size=300, max_model_len=64)
        self._folder = folder
        self._number = number
        self._replicas = replicas
        self._step_seconds = step_seconds

    def start(self) -> None:
        """Wait until all replicas have come so far."""
        (self._folder / f"ready-{self._number}").touch()
        while len(list(self._folder.glob("ready-*"))) < self._replicas:
            time.sleep(0.01)

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        waiting = iter(requests)
        due = time.monotonic()
        in_flight: list[Request] = []
        is_exhausted = False
        while in_flight or not is_exhausted:
            while len(in_flight) < NUM_SLOTS and not is_exhausted:
                request = next(waiting, None)
                if request is None:
                    is_exhausted = True
                else:
                    in_flight.append(request)
            # A GPU that finds work when it ends a step goes on at once; one that finds none has lost the time.
            due = max(due + NUM_TOKENS * self._step_seconds, time.monotonic()) if in_flight else due
            time.sleep(max(due - time.monotonic(), 0.0))
            for request in in_flight:
                yield from super().label([request])
            in_flight = []


class Loader:
    """Makes a replica's teacher in its process."""

    def __init__(self, folder: Path, *, replicas: int, step_seconds: float) -> None:
        self._values: dict[str, Any] = {"replicas": replicas, "step_seconds": step_seconds}
        self._folder = folder

    def __call__(self, spec: RunSpec, number: int) -> SleepingTeacher:
        return SleepingTeacher(self._folder, number=number, **self._values)


def measure(root: Path, *, replicas: int, num_blocks: int, step_seconds: float) -> dict[str, float]:
    """Label a prompt set with so many replicas; return seconds from the first request to the last answer."""
    root.mkdir(parents=True)
    rows = [{"id": f"p{i}", "prompt": f"question {i}"} for i in range(num_blocks * BLOCK_SIZE)]
    (root / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = RunSpec(
        task="generate",
        sources=(str(root / "prompts.jsonl"),),
        output_dir=root / "out",
        teacher="sleeping",
        selection=SELECTION,
        codec="open",
        block_size=BLOCK_SIZE,
        max_tokens=NUM_TOKENS,
        replicas=replicas,
        rescore_at_end=0,
    )
    teacher = SleepingTeacher(root, number=0, replicas=0, step_seconds=0.0)
    loader = Loader(root, replicas=replicas, step_seconds=step_seconds)
    summary = Job(spec, teacher=teacher, replica_teacher=loader).run(NullWatcher())
    engine_seconds = num_blocks * BLOCK_SIZE / NUM_SLOTS * NUM_TOKENS * step_seconds
    return {
        "records": summary.counts.num_records,
        "seconds": summary.seconds,
        "engine_seconds": engine_seconds,
        "busy_share": engine_seconds / replicas / summary.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--step-seconds", type=float, default=0.5)
    parser.add_argument("--write", action="store_true", help="write the dated result")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="labelgen-replicas-"))
    try:
        figures = {
            replicas: measure(
                root / str(replicas),
                replicas=replicas,
                num_blocks=options.blocks,
                step_seconds=options.step_seconds,
            )
            for replicas in options.replicas
        }
    finally:
        shutil.rmtree(root)
    first = figures[options.replicas[0]]["seconds"]
    ratios = {replicas: first / values["seconds"] for replicas, values in figures.items()}
    if options.write:
        rows = "\n".join(
            f"| {replicas} | {values['seconds']:.1f} | {ratios[replicas]:.2f} | {values['busy_share']:.1%} |"
            for replicas, values in figures.items()
        )
        write_result(
            "replicas",
            title="Replicas beside one",
            table=f"| replicas | seconds | times as fast | engines busy |\n|---|---|---|---|\n{rows}",
            note=f"{options.blocks} blocks of {BLOCK_SIZE} prompts, {NUM_SLOTS} slots, steps of "
            f"{options.step_seconds:g} s, {NUM_TOKENS} tokens a response. Two cores for all of it.",
            command="python benchmarks/replicas.py --write",
            content={"figures": figures, "ratios": ratios},
        )
    print(json.dumps({"figures": figures, "ratios": ratios}))


if __name__ == "__main__":
    main()
