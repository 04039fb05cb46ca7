"""Every kind of selection against a plain reference: what is kept, what it weighs, and that draws are fair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from chi_square import chi_square, is_fair
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from labelgen.teachers.full_softmax import full_softmax_labels
from labelgen.teachers.selecting import check_selection
from labelgen.teachers.selection_check import find_selection_problems
from labelstore.labels import Labels
from labelstore.record import LabelRecord
from labelstore.record_checks import find_problems
from labelstore.selection import Selection

VOCAB_SIZE = 200


def distributions(num_labels: int, *, seed: int = 0, spread: float = 2.0) -> NDArray[np.float32]:
    logits = np.random.default_rng(seed).normal(size=(num_labels, VOCAB_SIZE)) * spread
    logprobs: NDArray[np.float32] = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
    return logprobs


def select(selection: Selection, *, num_labels: int = 30, seed: int = 0, spread: float = 2.0) -> tuple[Labels, Any]:
    full = distributions(num_labels, seed=seed, spread=spread)
    targets = np.random.default_rng(seed).integers(0, VOCAB_SIZE, num_labels).astype(np.int32)
    return full_softmax_labels(full, targets, selection, seed=seed), full


KINDS = [
    Selection(top_k=8),
    Selection(top_k=VOCAB_SIZE),
    Selection(top_k=8, entropy=True),
    Selection(keep_mass=0.9),
    Selection(keep_mass=0.5, min_k=3, max_k=12, entropy=True),
    Selection(draws=50),
    Selection(draws=1),
    Selection(top_k=8, draws=20),
    Selection(top_k=8, draws=20, entropy=True),
]


@pytest.mark.parametrize("selection", KINDS, ids=str)
def test_every_selection_gives_sound_labels_that_pass_its_own_test(selection: Selection) -> None:
    if selection.max_k is not None and selection.max_k > VOCAB_SIZE:
        selection = Selection(keep_mass=selection.keep_mass, max_k=VOCAB_SIZE)
    labels, full = select(selection)
    assert list(find_selection_problems(labels, full, selection)) == []
    targets = np.random.default_rng(0).integers(0, VOCAB_SIZE, 30).astype(np.int32)
    record = LabelRecord(
        prompt_id="p",
        input_ids=np.concatenate([[0], targets]).astype(np.int32),
        spans=np.array([[1, 31]], dtype=np.int32),
        span_kinds=("text",),
        labels=labels,
    )
    assert list(find_problems(record, vocab_size=VOCAB_SIZE)) == []
    assert (labels.entropy is not None) == selection.entropy
    assert (labels.draw_counts is not None) == (selection.draws is not None)


@pytest.mark.parametrize("selection", KINDS, ids=str)
def test_a_selection_made_from_another_distribution_fails_its_own_test(selection: Selection) -> None:
    if selection.max_k is not None and selection.max_k > VOCAB_SIZE:
        selection = Selection(keep_mass=selection.keep_mass, max_k=VOCAB_SIZE)
    labels, _ = select(selection, seed=1)
    assert list(find_selection_problems(labels, distributions(30, seed=2), selection))


@settings(max_examples=50, deadline=None)
@given(
    mass=st.floats(0.01, 1.0),
    min_k=st.integers(1, 6),
    max_k=st.integers(6, VOCAB_SIZE),
    spread=st.floats(0.1, 6.0),
    seed=st.integers(0, 99),
)
def test_sets_by_mass_are_minimal(mass: float, min_k: int, max_k: int, spread: float, seed: int) -> None:
    labels, full = select(Selection(keep_mass=mass, min_k=min_k, max_k=max_k), num_labels=5, seed=seed, spread=spread)
    for n in range(5):
        kept = slice(int(labels.candidate_offsets[n]), int(labels.candidate_offsets[n + 1]))
        count = kept.stop - kept.start
        likeliest = -np.sort(-full[n].astype(np.float64))
        np.testing.assert_array_equal(labels.logprobs.reshape(-1)[kept], likeliest[:count].astype(np.float32))
        assert min_k <= count <= max_k
        assert count == max_k or np.exp(likeliest[:count]).sum() >= mass
        assert count == min_k or np.exp(likeliest[: count - 1]).sum() < mass  # one fewer would not do


def count_draws(labels: Labels, n: int) -> NDArray[np.float64]:
    kept = slice(int(labels.candidate_offsets[n]), int(labels.candidate_offsets[n + 1]))
    assert labels.draw_counts is not None
    counts = np.zeros(VOCAB_SIZE)
    counts[labels.token_ids.reshape(-1)[kept]] = labels.draw_counts[kept]
    return counts


def test_draws_follow_the_full_distribution() -> None:
    labels, full = select(Selection(draws=20_000), num_labels=4)
    for n in range(4):
        assert count_draws(labels, n).sum() == 20_000
        assert is_fair(*chi_square(count_draws(labels, n), np.exp(full[n].astype(np.float64))))


def test_draws_beside_a_head_follow_the_tail() -> None:
    labels, full = select(Selection(top_k=5, draws=20_000), num_labels=4)
    for n in range(4):
        tail = np.exp(full[n].astype(np.float64))
        head_mass = np.sort(tail)[-5:].sum()
        tail[np.argsort(-tail)[:5]] = 0
        counts = count_draws(labels, n)
        assert counts.sum() == 20_000 and counts[tail == 0].sum() == 0
        assert is_fair(*chi_square(counts[tail > 0], tail[tail > 0] / tail.sum()))
        assert labels.tail_mass[n] == pytest.approx(1 - head_mass, abs=1e-6)


def test_a_biased_sampler_is_seen_by_the_same_test() -> None:
    # Top-k renormalized, as if it were draws: the kept tokens get too much.
    full = distributions(1)
    probabilities = np.exp(full[0].astype(np.float64))
    cut = np.where(probabilities >= np.sort(probabilities)[-50], probabilities, 0)
    counts = np.random.default_rng(0).multinomial(20_000, cut / cut.sum()).astype(np.float64)
    assert not is_fair(*chi_square(counts, probabilities))


def test_the_expected_gradient_is_that_of_the_full_distribution() -> None:
    # d/dlogits of the cross-entropy is softmax(student) - q, with q the teacher's estimate: unbiased if its mean is p.
    full = distributions(1)
    probabilities = np.exp(full[0].astype(np.float64))
    student = np.exp(distributions(1, seed=9)[0].astype(np.float64))
    repeated, targets = np.repeat(full, 4000, axis=0), np.zeros(4000, dtype=np.int32)

    def mean_estimate(labels: Labels, num_draws: int, *, has_head: bool) -> NDArray[np.float64]:
        assert labels.draw_counts is not None
        weights = labels.draw_counts / num_draws
        if has_head:
            tail = np.repeat(labels.tail_mass, np.diff(labels.candidate_offsets))
            exact = np.exp(labels.logprobs.reshape(-1).astype(np.float64))
            weights = np.where(labels.draw_counts == 0, exact, tail * weights)
        return np.bincount(labels.token_ids.reshape(-1), weights, minlength=VOCAB_SIZE) / 4000

    wanted = student - probabilities
    drawn = full_softmax_labels(repeated, targets, Selection(draws=12), seed=3)
    mixed = full_softmax_labels(repeated, targets, Selection(top_k=5, draws=12), seed=4)
    kept = full_softmax_labels(full, targets[:1], Selection(top_k=12))
    of_draws = student - mean_estimate(drawn, 12, has_head=False)
    of_mixed = student - mean_estimate(mixed, 12, has_head=True)
    top_k = np.zeros(VOCAB_SIZE)
    top_k[kept.token_ids[0]] = np.exp(kept.logprobs[0]) / kept.kept_mass[0]
    assert np.abs(of_draws - wanted).max() < 0.005
    assert np.abs(of_mixed - wanted).max() < 0.005
    assert np.abs(student - top_k - wanted).max() > 0.02, "plain top-k is biased up on what it keeps"


def test_an_empty_tail_gives_no_draws() -> None:
    full = np.full((1, 4), -200.0, dtype=np.float32)
    full[0, 2] = 0.0
    full[:, [0, 1, 3]] = -np.float32(1000)
    labels = full_softmax_labels(full, np.array([2], np.int32), Selection(top_k=1, draws=5))
    assert labels.token_ids.reshape(-1).tolist() == [2] and labels.draw_counts is not None
    assert labels.draw_counts.tolist() == [0] and labels.tail_mass[0] == 0


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(top_k=201), "--top-k must be between 1 and the teacher's 200 rows, got 201"),
        (Selection(keep_mass=0.9, max_k=500), "--max-k must be between 1 and the teacher's 200 rows, got 500"),
    ],
)
def test_a_selection_wider_than_the_vocabulary_is_refused(selection: Selection, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_selection(selection, vocab_size=VOCAB_SIZE)
