"""Every kind of selection with vLLM and both real teachers, against the full softmax of the reference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from check_teacher import TEXTS
from chi_square import chi_square, is_fair
from numpy.typing import NDArray
from score_requests import score_request

import labelgen
import labelstore
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.full_softmax import full_softmax_labels
from labelgen.teachers.selection_check import find_selection_problems
from labelgen.teachers.teacher import Answer, EngineError
from labelgen.teachers.transformers_teacher import TransformersTeacher
from labelgen.teachers.vllm_teacher import VLLMTeacher
from labelstore.labels import Labels
from labelstore.selection import Selection
from teachers import fetch_teacher

pytestmark = [pytest.mark.more_engines, pytest.mark.timeout(1200)]

TOLERANCE_NATS = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    teacher: VLLMTeacher
    input_ids: NDArray[np.int32]  # [T]
    full: NDArray[np.float32]  # [T - 1, V], the reference's log-probabilities for the tokens from position 1 on

    def score(self, selection: Selection, *, times: int = 1) -> list[Labels]:
        self.teacher.select(selection)
        requests = [score_request(f"r{i}", self.input_ids, first=1) for i in range(times)]
        answers = list(self.teacher.label(requests))
        assert len(answers) == times
        return [answer.labels for answer in answers if isinstance(answer, Answer)]


@pytest.fixture(scope="module", params=["smollm2", "gemma"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    model_dir, log_path = str(fetch_teacher(request.param)), tmp_path_factory.mktemp("log") / "engine.log"
    reference = TransformersTeacher(model_dir, selection=Selection(top_k=4))
    input_ids = reference.tokenizer.encode_text(TEXTS[1], with_special_tokens=True)
    full = reference.full_logprobs(input_ids)[:-1]
    with VLLMTeacher(
        model_dir,
        selection=Selection(top_k=8, draws=20, entropy=True),
        settings=EngineSettings(max_model_len=256),
        log_path=log_path,
        for_scoring=True,
    ) as teacher:
        teacher.start()
        yield Engine(teacher=teacher, input_ids=input_ids, full=full)


@pytest.mark.parametrize(
    "selection",
    [
        Selection(top_k=16),
        Selection(top_k=16, entropy=True),
        Selection(keep_mass=0.9),
        Selection(keep_mass=0.6, min_k=2, max_k=40, entropy=True),
        Selection(draws=50),
        Selection(top_k=8, draws=30, entropy=True),
    ],
    ids=str,
)
def test_each_selection_agrees_with_the_reference(engine: Engine, selection: Selection) -> None:
    (labels,) = engine.score(selection)
    assert list(find_selection_problems(labels, engine.full, selection)) == []
    label_of = labels.candidate_positions()
    difference = np.abs(labels.logprobs.reshape(-1) - engine.full[label_of, labels.token_ids.reshape(-1)])
    assert difference.max() < TOLERANCE_NATS
    if selection.entropy:
        wide = engine.full.astype(np.float64)
        assert labels.entropy is not None
        np.testing.assert_allclose(labels.entropy, -(np.exp(wide) * wide).sum(axis=1), atol=1e-3)
    if selection.keep_mass is not None:
        reference = full_softmax_labels(engine.full, engine.input_ids[1:], selection)
        # Sets differ where a mass is as good as reached: by one token at most, and seldom.
        counts, wanted = np.diff(labels.candidate_offsets), np.diff(reference.candidate_offsets)
        assert np.abs(counts - wanted).max() <= 1 and (counts != wanted).mean() < 0.1
    assert np.abs(labels.tail_mass - (1 - _head_mass(labels))).max() < 1e-5


def _head_mass(labels: Labels) -> NDArray[np.float64]:
    weights = np.exp(labels.logprobs.reshape(-1).astype(np.float64))
    if labels.draw_counts is not None and (labels.draw_counts == 0).any():
        weights = np.where(labels.draw_counts == 0, weights, 0)
    return np.bincount(labels.candidate_positions(), weights, minlength=len(labels)).astype(np.float64)


@pytest.mark.parametrize("selection", [Selection(draws=250), Selection(top_k=4, draws=250)], ids=str)
def test_draws_are_fair_at_every_real_position(engine: Engine, selection: Selection) -> None:
    rows = engine.full.shape[1]
    total = np.zeros(engine.full.shape)
    for labels in engine.score(selection, times=16):
        assert labels.draw_counts is not None
        np.add.at(total, (labels.candidate_positions(), labels.token_ids.reshape(-1)), labels.draw_counts)
    is_seen_biased = 0
    for n in range(len(total)):
        probabilities = np.exp(engine.full[n].astype(np.float64))
        probabilities[np.argsort(-probabilities)[: selection.top_k or 0]] = 0
        probabilities /= probabilities.sum()
        assert total[n][probabilities == 0].sum() == 0
        kept = probabilities > 0
        assert is_fair(*chi_square(total[n][kept], probabilities[kept])), f"label {n}"
        # The same test, and a sampler that renormalizes the 50 most likely tokens.
        cut = np.where(probabilities >= np.sort(probabilities)[-50], probabilities, 0)
        counts = np.random.default_rng(n).multinomial(4000, cut / cut.sum()).astype(np.float64)
        is_seen_biased += not is_fair(*chi_square(counts[kept], probabilities[kept]))
    assert is_seen_biased > len(total) // 3
    assert rows in (49_152, 262_144)


def test_two_answers_to_one_request_draw_differently(engine: Engine) -> None:
    one, other = engine.score(Selection(draws=50), times=2)
    assert one.token_ids.tolist() != other.token_ids.tolist()


def test_a_selection_that_the_engine_gives_wrong_is_found_at_start(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The worker fills two columns of draws where it was told of three.
    monkeypatch.setattr("labelgen.teachers.vllm_teacher.head_width", lambda selection: (selection.top_k or 0) - 1)
    monkeypatch.setattr("labelgen.teachers.vllm_teacher.captured_width", lambda selection: 8 + 20 - 1)
    monkeypatch.setattr("labelgen.teachers.vllm_logprobs.captured_width", lambda selection: 8 + 20 - 1)
    with pytest.raises(EngineError, match="this engine does not give top_k=8, draws=20 right"):
        engine.teacher.select(Selection(top_k=8, draws=20))


def test_a_job_with_draws_is_written_verified_and_read(engine: Engine, tmp_path: Path) -> None:
    selection = Selection(top_k=8, draws=20, entropy=True)
    engine.teacher.select(selection)
    source = tmp_path / "p.jsonl"
    source.write_text("".join(json.dumps({"id": f"p{i}", "prompt": text}) + "\n" for i, text in enumerate(TEXTS)))
    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(source),),
        output_dir=tmp_path / "out",
        teacher=engine.teacher.facts.name,
        selection=selection,
        codec="exact",
        max_tokens=12,
    )
    labelgen.run(spec, teacher=engine.teacher)
    assert labelstore.verify_dataset(tmp_path / "out").findings == []
    dataset = labelstore.open_dataset(tmp_path / "out")
    assert dataset.header.selection == selection
    record = dataset[0]
    assert record.draw_counts is not None and record.entropy is not None
    assert (record.draw_counts == 0).sum() == 8 * len(record.labels)
