"""Scoring a long text with a large vocabulary under a memory limit: with the bound of a step, and dying without it.

    PYTHONPATH=examples python benchmarks/memory_bound.py [--tokens 8192] [--limit-gib 8] [--write]

Each run is a process of its own whose memory, and that of all it starts, is limited by RLIMIT_DATA (`ulimit -d`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dated_result import write_result

import labelstore
from labelgen.prompts.tokenizer import HFTokenizer
from teachers import fetch_teacher

__all__ = ["Outcome", "run_limited"]

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ("storage/FORMAT.md", "docs/cli.md", "docs/jobs.md", "docs/what-a-label-means.md", "labelgen/job/runner.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a limited run went."""

    is_bounded: bool
    exit_code: int
    num_labels: int  # that can be read afterwards
    seconds: float
    peak_gib: float  # largest resident size of one of its processes
    output: str  # what it printed

    @property
    def bound(self) -> str:
        """The line about the bound that the job printed at its start."""
        return next((line for line in self.output.splitlines() if line.startswith("note: a step scores")), "")


def run_limited(work_dir: Path, *, num_tokens: int, limit_gib: float, is_bounded: bool) -> Outcome:
    """Score one text of `num_tokens` tokens with Gemma 3 270M in a process with limited memory."""
    model_dir = fetch_teacher("gemma")
    source, out = work_dir / "text.jsonl", work_dir / ("bounded" if is_bounded else "unbounded")
    source.write_text(json.dumps({"id": "long", "text": _text_of(model_dir, num_tokens - 1)}) + "\n")  # BOS comes first
    command = [sys.executable, __file__, "--child", *([] if is_bounded else ["--without-bound"]), "score", str(source)]
    command += ["-o", str(out), "--teacher", str(model_dir), "--max-model-len", str(num_tokens + 1)]
    limit = int(limit_gib * 2**30)
    start, peak = time.monotonic(), 0.0
    with (work_dir / "output.log").open("w+") as log:
        child = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
        )
        while child.poll() is None:
            time.sleep(0.2)
            peak = max(peak, *(_resident_gib(pid) for pid in _family(child.pid)))
        seconds = time.monotonic() - start
        log.seek(0)
        output = log.read()
    num_labels = sum(len(record.labels) for record in labelstore.open_dataset(out)) if child.returncode == 0 else 0
    return Outcome(
        is_bounded=is_bounded,
        exit_code=child.returncode,
        num_labels=num_labels,
        seconds=round(seconds, 1),
        peak_gib=round(peak, 2),
        output=output,
    )


def _text_of(model_dir: Path, num_tokens: int) -> str:
    tokenizer = HFTokenizer(model_dir)
    text = "\n".join((ROOT / name).read_text() for name in TEXTS) * (1 + num_tokens // 8192)
    low, high = 0, len(text)
    while low < high:  # the longest beginning with so many tokens
        middle = (low + high + 1) // 2
        if len(tokenizer.encode_text(text[:middle], with_special_tokens=False)) <= num_tokens:
            low = middle
        else:
            high = middle - 1
    return text[:low]


def _family(parent: int) -> list[int]:
    """Return a process and all below it."""
    found = [parent]
    for pid in found:
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                found.extend(int(child) for child in path.read_text().split())
            except OSError:  # it has ended
                continue
    return found


def _resident_gib(pid: int) -> float:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found.group(1)) / 2**20 if found else 0.0


def run_child(arguments: list[str]) -> None:
    """Be the limited process: the command line as it is, or with a bound that is none."""
    from labelgen.cli import main as labelgen_main
    from labelgen.teachers import vllm_config

    if arguments[0] == "--without-bound":
        arguments = arguments[1:]
        whole_text = int(arguments[arguments.index("--max-model-len") + 1])  # in one step, as vLLM does by itself here
        vllm_config.prompt_logprobs_budget = lambda **_: whole_text
    labelgen_main(arguments)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        run_child(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192, help="of the text")
    parser.add_argument("--limit-gib", type=float, default=8.0)
    parser.add_argument("--only", choices=["with", "without"], help="one of the two runs")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/memory-bound-<date>.{json,md}")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for is_bounded in {"with": (True,), "without": (False,)}.get(arguments.only, (True, False)):
        with tempfile.TemporaryDirectory(prefix="labelgen-memory-") as folder:
            outcome = run_limited(
                Path(folder), num_tokens=arguments.tokens, limit_gib=arguments.limit_gib, is_bounded=is_bounded
            )
        print(outcome.output[-3000:])
        reason = next((line for line in outcome.output.splitlines() if "the engine died" in line), "")
        rows.append(
            {
                "bound": outcome.bound.removeprefix("note: ") if is_bounded else "switched off",
                "exit_code": outcome.exit_code,
                "labels": outcome.num_labels,
                "seconds": outcome.seconds,
                "peak_gib": outcome.peak_gib,
                "reason": reason.split("; it is started again")[0].removeprefix("note: "),
            }
        )
    lines = ["| bound | exit code | labels | seconds, start included | largest process, GiB |", "|---|---|---|---|---|"]
    for row in rows:
        numbers = f"{row['exit_code']} | {row['labels']:,} | {row['seconds']:.0f} | {row['peak_gib']}"
        found = re.search(r"at most ([\d,]+) tokens", row["bound"])
        lines.append(f"| {f'{found.group(1)} tokens a step' if found else row['bound']} | {numbers} |")
    table = "\n".join(lines)
    found = re.search(r"tried to allocate \d+ bytes", rows[-1]["reason"])
    asked = found.group() if found else rows[-1]["reason"]
    print(table)
    if arguments.write:
        write_result(
            "memory-bound",
            title="Scoring a long text under a memory limit",
            table=table,
            note=(
                f"Gemma 3 270M, 262,144 rows, float32; one text of {arguments.tokens:,} tokens, K = 64; RLIMIT_DATA of "
                f"{arguments.limit_gib:g} GiB for each process.\nWithout the bound the engine died: it {asked}."
            ),
            command="PYTHONPATH=examples python benchmarks/memory_bound.py --write",
            content={"tokens": arguments.tokens, "limit_gib": arguments.limit_gib, "rows": rows},
        )
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
