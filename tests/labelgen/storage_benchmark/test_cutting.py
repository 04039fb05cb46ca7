"""What is cut from a capture is what the teacher would have given for the smaller selection."""

from __future__ import annotations

import numpy as np
import pytest
from chi_square import chi_square, is_fair
from numpy.typing import NDArray

from labelgen.storage_benchmark.cutting import cut_labels
from labelgen.teachers.full_softmax import full_softmax_labels
from labelstore.labels import Labels
from labelstore.selection import Selection

VOCAB_SIZE = 200
CAPTURED = Selection(top_k=32, draws=20)


def full_distributions(num_labels: int, *, spread: float = 2.0) -> NDArray[np.float32]:
    logits = np.random.default_rng(0).normal(size=(num_labels, VOCAB_SIZE)) * spread
    logprobs: NDArray[np.float32] = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
    return logprobs


def capture(full: NDArray[np.float32], selection: Selection = CAPTURED) -> Labels:
    targets = np.random.default_rng(1).integers(0, VOCAB_SIZE, len(full)).astype(np.int32)
    return full_softmax_labels(full, targets, selection, seed=2)


@pytest.mark.parametrize(
    "selection",
    [Selection(top_k=1), Selection(top_k=32), Selection(keep_mass=0.9, max_k=32), Selection(keep_mass=0.5, max_k=7)],
    ids=str,
)
def test_heads_are_those_of_the_whole_distribution(selection: Selection) -> None:
    full = full_distributions(50)
    cut, wanted = cut_labels(capture(full), selection), capture(full, selection)
    for name in Labels.__slots__:
        np.testing.assert_array_equal(getattr(cut, name), getattr(wanted, name), err_msg=name)


@pytest.mark.parametrize("num_draws", [5, 20])
def test_draws_are_distributed_as_the_teachers(num_draws: int) -> None:
    # The same distribution 4,000 times: the head of 32 has 86% of its mass, so both ways of drawing are tried.
    full = np.repeat(full_distributions(1), 4_000, axis=0)
    cut = cut_labels(capture(full), Selection(draws=num_draws))
    assert cut.draw_counts is not None
    counts = np.bincount(cut.token_ids.reshape(-1), weights=cut.draw_counts, minlength=VOCAB_SIZE)
    assert counts.sum() == 4_000 * num_draws
    assert is_fair(*chi_square(counts.astype(np.float64), np.exp(full[0].astype(np.float64))))
    # Pairs too: draws that depend on each other would show in the number of distinct ids.
    distinct = np.diff(cut.candidate_offsets).mean()
    probabilities = np.exp(full[0].astype(np.float64))
    assert distinct == pytest.approx((1 - (1 - probabilities) ** num_draws).sum(), rel=0.01)


def test_draws_keep_their_logprobs_and_leave_the_mass_not_drawn() -> None:
    full = full_distributions(50)
    cut = cut_labels(capture(full), Selection(draws=20))
    label_of, ids = cut.candidate_positions(), cut.token_ids.reshape(-1)
    np.testing.assert_array_equal(cut.logprobs.reshape(-1), full[label_of, ids])
    kept = np.bincount(label_of, weights=np.exp(full[label_of, ids].astype(np.float64)))
    np.testing.assert_allclose(cut.tail_mass, 1 - kept, atol=1e-6)


def test_draws_of_a_sure_teacher_whose_tail_is_empty() -> None:
    full = np.full((10, VOCAB_SIZE), -200.0, dtype=np.float32)
    full[:, 3] = 0.0
    cut = cut_labels(capture(full), Selection(draws=20))
    assert cut.token_ids.tolist() == [[3]] * 10
    assert cut.draw_counts is not None and cut.draw_counts.tolist() == [20] * 10


def test_the_same_seed_cuts_the_same_draws() -> None:
    captured = capture(full_distributions(20))
    first, again, other = (cut_labels(captured, Selection(draws=9), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.token_ids, again.token_ids)
    assert not np.array_equal(first.token_ids, other.token_ids)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(top_k=33), "needs 33 candidates a label, the capture has 32"),
        (Selection(draws=21), "--draws 21 is more than the 20 that were captured"),
        (Selection(top_k=4, draws=4), "cut to top_k, keep_mass or draws alone"),
        (Selection(top_k=4, entropy=True), "cut to top_k, keep_mass or draws alone"),
    ],
    ids=str,
)
def test_what_a_capture_cannot_give_is_refused(selection: Selection, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cut_labels(capture(full_distributions(5)), selection)


def test_labels_without_a_head_are_refused() -> None:
    with pytest.raises(ValueError, match="must have a head of one width"):
        cut_labels(capture(full_distributions(5), Selection(draws=20)), Selection(top_k=4))
