"""The command line: trains what is missing, writes a line for each student that is done, and at the end the result."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch
from transformers import AutoTokenizer

from labelgen.storage_benchmark.measure import Workload
from student_gain.full_teacher import FullTeacher
from student_gain.held_out import HeldOut, read_seconds
from student_gain.label_sets import LabelSets, bytes_per_label, read_captures
from student_gain.methods import METHODS, Method
from student_gain.report import write_report
from student_gain.student import Recipe, new_student, train_student

_CACHE = Path(".cache")
_DEFAULT = Recipe()
_IMAGES_DIR = Path(__file__).resolve().parents[2] / "docs/images"


@dataclasses.dataclass(kw_only=True)
class Benchmark:
    """Students of each method and seed, one after the other; those that a work folder has are not trained again."""

    captured: Workload
    teacher_dir: Path
    work_dir: Path
    recipe: Recipe
    held_out_records: int
    say: Callable[[str], None]

    def run(self, methods: Sequence[Method], *, num_seeds: int) -> dict[str, Any]:
        """Return what all students and their labels came to."""
        tokenizer: Any = AutoTokenizer.from_pretrained(str(self.teacher_dir))
        teacher = FullTeacher(self.teacher_dir, states_dir=self.work_dir / "states")
        sets = LabelSets(self.work_dir / "labels" / self.captured.kind.replace(" ", ""), self.captured)
        max_length = self.recipe.max_length
        held_out_records = sets.held_out(num_records=self.held_out_records)
        self.say("the teacher reads")
        for records in (held_out_records, self.captured.train):
            teacher.read(records, max_length=max_length)
        held_out = HeldOut(held_out_records, teacher, tokenizer=tokenizer, max_length=max_length)
        runs = list(self._runs(methods, sets, teacher, held_out, tokenizer, num_seeds=num_seeds))
        labels = {method.name: self._look_at(method, sets, tokenizer) for method in methods}
        vocab_size = held_out_records.header.vocab_size
        return {
            "teacher": self.captured.teacher,
            "kind": self.captured.kind,
            "train_labels": sum(len(record.labels) for record in self.captured.train),
            "held_out_labels": held_out.num_labels,
            "vocab_size": vocab_size,
            "recipe": asdict(self.recipe),
            "num_parameters": new_student(self.recipe, vocab_size=vocab_size, seed=0).num_parameters(),
            "labels": labels,
            "teacher_itself": asdict(held_out.judge(None)),
            "runs": runs,
        }

    def _look_at(self, method: Method, sets: LabelSets, tokenizer: Any) -> dict[str, float]:
        """Return the size of a method's labels, and how long reading them takes."""
        dataset = sets.to_train(method)
        size = bytes_per_label(dataset)
        seconds = read_seconds(dataset, tokenizer=tokenizer, max_length=self.recipe.max_length)
        candidates = sum(record.token_ids.size for record in dataset) / dataset.num_labels
        return {
            "hard_bytes_per_label": size["hard"],
            "soft_bytes_per_label": size["soft"],
            "candidates_per_label": candidates,
            "read_microseconds_per_label": seconds * 1e6,
        }

    def _runs(
        self,
        methods: Sequence[Method],
        sets: LabelSets,
        teacher: FullTeacher,
        held_out: HeldOut,
        tokenizer: Any,
        *,
        num_seeds: int,
    ) -> Iterator[dict[str, Any]]:
        settings = {**asdict(self.recipe), "kind": self.captured.kind, "held_out_records": self.held_out_records}
        path = self.work_dir / "runs.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        done = {(run["method"], run["seed"]): run for run in map(json.loads, lines) if run.pop("settings") == settings}
        for seed in range(num_seeds):
            for method in methods:
                if (method.name, seed) not in done:
                    start = time.perf_counter()
                    model = train_student(
                        self.recipe, sets.to_train(method), method.loss, teacher, tokenizer=tokenizer, seed=seed
                    )
                    quality = held_out.judge(model)
                    seconds = time.perf_counter() - start
                    run = {"method": method.name, "seed": seed, **asdict(quality), "seconds": seconds}
                    done[method.name, seed] = run
                    with path.open("a") as file:
                        file.write(json.dumps({**run, "settings": settings}) + "\n")
                    self.say(f"seed {seed}, {method.name}: KL {quality.kl_nats:.4f} nats in {seconds:.0f} s")
                yield done[method.name, seed]


@click.command()
@click.option(
    "--captured",
    type=click.Path(path_type=Path),
    default=_CACHE / "storage-benchmark/SmolLM2-135M-Instruct-float32",
    show_default=True,
    help="The teacher's labels, as the storage benchmark captured them.",
)
@click.option(
    "--teacher",
    "teacher_dir",
    type=click.Path(path_type=Path),
    default=_CACHE / "teachers/SmolLM2-135M-Instruct",
    show_default=True,
    help="The teacher itself, for its full distribution.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    default=["english", "markdown", "code"],
    show_default=True,
    help="Text; repeatable.",
)
@click.option("--steps", "num_steps", type=int, default=_DEFAULT.num_steps, show_default=True)
@click.option("--hidden-size", type=int, default=_DEFAULT.hidden_size, show_default=True)
@click.option("--layers", "num_layers", type=int, default=_DEFAULT.num_layers, show_default=True)
@click.option("--held-out-records", type=int, default=16, show_default=True)
@click.option("--seeds", "num_seeds", type=int, default=5, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True, help="Processors; more help little.")
@click.option(
    "--work",
    "work_dir",
    type=click.Path(path_type=Path),
    default=_CACHE / "student-gain",
    show_default=True,
    help="What is done already; the same command goes on with the rest.",
)
@click.option("--write", is_flag=True, help="Write the result to benchmarks/results/ and docs/images/.")
def main(
    captured: Path,
    teacher_dir: Path,
    kinds: tuple[str, ...],
    num_steps: int,
    hidden_size: int,
    num_layers: int,
    held_out_records: int,
    num_seeds: int,
    threads: int,
    work_dir: Path,
    write: bool,
) -> None:
    """Train the same student on every kind of labels, and compare each with the teacher on held-out text."""
    torch.set_num_threads(threads)
    benchmark = Benchmark(
        captured=read_captures(captured, kinds),
        teacher_dir=teacher_dir,
        work_dir=work_dir,
        recipe=Recipe(num_steps=num_steps, hidden_size=hidden_size, num_layers=num_layers),
        held_out_records=held_out_records,
        say=lambda message: click.echo(message, err=True),
    )
    result = benchmark.run(METHODS, num_seeds=num_seeds)
    options = [f"--kind {kind}" for kind in kinds]
    options += [f"--steps {num_steps}", f"--seeds {num_seeds}", f"--held-out-records {held_out_records}"]
    options += [f"--hidden-size {hidden_size}", f"--layers {num_layers}"]
    command = f"make bench-student STUDENT='{' '.join(options)}'"
    write_report(result, images_dir=_IMAGES_DIR if write else work_dir, is_result=write, command=command)


if __name__ == "__main__":
    main()
