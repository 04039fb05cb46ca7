"""What labelling costs beside bare vLLM: the same requests, one engine, rounds interleaved; everything on disk.

    make bench-throughput                                            # the demo teacher, on this machine
    python benchmarks/throughput.py --teacher MODEL --prompts FILE --texts FILE...      # any model, any GPU

Requests are seeded, so that every variant writes the same tokens. Variants of generating: no log-probabilities; what
the engine's own top-k costs (arrays, thrown away); ours, to the disk; flat lists and dicts, as people do it by hand.
Variants of scoring: bare prompt log-probabilities thrown away; ours. Reasoning and constrained responses: no
log-probabilities; ours, which for constrained ones has the teacher read each response again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dated_result import write_result

import labelgen
import labelstore
from labelgen.job.requests import PromptRequests
from labelgen.prompts.prompt import Prompt
from labelgen.prompts.sources import find_sources, read_prompts
from labelgen.teachers.constraint import Constraint
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.sampling import SamplingChoice
from labelgen.teachers.teacher import GenerateRequest, Request
from labelgen.teachers.vllm_logprobs import ARRAYS_KEY
from labelgen.teachers.vllm_teacher import VLLMTeacher
from teachers import fetch_teacher

ROOT = Path(__file__).resolve().parent.parent
GENERATE_VARIANTS = ("no logprobs", "engine's top-k, thrown away", "labelgen, on disk", "flat lists", "dicts")
SCORE_VARIANTS = ("prompt logprobs, thrown away", "labelgen, on disk")
VARIANTS = {
    "generate": GENERATE_VARIANTS,
    "score": SCORE_VARIANTS,
    "reasoning": ("no logprobs", "labelgen, on disk"),
    "constrained": ("no logprobs", "labelgen, on disk"),
}
THINK_TOKENS = ("<file_sep>", "<repo_name>")  # stand in for those of the demo teacher, which does not think
CONSTRAINT = Constraint(regex="[a-zA-Z ,.]{400}")


class Workload:
    """One engine and the requests that every variant makes."""

    def __init__(self, teacher: VLLMTeacher, specs: dict[str, labelgen.RunSpec]) -> None:
        self.teacher = teacher
        self.specs = specs
        self.requests = {task: list(self._make(spec)) for task, spec in specs.items()}

    def _make(self, spec: labelgen.RunSpec) -> Iterator[Request]:
        sampling, _ = spec.sampling.resolve(self.teacher.facts.sampling_defaults)
        maker = PromptRequests(
            spec=spec,
            facts=self.teacher.facts,
            tokenizer=self.teacher.tokenizer,
            sampling=sampling,
            think_tokens=None,
        )
        for source in find_sources(spec.sources, task=spec.task, fields=spec.fields):
            for row, prompt in enumerate(read_prompts(source)):
                if isinstance(prompt, Prompt):
                    yield from maker.make(prompt, f"{source.name}/{row}")

    def run_bare(self, task: str, **changes: Any) -> int:
        """Run all requests on the engine alone and return the tokens; `changes` are of the sampling parameters."""
        teacher, engine = self.teacher, self.teacher._engine
        limit, waiting = 2 * teacher._config.scheduler_config.max_num_seqs, iter(self.requests[task])
        num_in_flight = num_tokens = 0
        request = next(waiting, None)
        while request is not None or num_in_flight:
            while request is not None and num_in_flight < limit:
                parameters = teacher.parameters_of(request)
                if isinstance(request, GenerateRequest):
                    ids = request.prompt_ids
                else:
                    ids = request.input_ids
                    num_tokens += sum(span.stop - span.start for span in request.spans)
                for name, value in changes.items():
                    setattr(parameters, name, value)
                engine.add_request(request.request_id, {"prompt_token_ids": ids.tolist()}, parameters)
                num_in_flight += 1
                request = next(waiting, None)
            for output in engine.step():
                if output.finished:
                    num_in_flight -= 1
                    num_tokens += len(output.outputs[0].token_ids) if task != "score" else 0
        return num_tokens

    def run_ours(self, task: str) -> int:
        """Run the whole job into a fresh folder and return the labels."""
        spec = self.specs[task]
        shutil.rmtree(spec.output_dir, ignore_errors=True)
        return labelgen.run(spec, teacher=self.teacher).num_new_labels

    def variant(self, task: str, name: str) -> Callable[[], int]:
        if name.startswith("labelgen"):
            return lambda: self.run_ours(task)
        changes: dict[str, dict[str, Any]] = {
            "no logprobs": {"logprobs": None, "extra_args": None},
            "engine's top-k, thrown away": {},
            "flat lists": {"extra_args": {ARRAYS_KEY: False}},
            "dicts": {"extra_args": None, "flat_logprobs": False},
            "prompt logprobs, thrown away": {"extra_args": None, "flat_logprobs": False},
        }
        return lambda: self.run_bare(task, **changes[name])


def make_specs(
    teacher: str,
    selection: labelstore.Selection,
    *,
    prompts: str,
    texts: Sequence[str],
    max_tokens: int,
    work_dir: Path,
    think_tokens: tuple[str, str] | None = None,
) -> dict[str, labelgen.RunSpec]:
    """Return the jobs, by kind. `think_tokens` are for a teacher that does not think: each response begins with one."""
    common: dict[str, Any] = {"teacher": teacher, "selection": selection, "rescore_at_end": 0}

    def generate(kind: str, **changes: Any) -> labelgen.RunSpec:
        return labelgen.RunSpec(
            task="generate",
            sources=(prompts,),
            output_dir=work_dir / kind,
            max_tokens=max_tokens,
            **{**common, **changes},
        )

    return {
        "generate": generate("generate"),
        "score": labelgen.RunSpec(task="score", sources=tuple(texts), output_dir=work_dir / "score", **common),
        "reasoning": generate(
            "reasoning", think_tokens=think_tokens, prefill=None if think_tokens is None else think_tokens[0]
        ),
        "constrained": generate("constrained", sampling=SamplingChoice(constraint=CONSTRAINT)),
    }


def measure(workload: Workload, num_rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return tokens/s of each variant in each round, the variants interleaved."""
    rates: dict[str, dict[str, list[float]]] = {kind: {} for kind in workload.specs}
    for task in rates:
        workload.variant(task, "labelgen, on disk")()  # warm up
    for round_index in range(num_rounds):
        for task in rates:
            names = VARIANTS[task]
            # Another order each round, so that what one leaves behind does not always fall on the same next one.
            for name in names[round_index % len(names) :] + names[: round_index % len(names)]:
                run = workload.variant(task, name)
                start = time.perf_counter()
                num_tokens = run()
                rate = num_tokens / (time.perf_counter() - start)
                rates[task].setdefault(name, []).append(rate)
                print(f"round {round_index + 1}, {task}, {name}: {num_tokens:,} tokens, {rate:,.0f}/s", flush=True)
    return rates


def summarize(rates: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    rows = []
    for task in rates:
        base = statistics.median(rates[task][VARIANTS[task][0]])
        for name, values in rates[task].items():
            middle = statistics.median(values)
            rows.append(
                {
                    "task": task,
                    "variant": name,
                    "tokens_per_second": round(middle, 1),
                    "spread": round((max(values) - min(values)) / middle, 3),
                    "of_bare": round(middle / base, 3),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", help="model folder or hub name; the demo teacher if not given")
    parser.add_argument("--prompts", default=str(ROOT / "examples/prompts/chats.jsonl"))
    parser.add_argument("--texts", nargs="+", default=[str(ROOT / "storage/FORMAT.md"), str(ROOT / "docs/cli.md")])
    parser.add_argument("--top-k", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/throughput-<date>.{json,md}")
    arguments = parser.parse_args()
    model = arguments.teacher or str(fetch_teacher("smollm2"))
    selection = labelstore.Selection(top_k=arguments.top_k)
    with tempfile.TemporaryDirectory(prefix="labelgen-throughput-") as folder:
        specs = make_specs(
            arguments.teacher or "smollm2",
            selection,
            prompts=arguments.prompts,
            texts=arguments.texts,
            max_tokens=arguments.max_tokens,
            work_dir=Path(folder),
            think_tokens=THINK_TOKENS if arguments.teacher is None else None,
        )
        with VLLMTeacher(
            model,
            selection=selection,
            settings=EngineSettings(max_model_len=1024),
            log_path=Path(folder) / "engine.log",
            for_scoring=True,
        ) as teacher:
            teacher.start()
            rates = measure(Workload(teacher, specs), arguments.rounds)
            recorded = dict(teacher.facts.recorded)
    rows = summarize(rates)
    print(table := format_rows(rows))
    if arguments.write:
        write_result(
            "throughput",
            title="Labelling beside bare vLLM",
            table=table,
            note=(
                f"Tokens a second, median of {arguments.rounds} interleaved rounds; K = {arguments.top_k}; vLLM "
                f"{recorded['vllm_version']}, runner {recorded['vllm_runner']}, {recorded['device']}.\n"
                f"Not measured: any other device, runner or teacher."
            ),
            command="make bench-throughput",
            content={
                "top_k": arguments.top_k,
                "teacher": arguments.teacher or "smollm2",
                "recorded": recorded,
                "rows": rows,
                "rates": rates,
            },
        )
    print(json.dumps({"rows": rows}))


def format_rows(rows: list[dict[str, Any]]) -> str:
    lines = ["| task | variant | tokens/s | spread | of bare vLLM |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['task']} | {row['variant']} | {row['tokens_per_second']:,.0f} | {row['spread']:.0%} | "
            f"{row['of_bare']:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
