"""Measure how far vLLM's labels are from the full float32 softmax of Transformers, over the same ids.

make parity     # both demo teachers in float32; writes benchmarks/results/parity-<date>.{json,md}
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dated_result import write_result
from parity import BFLOAT16_LIMITS, FLOAT32_LIMITS, ParityFigures, compare_with_reference, format_figures
from parity_workload import label_workload

import labelstore
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.transformers_teacher import TransformersTeacher
from labelgen.teachers.vllm_teacher import VLLMTeacher
from labelstore.selection import Selection
from teachers import fetch_teacher

TOP_K = 64
MAX_MODEL_LEN = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One teacher in one precision."""

    name: str
    figures: ParityFigures
    recorded: dict[str, Any]
    failures: list[str]


def prove(
    name: str, *, dtype: str | None = None, head_dtype: str | None = None, device: str = "cpu", num_prompts: int = 24
) -> list[Comparison]:
    """Label the workload with a demo teacher, and compare generated and scored labels with the reference."""
    model_dir = str(fetch_teacher(name))
    settings = EngineSettings(dtype=dtype, head_dtype=head_dtype, max_model_len=MAX_MODEL_LEN)
    with tempfile.TemporaryDirectory(prefix="labelgen-parity-") as folder:
        work_dir = Path(folder)
        with VLLMTeacher(
            model_dir,
            selection=Selection(top_k=TOP_K),
            settings=settings,
            log_path=work_dir / "engine.log",
            for_scoring=True,
        ) as teacher:
            datasets = label_workload(teacher, name, work_dir=work_dir, num_prompts=num_prompts)
            recorded, fields = dict(teacher.facts.recorded), teacher.facts.fingerprint_fields
        is_float32 = fields["dtype"] == "float32"
        limits = FLOAT32_LIMITS if is_float32 else BFLOAT16_LIMITS
        reference = TransformersTeacher(
            model_dir, selection=Selection(top_k=TOP_K), device=device, max_model_len=MAX_MODEL_LEN
        )
        comparisons = []
        for kind, dataset_dir in zip(("generated", "scored"), datasets, strict=True):
            records = labelstore.open_dataset(dataset_dir)
            figures = compare_with_reference(records, reference.full_logprobs, limits=limits)
            comparisons.append(
                Comparison(
                    name=f"{name}, {fields['dtype']}, head {fields['head_dtype']}, {kind}",
                    figures=figures,
                    recorded=recorded,
                    failures=figures.failures(limits),
                )
            )
    return comparisons


def write_results(comparisons: Sequence[Comparison], *, name: str, command: str) -> None:
    """Write a dated result of several comparisons."""
    recorded = comparisons[0].recorded
    write_result(
        name,
        title="Labels against the full softmax",
        table=format_figures([(one.name, one.figures) for one in comparisons]),
        note=(
            f"vLLM {recorded['vllm_version']}, runner {recorded['vllm_runner']}, {recorded['device']}; top-k {TOP_K}; "
            f"reference: Transformers in float32 over the records' own `input_ids`.\n"
            f"Differences of log-probabilities are in nats: the largest among a label's candidates."
        ),
        command=command,
        content={
            "comparisons": [
                {"name": one.name, **one.figures.to_json(), "recorded": one.recorded, "failures": one.failures}
                for one in comparisons
            ]
        },
    )


def report(comparisons: Sequence[Comparison]) -> bool:
    """Print the table and what fails; return whether all is right."""
    print(format_figures([(one.name, one.figures) for one in comparisons]))
    for one in comparisons:
        for failure in one.failures:
            print(f"✗ {one.name}: {failure}")
    is_right = not any(one.failures for one in comparisons)
    print("✓ all labels are right" if is_right else "✗ labels differ from the reference")
    return is_right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--teacher", action="append", choices=["smollm2", "gemma"], help="repeatable; both if not given"
    )
    parser.add_argument("--dtype")
    parser.add_argument("--head-dtype")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/")
    arguments = parser.parse_args()
    comparisons = [
        comparison
        for name in arguments.teacher or ["smollm2", "gemma"]
        for comparison in prove(name, dtype=arguments.dtype, head_dtype=arguments.head_dtype)
    ]
    if arguments.write:
        write_results(comparisons, name="parity", command="make parity")
    sys.exit(not report(comparisons))


if __name__ == "__main__":
    main()
