"""Each way in which labels go wrong is told from the others, on damaged copies; right labels are right."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from damage import VOCAB_SIZE, normalized, relabelled, sequence, shifted, with_logprobs
from numpy.typing import NDArray
from score_requests import score_request

from labelgen.rescore.agreement import Agreement, measure_agreement
from labelgen.rescore.diagnosis import diagnose_labels
from labelgen.rescore.limits import Limits
from labelgen.rescore.reading import Reading
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.teacher import Answer
from labelstore.record import LabelRecord
from labelstore.rescored import Rescored
from labelstore.selection import Selection

TOP_K = Selection(top_k=16)
LIMITS = Limits.of({"dtype": "float32"}, None)
Damage = Callable[[LabelRecord, FakeTeacher, Selection], LabelRecord]


def read_again(
    record: LabelRecord, teacher: FakeTeacher, *, tolerance: float = 0.0, read_tokens: int | None = None
) -> Reading:
    """Let the teacher read a record, as a rescoring does."""
    request = score_request("again", record.input_ids[:read_tokens], first=1)
    (answer,) = teacher.label([request])
    assert isinstance(answer, Answer)
    allowed = np.full(len(record.labels), tolerance) if tolerance else None
    return Reading(record=record, tolerance=allowed, again=answer.labels)


def agreement_of(
    damage: Damage, *, selection: Selection = TOP_K, tolerance: float = 0.0, read_tokens: int | None = None
) -> Agreement:
    teacher = FakeTeacher(selection=selection, vocab_size=VOCAB_SIZE, max_model_len=100)
    records = [damage(sequence(number), teacher, selection) for number in range(6)]
    return measure_agreement(
        [read_again(record, teacher, tolerance=tolerance, read_tokens=read_tokens) for record in records], LIMITS
    )


def right(record: LabelRecord, teacher: FakeTeacher, selection: Selection) -> LabelRecord:
    return relabelled(record, teacher, selection=selection, seed=5)


def of_logits(change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Damage:
    """Labels of changed logits, normalized anew."""

    def damage(record: LabelRecord, teacher: FakeTeacher, selection: Selection) -> LabelRecord:
        logits = teacher.full_logprobs(record.input_ids)[record.positions - 1]
        return with_logprobs(record, normalized(change(logits)), selection=selection)

    return damage


def shifted_by(shift: int) -> Damage:
    return lambda record, teacher, selection: shifted(relabelled(record, teacher, selection=selection), shift)


def in_bfloat16(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return (logits.view(np.uint32) + 0x8000 & 0xFFFF0000).astype(np.uint32).view(np.float32)


def of_another_model(record: LabelRecord, teacher: FakeTeacher, selection: Selection) -> LabelRecord:
    other = FakeTeacher(selection=selection, vocab_size=VOCAB_SIZE, max_model_len=100, seed=1)
    return relabelled(record, other, selection=selection)


def without_the_tail(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Nucleus sampling's distribution: what is unlikely is masked."""
    lowest = np.sort(logits, axis=1)[:, -24][:, None]
    return np.where(logits >= lowest, logits, np.float32(-80.0))


@pytest.mark.parametrize(
    "selection",
    [TOP_K, Selection(top_k=1), Selection(keep_mass=0.9), Selection(draws=20), Selection(top_k=4, draws=20)],
    ids=str,
)
def test_right_labels_agree_whatever_is_kept(selection: Selection) -> None:
    agreement = agreement_of(right, selection=selection)
    assert diagnose_labels(agreement) is None
    assert agreement.num_labels == 6 * 40 and agreement.largest_nats == agreement.kl_nats == 0.0
    assert agreement.num_argmax_equal == agreement.num_labels


DAMAGES: dict[str, tuple[Damage, str]] = {
    "shifted later": (shifted_by(1), r"of 6 of 6 records are shifted by \+1: each stands one after"),
    "shifted earlier": (shifted_by(-1), "of 6 of 6 records are shifted by -1: each stands one before"),
    "cold": (of_logits(lambda logits: logits / 0.6), "are those of another temperature, 0.60"),
    "hot": (of_logits(lambda logits: logits / 1.3), "are those of another temperature, 1.30"),
    "nucleus": (of_logits(without_the_tail), "are normalized otherwise: taken after top-p"),
    "bfloat16": (of_logits(in_bfloat16), "^another precision"),
    "other model": (of_another_model, "^another model, or the labels of other records"),
}


# Of a lossy codec's rounding, a bfloat16 head's is no part that could be told.
CASES = [(name, step) for name in DAMAGES for step in (0.0, 0.0064) if (name, step) != ("bfloat16", 0.0064)]


@pytest.mark.parametrize(("name", "step"), CASES)
def test_each_damage_is_told_from_the_others(name: str, step: float) -> None:
    damage, expected = DAMAGES[name]

    def stored(record: LabelRecord, teacher: FakeTeacher, selection: Selection) -> LabelRecord:
        return rounded(damage(record, teacher, selection), step)

    agreement = agreement_of(stored, tolerance=step / 2)
    assert not agreement.agrees
    assert re.search(expected, diagnose_labels(agreement) or "")


def rounded(record: LabelRecord, step: float) -> LabelRecord:
    """Round the roots of probabilities to a grid, as a lossy codec does."""
    if not step:
        return record
    labels = record.labels

    def on_grid(logprobs: NDArray[np.float32]) -> NDArray[np.float32]:
        roots = np.maximum(np.rint(np.exp(logprobs.astype(np.float64) / 2) / step), 0.5) * step
        return np.asarray(2 * np.log(np.minimum(roots, 1.0)), dtype=np.float32)

    changed = replace(labels, logprobs=on_grid(labels.logprobs), target_logprobs=on_grid(labels.target_logprobs))
    return replace(record, labels=changed)


def test_a_lossy_codecs_rounding_is_no_difference() -> None:
    step = 0.0064

    def stored(record: LabelRecord, teacher: FakeTeacher, selection: Selection) -> LabelRecord:
        return rounded(right(record, teacher, selection), step)

    agreement = agreement_of(stored, tolerance=step / 2)
    assert diagnose_labels(agreement) is None and agreement.largest_nats < 1e-5
    assert agreement.kl_nats > 1e-6  # the codec's own loss shows here
    # Without the bound the rounding would look like another precision: the test above could not fail otherwise.
    assert re.search("^another precision", diagnose_labels(agreement_of(stored)) or "")


def test_a_shift_that_only_one_record_has_is_found() -> None:
    def damage(record: LabelRecord, teacher: FakeTeacher, selection: Selection) -> LabelRecord:
        whole = relabelled(record, teacher, selection=selection)
        return shifted(whole, 1) if record.prompt_id == "p3" else whole

    agreement = agreement_of(damage)
    assert [reading.record.prompt_id for reading in agreement.disagreeing] == ["p3"]
    assert "of 1 of 6 records are shifted by +1" in (diagnose_labels(agreement) or "")


def test_a_long_record_is_compared_as_far_as_it_is_read() -> None:
    agreement = agreement_of(right, read_tokens=30)
    assert agreement.num_labels == 6 * 10 and agreement.agrees
    assert not agreement_of(shifted_by(1), read_tokens=40).agrees


def test_ties_are_told_apart_from_other_answers() -> None:
    teacher = FakeTeacher(selection=TOP_K, vocab_size=VOCAB_SIZE, max_model_len=100)
    record = relabelled(sequence(0), teacher, selection=TOP_K)
    reading = read_again(record, teacher)

    def with_top_two(gap: float) -> Agreement:
        """The stored labels have the second candidate first, `gap` nats above the teacher's first."""
        ids, logprobs = record.token_ids.copy(), record.logprobs.copy()
        ids[:, [0, 1]] = ids[:, [1, 0]]
        again_logprobs = logprobs.copy()
        again_logprobs[:, 1] = again_logprobs[:, 0] - np.float32(gap)
        logprobs[:, 1] = again_logprobs[:, 1]
        again = replace(reading.again, logprobs=_with_rows(reading.again.logprobs, record, again_logprobs))
        stored = replace(record, labels=replace(record.labels, token_ids=ids, logprobs=again_logprobs))
        return measure_agreement([Reading(record=stored, tolerance=None, again=again)], LIMITS)

    tied = with_top_two(LIMITS.p999_nats / 2)
    assert (tied.num_argmax_equal, tied.num_argmax_tied, tied.num_argmax_different) == (0, 40, 0)
    different = with_top_two(0.01)
    assert (different.num_argmax_equal, different.num_argmax_tied, different.num_argmax_different) == (0, 0, 40)
    assert not different.agrees


def _with_rows(logprobs: NDArray[np.float32], record: LabelRecord, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    changed = logprobs.copy()
    changed[record.positions - 1] = np.sort(rows, axis=1)[:, ::-1]
    return np.asarray(changed)


def test_the_noise_that_a_job_measured_sets_the_limits() -> None:
    def noisy(size: float) -> Damage:
        rng = np.random.default_rng(0)
        return of_logits(lambda logits: logits + rng.normal(0, size, logits.shape).astype(np.float32))

    agreement = agreement_of(noisy(0.003))
    assert re.search("^another precision", diagnose_labels(agreement) or "")
    floor = Rescored(
        **{name: getattr(agreement, name) for name in Rescored.__slots__ if hasattr(agreement, name)},
        problems=(),
        recorded={},
        created_at="2026-01-01T00:00:00+00:00",
    )
    limits = Limits.of({"dtype": "float32"}, floor)
    teacher = FakeTeacher(selection=TOP_K, vocab_size=VOCAB_SIZE, max_model_len=100)
    noise = noisy(0.003)
    readings = [read_again(noise(sequence(number), teacher, TOP_K), teacher) for number in range(20, 26)]
    assert measure_agreement(readings, limits).agrees
    more = noisy(0.05)
    readings = [read_again(more(sequence(number), teacher, TOP_K), teacher) for number in range(20, 26)]
    assert not measure_agreement(readings, limits).agrees


def test_a_drawn_candidate_with_another_logprob_is_found() -> None:
    def damage(record: LabelRecord, teacher: FakeTeacher, selection: Selection) -> LabelRecord:
        whole = relabelled(record, teacher, selection=selection, seed=5)
        labels = whole.labels
        return replace(whole, labels=replace(labels, logprobs=labels.logprobs - np.float32(0.5)))

    agreement = agreement_of(damage, selection=Selection(draws=20))
    assert not agreement.agrees and agreement.median_nats == pytest.approx(0.5, abs=1e-3)


def test_the_kl_of_a_comparison_is_that_of_the_distributions_it_names() -> None:
    teacher = FakeTeacher(selection=TOP_K, vocab_size=VOCAB_SIZE, max_model_len=100)
    record = of_logits(lambda logits: logits / np.float32(1.3))(sequence(0), teacher, TOP_K)
    reading = read_again(record, teacher)
    kls = reading.compare().kls
    for label, row in enumerate((record.positions - 1).tolist()):
        stored = dict(zip(record.token_ids[label].tolist(), np.exp(record.logprobs[label].astype(float)), strict=True))
        again = dict(
            zip(reading.again.token_ids[row].tolist(), np.exp(reading.again.logprobs[row].astype(float)), strict=True)
        )
        common = sorted(set(stored) & set(again))
        p = np.array([again[i] for i in common] + [1 - sum(again[i] for i in common)])
        q = np.array([stored[i] for i in common] + [1 - sum(stored[i] for i in common)])
        assert kls[label] == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-4)
