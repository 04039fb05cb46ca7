"""Whether feeding the longest responses of a block first pays: the real driver, a simulated engine.

    PYTHONPATH=examples python benchmarks/feeding_order.py [--write]

Lengths are taken as known, which they are not before a response is written: what is shown is the most that any guess of
them could gain.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from dated_result import write_result
from engine_busy import run_job
from simulated_engine import SimulatedTeacher

__all__ = ["measure"]


def measure(*, num_prompts: int, num_slots: int, block_size: int, long_first: bool) -> int:
    """Return the steps that a job takes."""
    with tempfile.TemporaryDirectory(prefix="labelgen-order-") as folder:
        teacher = SimulatedTeacher(
            num_slots=num_slots, step_seconds=1.0, top_k=4, log_path=Path(folder) / "engine.log", is_driver_free=True
        )
        teacher.long_first = long_first
        run_job(teacher, num_prompts=num_prompts, work_dir=Path(folder), block_size=block_size)
        teacher.close()
        return len(teacher.core.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny inputs")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/feeding-order-<date>.{json,md}")
    arguments = parser.parse_args()
    sizes = [(2048, 64, 2048), (2048, 256, 2048), (8192, 256, 2048)]
    rows: list[dict[str, Any]] = []
    for num_prompts, num_slots, block_size in [(40, 8, 20)] if arguments.smoke else sizes:
        steps = {
            long_first: measure(
                num_prompts=num_prompts, num_slots=num_slots, block_size=block_size, long_first=long_first
            )
            for long_first in (False, True)
        }
        rows.append(
            {
                "prompts": num_prompts,
                "blocks": -(-num_prompts // block_size),
                "slots": num_slots,
                "steps_as_they_come": steps[False],
                "steps_long_first": steps[True],
                "steps_saved": round(1 - steps[True] / steps[False], 4),
            }
        )
        print(rows[-1], flush=True)
    lines = ["| prompts | blocks | slots | steps, as they come | long first | saved |", "|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['prompts']:,} | {row['blocks']} | {row['slots']} | {row['steps_as_they_come']:,} | "
            f"{row['steps_long_first']:,} | {row['steps_saved']:.1%} |"
        )
    table = "\n".join(lines)
    print(table)
    if arguments.write:
        write_result(
            "feeding-order",
            title="Long responses first, inside a block",
            table=table,
            note=(
                "Lengths of 4 to 200 tokens, known beforehand: the most that any guess could gain. A step takes "
                "the same time however many of the slots are filled."
            ),
            command="PYTHONPATH=examples python benchmarks/feeding_order.py --write",
            content={"rows": rows},
        )
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
