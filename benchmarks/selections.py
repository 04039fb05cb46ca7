"""What each kind of selection costs: bytes a label on disk (codec open), kept mass and speed, with the demo teacher.

PYTHONPATH=examples python benchmarks/selections.py [--write]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from dated_result import write_result

import labelgen
import labelstore
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.vllm_teacher import VLLMTeacher
from labelstore.selection import Selection
from teachers import fetch_teacher

ROOT = Path(__file__).resolve().parent.parent
SELECTIONS = [
    Selection(top_k=16),
    Selection(top_k=64),
    Selection(top_k=64, entropy=True),
    Selection(keep_mass=0.9),
    Selection(keep_mass=0.95),
    Selection(draws=50),
    Selection(top_k=16, draws=20),
]


CHATS = ROOT / "examples/prompts/chats.jsonl"


def measure(
    teacher: VLLMTeacher, selection: Selection, work_dir: Path, *, source: Path = CHATS, max_tokens: int = 32
) -> dict[str, Any]:
    """Label some prompts, the demo's chats, with one selection."""
    teacher.select(selection)
    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(source),),
        output_dir=work_dir / str(selection).replace(", ", "-"),
        teacher=teacher.facts.name,
        selection=selection,
        codec="open",
        max_tokens=max_tokens,
        rescore_at_end=0,
    )
    summary = labelgen.run(spec, teacher=teacher)
    counts = np.concatenate([np.diff(record.candidate_offsets) for record in labelstore.open_dataset(spec.output_dir)])
    return {
        "selection": str(selection),
        "labels": summary.num_new_labels,
        "candidates_mean": round(float(counts.mean()), 1),
        "bytes_per_label": round(summary.num_bytes / summary.counts.num_labels, 1),
        "kept_mass": round(summary.counts.kept_mass_sum / summary.counts.num_labels, 4),
        "labels_per_second": round(summary.labels_per_second, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/selections-<date>.{json,md}")
    arguments = parser.parse_args()
    model = str(fetch_teacher("smollm2"))
    with tempfile.TemporaryDirectory(prefix="labelgen-selections-") as folder:
        work_dir = Path(folder)
        with VLLMTeacher(
            model,
            selection=Selection(top_k=16, draws=20, entropy=True),
            settings=EngineSettings(max_model_len=512),
            log_path=work_dir / "engine.log",
        ) as teacher:
            teacher.start()
            measure(teacher, SELECTIONS[0], work_dir / "warm-up")
            rows = [measure(teacher, selection, work_dir) for selection in SELECTIONS]
    lines = ["| kept | candidates a label | bytes/label | kept mass | labels/s |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| `{row['selection']}` | {row['candidates_mean']} | {row['bytes_per_label']} | {row['kept_mass']} | "
            f"{row['labels_per_second']:.0f} |"
        )
    table = "\n".join(lines)
    print(table)
    if arguments.write:
        write_result(
            "selections",
            title="What each selection costs",
            table=table,
            note="SmolLM2 135M, 72 chats of 32 tokens, codec `open` with everything included, one run each.",
            command="PYTHONPATH=examples python benchmarks/selections.py --write",
            content={"rows": rows},
        )


if __name__ == "__main__":
    main()
