"""How busy the engine is between its first and its last token, with responses whose lengths differ 50x.

    PYTHONPATH=examples python benchmarks/engine_busy.py [--write]      # simulated engine, then the real one

For each: the share of the time in which a step is being computed, and the share of the slots that are filled while
there are prompts that have not been fed. The real engine's steps are clocked in its worker; the simulated one's clock
goes on by steps and the driver's processor time, so that a busy machine changes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dated_result import write_result
from simulated_engine import LONGEST, SHORTEST, MixedLengths, SimulatedTeacher, Step

import labelgen
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.teacher import GenerateRequest
from labelstore.selection import Selection
from teachers import fetch_teacher

__all__ = ["StepClock", "measure_real", "measure_simulated", "run_job"]

TOP_K = 64


class StepClock:
    """Runs inside vLLM's worker: notes when each step begins and ends, and how many requests it holds."""

    def start_clock(self: Any) -> None:
        steps: list[list[float]] = []
        self.clocked_steps = steps
        execute, sample = self.execute_model, self.sample_tokens

        def execute_model(scheduler_output: Any) -> Any:
            start = time.monotonic()
            result = execute(scheduler_output)
            steps.append([start, time.monotonic(), len(scheduler_output.num_scheduled_tokens)])
            return result

        def sample_tokens(*arguments: Any) -> Any:
            start = time.monotonic()
            result = sample(*arguments)
            steps.append([start, time.monotonic(), 0])
            return result

        self.execute_model, self.sample_tokens = execute_model, sample_tokens

    def read_clock(self: Any) -> list[list[float]]:
        steps = list(self.clocked_steps)
        self.clocked_steps.clear()
        return steps


def measure_simulated(
    *,
    num_prompts: int,
    num_slots: int,
    step_seconds: float,
    work_dir: Path,
    top_k: int = TOP_K,
    in_waves: bool = False,
) -> dict[str, Any]:
    """Run a job, down to the disk, on an engine that computes nothing and takes its time."""
    simulated = SimulatedTeacher(
        num_slots=num_slots, step_seconds=step_seconds, top_k=top_k, log_path=work_dir / "engine.log"
    )
    with contextlib.closing(simulated) as teacher:
        teacher.wave = num_slots if in_waves else None
        labels = run_job(teacher, num_prompts=num_prompts, work_dir=work_dir)
        steps = teacher.core.steps
        return {
            "engine": f"simulated, steps of {step_seconds * 1000:g} ms{', fed in waves' if in_waves else ''}",
            "slots": num_slots,
            "responses": num_prompts,
            "labels": labels,
            **busy_shares(steps, num_slots=num_slots, exhausted_at=teacher.exhausted_at),
            "starved_share": round(teacher.core.starved_seconds / (steps[-1].stop - steps[0].start), 4),
        }


def measure_real(*, num_prompts: int, num_slots: int, num_rounds: int, work_dir: Path) -> list[dict[str, Any]]:
    """Run the same job on the demo teacher under vLLM, and its requests on vLLM alone, in turn; medians of rounds."""
    real = MixedLengths(
        str(fetch_teacher("smollm2")),
        selection=Selection(top_k=TOP_K),
        settings=EngineSettings(max_model_len=512),
        log_path=work_dir / "engine.log",
    )
    with contextlib.closing(real) as teacher:
        for config in (teacher._engine_args, teacher._config.scheduler_config):
            config.max_num_seqs = num_slots
        teacher._engine_args.worker_extension_cls = "engine_busy.StepClock"
        teacher._engine_args.disable_log_stats = False  # each output tells what the scheduler has left to do
        teacher.start()
        teacher._engine.collective_rpc("start_clock")
        starving = StarvingClock(teacher._engine.engine_core)
        rounds: dict[str, list[dict[str, Any]]] = {"labelgen": [], "alone, all fed at once": []}
        for round_index in range(num_rounds):
            for variant, results in rounds.items():
                starving.reset()
                if variant == "labelgen":
                    root = work_dir / str(round_index)
                    labels = run_job(teacher, num_prompts=num_prompts, work_dir=root)
                    exhausted_at = teacher.exhausted_at
                else:
                    run_alone(teacher)
                    exhausted_at = float("inf")
                (clocked,) = teacher._engine.collective_rpc("read_clock")
                steps = [Step(start=start, stop=stop, num_running=int(count)) for start, stop, count in clocked]
                shares = busy_shares(steps, num_slots=num_slots, exhausted_at=exhausted_at)
                results.append({**shares, "starved_share": round(starving.seconds / shares["seconds"], 4)})
                print(variant, results[-1], flush=True)
        recorded = teacher.facts.recorded
    return [
        {
            "engine": f"vLLM {recorded['vllm_version']}, SmolLM2 135M, {recorded['device']}, {variant}",
            "slots": num_slots,
            "responses": num_prompts,
            "labels": labels,
            **{name: round(statistics.median(result[name] for result in results), 4) for name in results[0]},
            "rounds": results,
        }
        for variant, results in rounds.items()
    ]


class StarvingClock:
    """Adds up the time in which the engine core has no request at all, neither running nor waiting."""

    def __init__(self, client: Any) -> None:
        self._original = client.get_output
        client.get_output = self._get_output
        self.reset()

    def reset(self) -> None:
        self.seconds = 0.0
        self._empty_since: float | None = None

    def _get_output(self) -> Any:
        outputs = self._original()
        if self._empty_since is not None:
            self.seconds += outputs.timestamp - self._empty_since  # the step itself included
        stats = outputs.scheduler_stats
        is_empty = stats is not None and stats.num_running_reqs + stats.num_waiting_reqs == 0
        self._empty_since = outputs.timestamp if is_empty else None
        return outputs


def run_alone(teacher: MixedLengths) -> None:
    """Give vLLM all requests of the last job at once, and throw away what it says."""
    for number, request in enumerate(teacher.seen):
        assert isinstance(request, GenerateRequest)
        prompt = {"prompt_token_ids": request.prompt_ids.tolist()}
        teacher._engine.add_request(f"alone-{time.monotonic()}-{number}", prompt, teacher.parameters_of(request))
    num_left = len(teacher.seen)
    while num_left:
        num_left -= sum(output.finished for output in teacher._engine.step())


def busy_shares(steps: Sequence[Step], *, num_slots: int, exhausted_at: float) -> dict[str, float]:
    """Return the share of the time in steps, and the share of slots filled before all was fed, weighted by time."""
    seconds = steps[-1].stop - steps[0].start
    gaps = [after.start - before.stop for before, after in itertools.pairwise(steps)]
    while_fed = [step for step in steps if step.num_running and step.start < exhausted_at]
    lengths = np.array([step.stop - step.start for step in while_fed])
    filled = np.array([step.num_running for step in while_fed])
    return {
        "seconds": round(seconds, 2),
        "steps": sum(step.num_running > 0 for step in steps),
        "busy_share": round(sum(step.stop - step.start for step in steps) / seconds, 4),
        "longest_gap_ms": round(1000 * max(gaps), 2),
        "filled_share_while_unfed": round(float((lengths * filled).sum() / lengths.sum() / num_slots), 4),
    }


def run_job(teacher: MixedLengths, *, num_prompts: int, work_dir: Path, block_size: int = 256) -> int:
    """Label a list of prompts and return the labels."""
    work_dir.mkdir(exist_ok=True)
    source = work_dir / "prompts.jsonl"
    rows = (json.dumps({"id": f"p{i}", "prompt": f"Number {i} of the list is"}) for i in range(num_prompts))
    source.write_text("\n".join(rows) + "\n")
    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(source),),
        output_dir=work_dir / "out",
        teacher=teacher.facts.name,
        selection=teacher.selection,
        max_tokens=LONGEST,
        block_size=block_size,
        rescore_at_end=0,
    )
    return labelgen.run(spec, teacher=teacher).num_new_labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a tiny simulated run only")
    parser.add_argument("--only", choices=["simulated", "real"])
    parser.add_argument("--rounds", type=int, default=3, help="of the real engine")
    parser.add_argument("--prompts", type=int, default=200, help="for the real engine")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/engine-busy-<date>.{json,md}")
    arguments = parser.parse_args()
    rows = []
    sizes = [(4000, 64, 0.01, False), (8000, 256, 0.02, False), (4000, 64, 0.01, True)]
    if arguments.smoke:
        sizes = [(40, 8, 0.002, False)]
    for num_prompts, num_slots, step_seconds, in_waves in sizes if arguments.only != "real" else []:
        with tempfile.TemporaryDirectory(prefix="labelgen-busy-") as folder:
            rows.append(
                measure_simulated(
                    num_prompts=num_prompts,
                    num_slots=num_slots,
                    step_seconds=step_seconds,
                    work_dir=Path(folder),
                    in_waves=in_waves,
                )
            )
            print(rows[-1], flush=True)
    if not arguments.smoke and arguments.only != "simulated":
        with tempfile.TemporaryDirectory(prefix="labelgen-busy-") as folder:
            rows += measure_real(
                num_prompts=arguments.prompts, num_slots=16, num_rounds=arguments.rounds, work_dir=Path(folder)
            )
    lines = [
        "| engine | slots | responses | steps | seconds | busy | without a request | slots filled while unfed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        filled = "" if "all fed at once" in row["engine"] else f"{row['filled_share_while_unfed']:.2%}"
        lines.append(
            f"| {row['engine']} | {row['slots']} | {row['responses']:,} | {row['steps']:,} | {row['seconds']:.0f} | "
            f"{row['busy_share']:.2%} | {row['starved_share']:.2%} | {filled} |"
        )
    table = "\n".join(lines)
    print(table)
    if arguments.write:
        write_result(
            "engine-busy",
            title="How busy the engine is",
            table=table,
            note=(
                f"Responses of {SHORTEST} to {LONGEST} tokens, K = {TOP_K}, everything on disk. Busy: the share of the "
                f"time between the first and the last step in which one is computed,\nthe end with its stragglers "
                f"included. Fed in waves: so many requests as slots, then a wait for the last of them, as simple loops "
                f"do.\nThe real engine's time between steps is its own scheduling, and other programs' on a shared "
                f"machine; `alone` shows it without us. Rounds in turn: {arguments.rounds}; medians."
            ),
            command=f"PYTHONPATH=examples python benchmarks/engine_busy.py {' '.join(sys.argv[1:])}",
            content={"rows": rows},
        )
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
