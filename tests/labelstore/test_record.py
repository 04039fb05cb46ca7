from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from labelstore.labels import Labels
from labelstore.record_checks import find_problems
from make_records import VOCAB_SIZE, make_labels, make_record


def test_positions_and_targets_follow_the_spans() -> None:
    input_ids = np.arange(10, dtype=np.int32)
    spans = np.array([[2, 4], [7, 8]], dtype=np.int32)
    record = make_record(input_ids=input_ids, spans=spans, labels=make_labels(input_ids[[2, 3, 7]]))
    assert record.positions.tolist() == [2, 3, 7]
    assert record.target_ids.tolist() == [2, 3, 7]


def test_record_ids_tell_responses_and_windows_apart() -> None:
    assert make_record(3, response_index=2).record_id == "prompt-3#2"
    assert make_record(3, document_offset=511).record_id == "prompt-3@511"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spans": np.array([[0, 12]], np.int32)}, r"spans must lie in \[1, 16\], as token 0 has no context"),
        ({"spans": np.array([[5, 17]], np.int32)}, r"spans must lie in"),
        ({"spans": np.array([[4, 15]], np.int32)}, r"spans cover 11 tokens, but there are 12 labels"),
        ({"spans": np.array([[4, 10], [9, 15]], np.int32)}, r"rising and not overlap"),
        ({"spans": np.array([[4, 4], [4, 16]], np.int32)}, r"non-empty"),
        ({"spans": np.array([4, 16], np.int32)}, r"spans must be int32 \[S, 2\]"),
        ({"input_ids": np.zeros(16)}, r"input_ids must be int32"),
        ({"input_ids": np.full(16, -1, np.int32)}, r"input_ids must be >= 0, got -1"),
        ({"span_kinds": ("reasoning", "answer")}, r"1 spans need as many span_kinds, got 2"),
        ({"span_kinds": ("thought",)}, r"a span's kind must be one of text, .*, got 'thought'"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"prompt 'prompt-0': .*" + message):
        make_record(**change)


def test_a_sound_record_has_no_problems() -> None:
    assert list(find_problems(make_record(num_labels=200), vocab_size=VOCAB_SIZE)) == []


def changed_labels(**changes: Any) -> Labels:
    labels = make_record().labels
    names = ("token_ids", "logprobs", "candidate_offsets", "target_logprobs", "target_ranks", "tail_mass")
    return Labels(**{**{name: getattr(labels, name).copy() for name in names}, **changes})


def problems_of(**changes: Any) -> list[str]:
    return list(find_problems(make_record(labels=changed_labels(**changes)), vocab_size=VOCAB_SIZE))


def test_a_repeated_candidate_is_found() -> None:
    token_ids = make_record().token_ids.copy()
    token_ids[3, 5] = token_ids[3, 2]
    assert any(
        "position 7: a candidate's id stands there twice" in problem for problem in problems_of(token_ids=token_ids)
    )


def test_an_id_above_the_vocabulary_is_found() -> None:
    token_ids = make_record().token_ids.copy()
    token_ids[0, 7] = VOCAB_SIZE
    assert any("position 4" in problem and "500 rows" in problem for problem in problems_of(token_ids=token_ids))


def test_a_tail_mass_that_does_not_fit_is_found() -> None:
    tail_mass = make_record().tail_mass.copy()
    tail_mass[2] -= 0.01
    assert any("position 6: kept mass" in problem for problem in problems_of(tail_mass=tail_mass))


def test_labels_shifted_by_one_are_found() -> None:
    # The target's own logprob, taken one position too late, is not that of the candidate with its id.
    record = make_record(num_labels=200)
    shifted = make_record(
        num_labels=200, input_ids=np.roll(record.input_ids, 1), labels=record.labels, spans=record.spans
    )
    assert list(find_problems(shifted, vocab_size=VOCAB_SIZE))


@pytest.mark.parametrize("rank", [1, 400])
def test_a_rank_that_the_candidates_exclude_is_found(rank: int) -> None:
    record = make_record()
    input_ids = record.input_ids.copy()
    input_ids[4] = record.token_ids[0, 3]  # the first target is its fourth candidate
    target_logprobs, ranks = record.target_logprobs.copy(), record.target_ranks.copy()
    target_logprobs[0], ranks[0] = record.logprobs[0, 3], rank
    labels = changed_labels(target_logprobs=target_logprobs, target_ranks=ranks)
    problems = list(find_problems(make_record(input_ids=input_ids, labels=labels), vocab_size=VOCAB_SIZE))
    assert any(f"position 4: the target {input_ids[4]} has rank {rank}" in problem for problem in problems)


def test_ties_may_be_ranked_either_way() -> None:
    # A bfloat16 head makes ties: engines that count equals and engines that do not are both right.
    half, quarter = np.log(0.5), np.log(0.25)
    for rank in (2, 3):
        labels = Labels(
            token_ids=np.array([1, 2, 3], np.int32),
            logprobs=np.array([half, quarter, quarter], np.float32),
            candidate_offsets=np.array([0, 3]),
            target_logprobs=np.array([quarter], np.float32),
            target_ranks=np.array([rank], np.int32),
            tail_mass=np.array([0], np.float32),
        )
        ids = np.array([0, 3], np.int32)
        record = make_record(input_ids=ids, spans=np.array([[1, 2]], np.int32), labels=labels)
        assert list(find_problems(record, vocab_size=VOCAB_SIZE)) == []
