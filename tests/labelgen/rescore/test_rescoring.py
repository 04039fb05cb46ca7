"""A job ends by reading records again; what comes of it stands in the manifest; damaged datasets are found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import shifted

import labelgen
import labelstore
from labelgen.job.progress import RunSummary
from labelgen.prompts.snapshot import PromptSnapshot
from labelgen.rescore.limits import Limits
from labelgen.rescore.rescoring import rescore_dataset
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.teacher import Answer, EngineError, Refusal, Request, ScoreRequest
from labelstore.codecs import codec_named
from labelstore.dataset_writer import DatasetWriter
from labelstore.rescored import Rescored
from labelstore.selection import Selection

SELECTION = Selection(top_k=8)


def fake(seed: int = 0, selection: Selection = SELECTION) -> FakeTeacher:
    return FakeTeacher(selection=selection, vocab_size=300, max_model_len=64, seed=seed)


def run(root: Path, teacher: FakeTeacher, *, num_prompts: int = 12, **changes: Any) -> RunSummary:
    source = root.parent / f"{root.name}.jsonl"
    source.write_text(
        "".join(json.dumps({"id": f"p{i}", "prompt": f"question {i}"}) + "\n" for i in range(num_prompts))
    )
    values: dict[str, Any] = {"codec": "exact", "block_size": 5, "max_tokens": 9, "rescore_at_end": 8, **changes}
    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(source),),
        output_dir=root,
        teacher="fake",
        selection=teacher.selection,
        **values,
    )
    return labelgen.run(spec, teacher=teacher)


@pytest.mark.parametrize(
    "selection",
    [SELECTION, Selection(keep_mass=0.5, max_k=40), Selection(draws=10), Selection(top_k=3, draws=10, entropy=True)],
    ids=str,
)
@pytest.mark.parametrize("codec", ["exact", "standard"])
def test_a_job_proves_its_labels_and_measures_its_noise(tmp_path: Path, selection: Selection, codec: str) -> None:
    summary = run(tmp_path / "out", fake(selection=selection), codec=codec)
    rescored = summary.rescored
    assert rescored is not None and rescored.agrees and rescored.problems == ()
    assert rescored.num_records == 8 and rescored.largest_nats < 1e-3
    assert rescored.num_argmax_different == 0
    assert rescored.kl_nats == pytest.approx(0, abs=1e-9 if codec == "exact" else 5e-3)
    # In the manifest, which is all that a pushed copy has.
    (tmp_path / "copy").mkdir()
    for name in ("manifest.json", "data"):
        (tmp_path / "out" / name).rename(tmp_path / "copy" / name)
    assert labelstore.open_dataset(tmp_path / "copy").rescored == rescored


def test_nothing_is_read_again_where_nothing_was_labelled_or_none_was_asked_for(tmp_path: Path) -> None:
    assert run(tmp_path / "out", fake()).rescored is not None
    assert run(tmp_path / "out", fake()).rescored is None
    assert labelstore.open_dataset(tmp_path / "out").rescored is not None  # what the first run found stays
    assert run(tmp_path / "none", fake(), rescore_at_end=0).rescored is None
    assert labelstore.open_dataset(tmp_path / "none").rescored is None


class ReadingOtherwise(FakeTeacher):
    """Reads text otherwise than it generates: what its labels were is not what it says of the ids."""

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        other = fake(seed=1)
        for request in requests:
            yield from other.label([request]) if isinstance(request, ScoreRequest) else super().label([request])


def test_a_job_whose_labels_are_not_the_teachers_says_so(tmp_path: Path) -> None:
    teacher = ReadingOtherwise(selection=SELECTION, vocab_size=300, max_model_len=64)
    rescored = run(tmp_path / "out", teacher).rescored
    assert rescored is not None and not rescored.agrees
    assert rescored.problems[0].startswith("another model")
    kept = labelstore.open_dataset(tmp_path / "out").rescored
    assert kept is not None and not kept.agrees


class DyingWhenItReads(FakeTeacher):
    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        for request in requests:
            if isinstance(request, ScoreRequest):
                raise EngineError("out of memory")
            yield from super().label([request])


def test_an_engine_that_dies_of_reading_again_costs_no_label(tmp_path: Path) -> None:
    summary = run(tmp_path / "out", DyingWhenItReads(selection=SELECTION, vocab_size=300, max_model_len=64))
    assert summary.rescored is None and summary.counts.num_records == 12
    assert labelstore.verify_dataset(tmp_path / "out").is_sound and (tmp_path / "out/manifest.json").exists()


class ShortReading(FakeTeacher):
    """Has memory to score few tokens."""

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        for request in requests:
            assert not isinstance(request, ScoreRequest) or len(request.input_ids) <= self.facts.max_scored_tokens
            yield from super().label([request])


def test_no_text_is_read_again_that_the_engine_has_no_memory_for(tmp_path: Path) -> None:
    teacher = ShortReading(selection=SELECTION, vocab_size=300, max_model_len=64)
    teacher._facts = replace(teacher.facts, max_scored_tokens=13)  # a prompt has 10 or 11 tokens
    rescored = run(tmp_path / "out", teacher, num_prompts=20).rescored
    assert rescored is not None and rescored.agrees
    assert rescored.num_records == 8 and 16 <= rescored.num_labels <= 24
    teacher._facts = replace(teacher.facts, max_scored_tokens=5)  # no label is within reach
    rescored = run(tmp_path / "none", teacher).rescored
    assert rescored is not None and rescored.num_records == 0 and rescored.agrees


def rescore(root: Path, teacher: FakeTeacher, *, with_snapshot: bool = True) -> Rescored:
    dataset = labelstore.open_dataset(root)
    return rescore_dataset(
        dataset,
        teacher,
        num_records=10,
        limits=Limits.of({"dtype": "float32"}, dataset.rescored),
        rng=np.random.default_rng(0),
        snapshot=PromptSnapshot(root) if with_snapshot else None,
    )


def test_a_dataset_is_read_again_later(tmp_path: Path) -> None:
    run(tmp_path / "out", fake())
    assert rescore(tmp_path / "out", fake()).agrees
    problems = rescore(tmp_path / "out", fake(seed=1)).problems
    assert len(problems) == 1 and problems[0].startswith("another model")


def test_a_copy_with_shifted_labels_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "out", fake())
    dataset = labelstore.open_dataset(tmp_path / "out")
    monkeypatch.setattr("labelstore.shard_writer.find_problems", lambda *_, **__: [])  # it would refuse them
    writer = DatasetWriter(tmp_path / "damaged", dataset.header, codec=codec_named("exact"))
    writer.publish_block(
        "000000", [shifted(record, 1) for record in dataset], num_prompts=12, num_rejected=0, recorded={}
    )
    writer.finish()
    (problem,) = rescore(tmp_path / "damaged", fake(), with_snapshot=False).problems
    assert "of 10 of 10 records are shifted by +1" in problem


def test_ids_that_the_teacher_cannot_read_are_a_problem(tmp_path: Path) -> None:
    run(tmp_path / "out", fake())
    short = FakeTeacher(selection=SELECTION, vocab_size=300, max_model_len=64)
    short._facts = replace(short.facts, max_model_len=6)
    problems = rescore(tmp_path / "out", short).problems
    assert problems[0].startswith("the teacher refuses 10 of 10 records: it has")
