from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from labelstore.labels import Labels, tail_mass_of, top_k_labels


def arrays(**changes: Any) -> dict[str, Any]:
    """Two labels with two candidates each."""
    values: dict[str, Any] = {
        "token_ids": np.array([5, 9, 3, 4], dtype=np.int32),
        "logprobs": np.log(np.array([0.5, 0.25, 0.6, 0.3])).astype(np.float32),
        "candidate_offsets": np.array([0, 2, 4]),
        "target_logprobs": np.log(np.array([0.25, 0.01])).astype(np.float32),
        "target_ranks": np.array([2, 7], dtype=np.int32),
        "tail_mass": np.array([0.25, 0.1], dtype=np.float32),
    }
    return {**values, **changes}


def test_a_constant_number_of_candidates_gives_rows() -> None:
    labels = Labels(**arrays())
    assert labels.token_ids.tolist() == [[5, 9], [3, 4]]
    assert labels.logprobs.shape == (2, 2)
    np.testing.assert_allclose(labels.kept_mass, [0.75, 0.9], rtol=1e-6)


def test_a_varying_number_of_candidates_stays_flat() -> None:
    labels = Labels(**arrays(candidate_offsets=np.array([0, 1, 4]), logprobs=np.array([-1, -1, -2, -3], np.float32)))
    assert labels.token_ids.tolist() == [5, 9, 3, 4]
    assert labels.candidate_positions().tolist() == [0, 1, 1, 1]


def test_labels_without_candidates_and_no_labels_are_valid() -> None:
    empty = np.zeros(0, dtype=np.float32)
    ids = np.zeros(0, dtype=np.int32)
    one = Labels(
        token_ids=ids,
        logprobs=empty,
        candidate_offsets=np.array([0, 0]),
        target_logprobs=np.array([-1], dtype=np.float32),
        target_ranks=np.array([1], dtype=np.int32),
        tail_mass=np.array([1], dtype=np.float32),
    )
    assert one.kept_mass.tolist() == [0.0]
    none = top_k_labels(
        token_ids=ids.reshape(0, 4), logprobs=empty.reshape(0, 4), target_logprobs=empty, target_ranks=ids
    )
    assert len(none) == 0 and none.candidate_offsets.tolist() == [0]


def test_tail_mass_of_ragged_labels_equals_the_plain_sum() -> None:
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 5, 20))])
    logprobs = np.log(rng.random(int(offsets[-1])) / 10).astype(np.float32)
    plain = [1 - sum(np.exp(float(x)) for x in logprobs[a:b]) for a, b in itertools.pairwise(offsets)]
    np.testing.assert_allclose(tail_mass_of(logprobs, offsets), plain, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"logprobs": np.array([-1, 0.5, -1, -2], np.float32)},
            r"logprobs must be finite and <= 0, got 0.5 in label 0",
        ),
        ({"logprobs": np.array([-1, -2, np.nan, -2], np.float32)}, r"got nan in label 1"),
        ({"logprobs": np.array([-1, -2, -1, -np.inf], np.float32)}, r"got -inf in label 1"),
        ({"logprobs": np.array([-2, -1, -1, -2], np.float32)}, r"in falling order, got -1.0 in label 0"),
        ({"logprobs": np.array([-1, -2, -1], np.float32)}, r"logprobs must hold 4 candidates"),
        ({"token_ids": np.array([5, -1, 3, 4], np.int32)}, r"token_ids must be >= 0, got -1 in label 0"),
        ({"token_ids": np.array([5, 1, 3, 4])}, r"token_ids must be int32, got int64"),
        ({"candidate_offsets": np.array([0, 3, 2])}, r"candidate_offsets must be \[N \+ 1\]"),
        ({"candidate_offsets": np.array([1, 2, 4])}, r"candidate_offsets must be \[N \+ 1\]"),
        ({"target_logprobs": np.array([0.1, -1], np.float32)}, r"target_logprobs must be finite"),
        ({"target_logprobs": np.array([-1], np.float32)}, r"target_logprobs must be \[2\]"),
        ({"target_ranks": np.array([0, 1], np.int32)}, r"target_ranks must be at least 1, got 0 in label 0"),
        ({"tail_mass": np.array([0.2, 1.5], np.float32)}, r"tail_mass must be in \[0, 1\], got 1.5 in label 1"),
        ({"tail_mass": np.array([0.2, np.nan], np.float32)}, r"tail_mass must be in"),
        ({"draw_counts": np.array([1, 1, -1, 1], np.int32)}, r"draw_counts must be at least 0, got -1 in label 1"),
        ({"entropy": np.array([1, -1], np.float32)}, r"entropy must be finite and >= 0"),
    ],
)
def test_the_first_bad_value_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Labels(**arrays(**change))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token_ids", -1),
        ("logprobs", np.nan),
        ("logprobs", np.inf),
        ("logprobs", -np.inf),
        ("logprobs", 0.5),
        ("target_logprobs", np.nan),
        ("target_logprobs", -np.inf),
        ("target_logprobs", 0.5),
        ("target_ranks", 0),
        ("tail_mass", np.nan),
        ("tail_mass", -0.1),
        ("tail_mass", 1.1),
    ],
)
def test_a_bad_value_is_found_wherever_it_stands(name: str, value: float) -> None:
    # Sound labels are let through by a few passes over all values, which could miss a place.
    size = arrays()[name].size
    for place in range(size):
        damaged = arrays()[name].copy()
        damaged[place] = value
        with pytest.raises(ValueError, match=f"^{name} must be"):
            Labels(**arrays(**{name: damaged}))


def test_a_rising_logprob_is_found_within_a_label_and_not_between_two() -> None:
    rows = np.array([[-1, -2, -3], [-0.5, -0.5, -9], [-1, -1, -1]], dtype=np.float32)
    ids = np.arange(9, dtype=np.int32).reshape(3, 3)
    targets, ranks = np.array([-1, -1, -1], np.float32), np.ones(3, np.int32)
    assert len(top_k_labels(token_ids=ids, logprobs=rows, target_logprobs=targets, target_ranks=ranks)) == 3
    for row, column in itertools.product(range(3), range(1, 3)):
        damaged = rows.copy()
        damaged[row, column] = damaged[row, column - 1] + 0.1
        with pytest.raises(ValueError, match=f"logprobs must be in falling order, got .* in label {row}"):
            top_k_labels(token_ids=ids, logprobs=damaged, target_logprobs=targets, target_ranks=ranks)
