"""What vLLM's own code hands over becomes the same labels on both paths; with vLLM's classes, without an engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from labelgen.teachers.teacher import EngineError
from labelgen.teachers.vllm_logprobs import (
    ARRAYS_KEY,
    CapturedLogprobs,
    Positions,
    capture_arrays,
    labels_of,
    positions_of,
)
from labelstore.labels import Labels
from labelstore.selection import Selection

TOP_K = 5


def steps(num_positions: int, *, seed: int = 0, vocab_size: int = 60) -> list[Positions]:
    """What an engine core gives for a request, one position a step: the target first, then the top K."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(num_positions):
        logits = rng.normal(size=vocab_size) * 3
        logprobs = (logits - np.log(np.exp(logits).sum())).astype(np.float32)
        target = int(rng.integers(vocab_size))
        ids = np.concatenate([[target], np.argsort(-logprobs)[:TOP_K]]).astype(np.int32)
        rank = int((logprobs >= logprobs[target]).sum())
        found.append(Positions(token_ids=ids[None], logprobs=logprobs[ids][None], ranks=np.array([rank], np.int32)))
    return found


def assert_same(one: Labels, other: Labels) -> None:
    for name in ("token_ids", "logprobs", "target_logprobs", "target_ranks", "tail_mass"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def make_processor(*, arrays: bool, num_logprobs: int | None, num_prompt_logprobs: int | None) -> Any:
    from vllm import SamplingParams
    from vllm.v1.engine import output_processor

    assert capture_arrays() and capture_arrays(), "asked twice, it is still on"
    parameters = SamplingParams(
        logprobs=num_logprobs,
        prompt_logprobs=num_prompt_logprobs,
        flat_logprobs=True,
        extra_args={ARRAYS_KEY: arrays} if arrays else None,
    )
    request: Any = SimpleNamespace(sampling_params=parameters)
    return output_processor.LogprobsProcessor.from_new_request(None, request)


@pytest.mark.engine
@pytest.mark.parametrize("num_positions", [1, 63, 64, 300])
def test_arrays_and_flat_lists_of_a_response_give_equal_labels(num_positions: int) -> None:
    from vllm.v1.outputs import LogprobsLists

    given, labels = steps(num_positions), []
    targets = np.concatenate([step.token_ids[:, 0] for step in given])
    for arrays in (True, False):
        processor = make_processor(arrays=arrays, num_logprobs=TOP_K, num_prompt_logprobs=None)
        for step in given:
            processor._update_sample_logprobs(LogprobsLists(step.token_ids, step.logprobs, step.ranks))
        assert isinstance(processor.logprobs, CapturedLogprobs) == arrays
        labels.append(labels_of(positions_of(processor.logprobs, top_k=TOP_K), targets, Selection(top_k=TOP_K)))
    assert_same(*labels)
    assert len(labels[0]) == num_positions


@pytest.mark.engine
@pytest.mark.parametrize("prompt_skip", [0, 7])
def test_arrays_and_flat_lists_of_a_prompt_give_equal_labels(prompt_skip: int) -> None:
    import torch
    from vllm.v1.outputs import LogprobsTensors

    given = steps(100)
    chunks = [given[:30], given[30:99], given[99:]]  # as chunked prefill gives them
    targets = np.concatenate([step.token_ids[:, 0] for step in given])[prompt_skip:]
    labels = []
    for arrays in (True, False):
        processor = make_processor(arrays=arrays, num_logprobs=None, num_prompt_logprobs=TOP_K)
        for chunk in chunks:
            stacked = [np.concatenate([getattr(step, name) for step in chunk]) for name in Positions.__slots__]
            processor._update_prompt_logprobs(LogprobsTensors(*(torch.from_numpy(array) for array in stacked)))
        positions = positions_of(processor.prompt_logprobs, top_k=TOP_K, prompt_skip=prompt_skip)
        labels.append(labels_of(positions, targets, Selection(top_k=TOP_K)))
    assert_same(*labels)


@pytest.mark.engine
def test_requests_that_do_not_ask_are_left_to_vllm() -> None:
    from vllm.logprobs import FlatLogprobs

    processor = make_processor(arrays=False, num_logprobs=TOP_K, num_prompt_logprobs=None)
    assert isinstance(processor.logprobs, FlatLogprobs)


@pytest.mark.parametrize("rows", [[0], [3, 4, 5], [0, 2, 3, 9], []], ids=str)
def test_the_positions_of_spans_are_taken_and_no_others(rows: list[int]) -> None:
    whole = as_one(steps(10))
    some = whole.take(np.array(rows, dtype=np.int64))
    for name in Positions.__slots__:
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[rows])


def test_what_is_collected_does_not_keep_the_steps_arrays_alive() -> None:
    captured = CapturedLogprobs()
    shared = steps(1)[0]
    captured.append((shared.token_ids, shared.logprobs, shared.ranks))
    assert not np.shares_memory(captured.positions().logprobs, shared.logprobs)


def test_arrays_that_are_not_contiguous_or_of_other_widths_are_joined_the_same() -> None:
    captured, wanted = CapturedLogprobs(), as_one(steps(3))
    for step in steps(3):
        wide = np.asfortranarray(np.concatenate([step.token_ids, step.token_ids]))[:1]  # a view with gaps
        captured.append((wide, step.logprobs, step.ranks.astype(np.int64), None))
    got = captured.positions()
    for name in Positions.__slots__:
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
        assert getattr(got, name).dtype == getattr(wanted, name).dtype


def test_a_step_with_fewer_ranks_than_positions_is_an_engine_error() -> None:
    captured, (one, two) = CapturedLogprobs(), steps(2)
    captured.append((one.token_ids, one.logprobs, one.ranks))
    captured.append((two.token_ids, two.logprobs, two.ranks[:0]))
    with pytest.raises(EngineError, match="vLLM gave 12 ids, 12 log-probabilities and 1 ranks, wanted 6 entries"):
        captured.positions()


def as_one(given: list[Positions]) -> Positions:
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(step, name) for step in given]) for name in Positions.__slots__
    }
    return Positions(**arrays)


def test_positions_about_other_tokens_are_an_engine_error() -> None:
    positions = as_one(steps(10))
    targets = positions.token_ids[:, 0]
    assert len(labels_of(positions, targets, Selection(top_k=TOP_K))) == 10
    with pytest.raises(EngineError, match="labels would be shifted"):
        labels_of(positions, np.roll(targets, 1), Selection(top_k=TOP_K))
    with pytest.raises(EngineError, match=r"vLLM gave entries \(10, 6\) for 9 tokens, wanted 6 entries at each"):
        labels_of(positions, targets[:9], Selection(top_k=TOP_K))


def test_nan_is_refused_and_a_sure_thing_is_certain() -> None:
    positions = as_one(steps(3))
    targets = positions.token_ids[:, 0]
    positions.logprobs[1, 1] = 1e-7  # a float32 softmax can round to above 0
    positions.logprobs[1, 2:] = -20
    assert labels_of(positions, targets, Selection(top_k=TOP_K)).logprobs[1, 0] == 0.0
    positions.logprobs[2, 3] = np.nan
    with pytest.raises(ValueError, match="logprobs must be finite and <= 0, got nan in label 2"):
        labels_of(positions, targets, Selection(top_k=TOP_K))
