"""The losses against plain sums over whole distributions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from labelgen.storage_benchmark.fidelity import Spread, codec_kl, draw_kl, top1_agrees, truncation_kl
from labelstore.labels import Labels, tail_mass_of


def make_labels(rows: list[list[float]], *, ids: list[list[int]] | None = None, **fields: Any) -> Labels:
    """Labels with these probabilities, most likely first."""
    counts = [len(row) for row in rows]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    logprobs = np.log(np.concatenate([np.asarray(row, dtype=np.float64) for row in rows])).astype(np.float32)
    flat_ids = np.concatenate(ids if ids is not None else [np.arange(count) for count in counts])
    defaults: dict[str, Any] = {
        "token_ids": flat_ids.astype(np.int32),
        "logprobs": logprobs,
        "candidate_offsets": offsets,
        "target_logprobs": np.zeros(len(rows), dtype=np.float32),
        "target_ranks": np.ones(len(rows), dtype=np.int32),
        "tail_mass": tail_mass_of(logprobs, offsets),
    }
    return Labels(**{**defaults, **fields})


def test_what_is_stored_exactly_loses_nothing() -> None:
    labels = make_labels([[0.6, 0.3], [0.5, 0.25, 0.125], [1.0]])
    np.testing.assert_array_equal(codec_kl(labels, labels), np.zeros(3))


def test_codec_kl_is_the_plain_sum_with_the_tail_as_one_more_outcome() -> None:
    ours, theirs = [[0.6, 0.3], [0.5, 0.25, 0.125]], [[0.5, 0.4], [0.55, 0.3, 0.1]]
    expected = []
    for p, q in zip(ours, theirs, strict=True):
        whole_p, whole_q = [*p, 1 - sum(p)], [*q, 1 - sum(q)]
        expected.append(sum(a * np.log(a / b) for a, b in zip(whole_p, whole_q, strict=True)))
    np.testing.assert_allclose(codec_kl(make_labels(ours), make_labels(theirs)), expected, atol=1e-6)


def test_codec_kl_renormalizes_what_does_not_sum_to_one() -> None:
    ours = make_labels([[0.6, 0.3]])
    theirs = dataclasses.replace(ours, logprobs=ours.logprobs - np.float32(0.1))  # the tail stays 0.1
    q = np.array([0.6 * np.exp(-0.1), 0.3 * np.exp(-0.1), 0.1])
    p = np.array([0.6, 0.3, 0.1])
    np.testing.assert_allclose(codec_kl(ours, theirs), [(p * np.log(p / (q / q.sum()))).sum()], atol=1e-6)


def test_codec_kl_does_not_care_for_order() -> None:
    ours = make_labels([[0.4, 0.4, 0.1]], ids=[[7, 5, 9]])
    theirs = make_labels([[0.4, 0.4, 0.1]], ids=[[5, 7, 9]])
    np.testing.assert_allclose(codec_kl(ours, theirs), [0.0], atol=1e-7)


def test_codec_kl_stays_finite_where_a_tail_is_rounded_to_nothing() -> None:
    ours = make_labels([[0.6, 0.3999]])
    theirs = dataclasses.replace(ours, tail_mass=np.zeros(1, dtype=np.float32))
    assert 0 < codec_kl(ours, theirs)[0] < 1e-3


def test_other_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="other ids"):
        codec_kl(make_labels([[0.6, 0.3]]), make_labels([[0.6, 0.3]], ids=[[0, 2]]))


def test_truncation_kl_is_what_the_renormalized_candidates_are_off() -> None:
    full = np.array([0.5, 0.3, 0.15, 0.05])
    renormalized = full[:2] / full[:2].sum()
    expected = (renormalized * np.log(renormalized / full[:2])).sum()
    np.testing.assert_allclose(truncation_kl(make_labels([[0.5, 0.3]])), [expected], atol=1e-6)


def test_draw_kl_is_that_of_the_draws_shares() -> None:
    labels = make_labels([[0.5, 0.25]], draw_counts=np.array([3, 1], dtype=np.int32))
    np.testing.assert_allclose(draw_kl(labels), [0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.25)], atol=1e-6)
    with pytest.raises(ValueError, match="hold no draws"):
        draw_kl(make_labels([[0.5]]))


def test_top1_agrees_with_any_of_equals() -> None:
    ours = make_labels([[0.4, 0.4, 0.1], [0.5, 0.3, 0.1], [0.5, 0.3, 0.1]], ids=[[7, 5, 9]] * 3)
    theirs = make_labels([[0.4, 0.4, 0.1]] * 3, ids=[[5, 7, 9], [5, 7, 9], [7, 5, 9]])
    assert top1_agrees(ours, theirs).tolist() == [True, False, True]


def test_spread_names_mean_and_worst() -> None:
    spread = Spread.of(np.array([0.0, 1.0, 5.0]))
    assert (spread.mean, spread.worst) == (2.0, 5.0)
