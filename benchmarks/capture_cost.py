"""What a captured candidate costs the driver: vLLM's dicts, its flat lists, and arrays; from engine output to labels.

python benchmarks/capture_cost.py [--write]      # no model; vLLM's own classes, fed with one position a step
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from dated_result import write_result

from labelgen.teachers.vllm_logprobs import ARRAYS_KEY, capture_arrays, labels_of, positions_of
from labelstore.selection import Selection

TOP_KS = (16, 64, 128, 256)
NUM_POSITIONS = 256  # of one response
NUM_ROUNDS = 15
NUM_CALLS = 10  # in a round


def make_steps(top_k: int) -> tuple[list[Any], np.ndarray[Any, np.dtype[np.int32]]]:
    """Return what the engine core hands over for one response, and the response's ids."""
    from vllm.v1.outputs import LogprobsLists

    rng = np.random.default_rng(top_k)
    ids = np.stack([rng.choice(50_000, top_k + 1, replace=False) for _ in range(NUM_POSITIONS)]).astype(np.int32)
    logprobs = -np.sort(rng.exponential(5, (NUM_POSITIONS, top_k + 1)), axis=1).astype(np.float32) - 5
    logprobs[:, 0] = -30.0
    ranks = rng.integers(top_k + 1, 50_000, NUM_POSITIONS).astype(np.int32)
    slices = [slice(i, i + 1) for i in range(NUM_POSITIONS)]
    return [LogprobsLists(ids[part], logprobs[part], ranks[part]) for part in slices], ids[:, 0].copy()


def make_request(top_k: int, path: str) -> Any:
    """Return a request as a path asks for it, before the engine has answered."""
    from vllm import SamplingParams

    parameters = SamplingParams(
        logprobs=top_k, flat_logprobs=path != "dicts", extra_args={ARRAYS_KEY: True} if path == "arrays" else None
    )
    return SimpleNamespace(sampling_params=parameters)


def capture(steps: list[Any], request: Any) -> Any:
    """Collect a response's log-probabilities the way its request asks for."""
    from vllm.v1.engine import output_processor

    processor = output_processor.LogprobsProcessor.from_new_request(None, request)
    for step in steps:
        processor._update_sample_logprobs(step)
    return processor.logprobs


def make_work(steps: list[Any], targets: Any, *, top_k: int, path: str) -> Callable[[], object]:
    """Return what is measured: from what the engine core hands over to labels."""
    request, selection = make_request(top_k, path), Selection(top_k=top_k)
    if path == "dicts":  # nobody makes labels of dicts: this is vLLM's part alone
        return lambda: capture(steps, request)
    return lambda: labels_of(positions_of(capture(steps, request), top_k=top_k), targets, selection)


def measure(works: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Return the seconds of a call in each round, the works one after the other in each, after a round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for round_index in range(NUM_ROUNDS + 1):
        for name, work in works.items():
            start = time.perf_counter()
            for _ in range(NUM_CALLS):
                work()
            if round_index:
                times[name].append((time.perf_counter() - start) / NUM_CALLS)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/capture-cost-<date>.{json,md}")
    arguments = parser.parse_args()
    if not capture_arrays():
        raise SystemExit("this vLLM's internals are not what the array path knows")
    gc.collect()
    gc.freeze()  # or each collection that dicts and lists bring about would walk all that vLLM's import left, too
    rows = []
    for top_k in TOP_KS:
        steps, targets = make_steps(top_k)
        row: dict[str, Any] = {"top_k": top_k}
        works = {path: make_work(steps, targets, top_k=top_k, path=path) for path in ("dicts", "flat", "arrays")}
        for path, seconds in measure(works).items():
            times = [value * 1e9 / (NUM_POSITIONS * top_k) for value in seconds]
            row[f"{path}_ns_per_candidate"] = round(statistics.median(times), 2)
            row[f"{path}_spread"] = round((max(times) - min(times)) / statistics.median(times), 2)
        row["arrays_of_flat"] = round(row["arrays_ns_per_candidate"] / row["flat_ns_per_candidate"], 4)
        rows.append(row)
    table = format_rows(rows)
    print(table)
    if arguments.write:
        write_result(
            "capture-cost",
            title="What a captured candidate costs the driver",
            table=table,
            note=(
                f"From what the engine core hands over to labels (dicts: vLLM's part alone), one core, {NUM_POSITIONS} "
                f"positions,\nmedian of {NUM_ROUNDS} interleaved rounds of {NUM_CALLS} calls."
            ),
            command="python benchmarks/capture_cost.py --write",
            content={"rows": rows},
        )
    print(json.dumps({"rows": rows}))


def format_rows(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| K | dicts, ns a candidate | flat lists | arrays | arrays / flat |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['top_k']} | {row['dicts_ns_per_candidate']:.0f} | {row['flat_ns_per_candidate']:.0f} | "
            f"{row['arrays_ns_per_candidate']:.1f} | {row['arrays_of_flat']:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
