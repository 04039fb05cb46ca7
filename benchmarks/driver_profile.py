"""Where the driver's processor time goes, by stage: the real driver over a simulated engine core, down to the disk.

    PYTHONPATH=examples python benchmarks/driver_profile.py [--write]

Each stage's own time, without that of stages it calls; processor time of the thread that runs it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dated_result import write_result
from engine_busy import run_job
from simulated_engine import SimulatedCore, SimulatedTeacher

import labelgen.job.blocks
from labelgen.job.blocks import BlockCollector
from labelgen.job.requests import PromptRequests
from labelgen.job.runner import Job
from labelgen.teachers.vllm_teacher import VLLMTeacher
from labelstore.codecs.packed.codec import PackedCodec, PackedEncoder
from labelstore.dataset_writer import DatasetWriter
from labelstore.journal import Journal
from labelstore.shard_writer import ShardWriter

__all__ = ["measure"]

SIMULATION = "the simulated engine"
OTHER = "the rest: ingest, runner, progress"


class StageClock:
    """Adds up the time of each stage, without that of the stages inside it."""

    def __init__(self) -> None:
        self.seconds: collections.Counter[str] = collections.Counter()
        self._local = threading.local()
        self._lock = threading.Lock()

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            with self.running(stage):
                return function(*arguments, **options)

        return timed

    @contextlib.contextmanager
    def running(self, stage: str) -> Iterator[None]:
        stack = self._local.__dict__.setdefault("stack", [])
        start = time.thread_time()
        stack.append(0.0)  # of the stages inside this one
        try:
            yield
        finally:
            whole = time.thread_time() - start
            inside = stack.pop()
            if stack:
                stack[-1] += whole
            with self._lock:
                self.seconds[stage] += whole - inside


def stages() -> list[tuple[str, Any, str]]:
    """Return what is timed: the stage, and the function that it is."""
    from vllm.v1.engine.llm_engine import LLMEngine

    return [
        ("feeding: prompts to requests", PromptRequests, "make"),
        ("feeding: parameters and vLLM's own input processing", VLLMTeacher, "_submit"),
        ("collecting: vLLM's output processing, arrays appended", LLMEngine, "step"),
        (SIMULATION, SimulatedCore, "get_output"),
        ("capture: arrays to labels", VLLMTeacher, "_settle"),
        ("records: text decoded, record made", PromptRequests, "to_record"),
        ("records: taken into their block", BlockCollector, "take"),
        ("checks as answers come", labelgen.job.blocks, "find_problems"),
        ("journal", Journal, "flush"),
        ("journal", Journal, "read"),
        ("encode: the codec's model is trained", PackedCodec, "train"),
        ("encode (codec standard)", PackedEncoder, "encode"),
        ("write: Parquet, zstd, hashes, fsync", ShardWriter, "_flush"),
        ("write: Parquet, zstd, hashes, fsync", ShardWriter, "_finish"),
        ("write: rows of hard columns, entries", DatasetWriter, "publish_block"),
        (OTHER, Job, "run"),
    ]


@contextlib.contextmanager
def timed_stages(clock: StageClock) -> Iterator[None]:
    """Time the stages as long as the body runs."""
    found = [(owner, name, vars(owner)[name]) for _, owner, name in stages()]
    for (stage, owner, name), (_, _, original) in zip(stages(), found, strict=True):
        if name == "find_problems":  # a generator: its work is done when it is asked

            def listed(*arguments: Any, original: Any = original, **options: Any) -> Iterator[str]:
                return iter(list(original(*arguments, **options)))

            setattr(owner, name, clock.wrap(stage, listed))
        elif isinstance(original, staticmethod):
            setattr(owner, name, staticmethod(clock.wrap(stage, original.__func__)))
        else:
            setattr(owner, name, clock.wrap(stage, original))
    try:
        yield
    finally:
        for owner, name, original in found:
            setattr(owner, name, original)


def measure(*, num_prompts: int, num_slots: int, top_k: int, block_size: int = 256) -> dict[str, Any]:
    """Return the labels that a job makes, and the seconds of each stage."""
    clock = StageClock()
    with tempfile.TemporaryDirectory(prefix="labelgen-profile-") as folder:
        teacher = SimulatedTeacher(
            num_slots=num_slots, step_seconds=0.01, top_k=top_k, log_path=Path(folder) / "engine.log"
        )
        teacher.start()
        with timed_stages(clock):
            labels = run_job(teacher, num_prompts=num_prompts, work_dir=Path(folder), block_size=block_size)
        teacher.close()
    order = list(dict.fromkeys(stage for stage, _, _ in stages()))
    return {"labels": labels, "seconds": {stage: round(clock.seconds[stage], 4) for stage in order}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny inputs")
    parser.add_argument("--top-k", type=int, default=64)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/driver-profile-<date>.{json,md}")
    arguments = parser.parse_args()
    num_prompts, num_slots = (40, 8) if arguments.smoke else (6000, 256)
    measure(num_prompts=40, num_slots=8, top_k=arguments.top_k)  # warm up
    figures = measure(num_prompts=num_prompts, num_slots=num_slots, top_k=arguments.top_k)
    ours = {stage: seconds for stage, seconds in figures["seconds"].items() if stage != SIMULATION}
    total = sum(ours.values())
    lines = ["| stage | microseconds a label | share |", "|---|---|---|"]
    for stage, seconds in ours.items():
        lines.append(f"| {stage} | {seconds * 1e6 / figures['labels']:.2f} | {seconds / total:.1%} |")
    lines.append(f"| all | {total * 1e6 / figures['labels']:.2f} | 100% |")
    table = "\n".join(lines)
    print(table)
    if arguments.write:
        write_result(
            "driver-profile",
            title="Where the driver's processor time goes",
            table=table,
            note=(
                f"{figures['labels']:,} labels, K = {arguments.top_k}, responses of 4 to 200 tokens, {num_slots} at "
                f"once, codec `standard`. Each stage without the stages inside it;\nfeeding, collecting and records "
                f"run in one thread, checks before writing, encoding and writing in another."
            ),
            command="PYTHONPATH=examples python benchmarks/driver_profile.py --write",
            content={"top_k": arguments.top_k, **figures},
        )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
