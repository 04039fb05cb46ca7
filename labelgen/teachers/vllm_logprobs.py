"""From vLLM's log-probabilities to labels. The only file that knows in which order vLLM gives them.

For each position vLLM gives W = K + 1 entries: the target's (the sampled or the prompt's token) first, then the top K,
among which the target stands again if it is one of them; and the target's rank. P positions.

Two ways to them: as arrays, collected where the engine core hands them over (no Python object per candidate), and as
vLLM's flat lists, where another version's internals are not what is known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from labelgen.teachers.selecting import head_width, select_labels
from labelgen.teachers.teacher import EngineError
from labelstore.labels import Labels
from labelstore.selection import Selection

__all__ = [
    "ARRAYS_KEY",
    "CapturedLogprobs",
    "Positions",
    "capture_arrays",
    "captured_width",
    "labels_of",
    "positions_of",
]

ARRAYS_KEY = "labelgen_arrays"  # in a request's extra_args: collect its log-probabilities as arrays
_PENDING_STEPS = 256


class FlatLogprobs(Protocol):
    """vLLM's own class (vllm.logprobs, 0.32)."""

    start_indices: list[int]
    end_indices: list[int]
    token_ids: list[int]
    logprobs: list[float]
    ranks: list[int | None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Positions:
    """What vLLM gave for P positions."""

    token_ids: NDArray[np.int32]  # [P, W]
    logprobs: NDArray[np.float32]  # [P, W], nats
    ranks: NDArray[np.int32]  # [P], the target's

    def take(self, rows: NDArray[np.int64]) -> Positions:
        """Return those of some rows [R], which rise."""
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1:  # one run: no copy
            run = slice(int(rows[0]), int(rows[-1]) + 1)
            return Positions(token_ids=self.token_ids[run], logprobs=self.logprobs[run], ranks=self.ranks[run])
        return Positions(token_ids=self.token_ids[rows], logprobs=self.logprobs[rows], ranks=self.ranks[rows])


class CapturedLogprobs:
    """Collects a request's positions as they come, a few at a time.

    What comes is a view of the step's message for all requests, which a slow request would keep alive; so it is copied,
    _PENDING_STEPS at a time, because joining many small arrays costs little more than joining one. Until then those
    messages hold hardly more than the rows of the requests that still run.
    """

    def __init__(self) -> None:
        self._pending: list[Sequence[Any]] = []
        self._joined: list[Positions] = []

    def append(self, step: Sequence[Any]) -> None:
        """Add the positions of a step: token_ids [P, W], logprobs [P, W], ranks [P]; what follows is left out."""
        pending = self._pending
        pending.append(step)
        if len(pending) >= _PENDING_STEPS:
            self._join_pending()

    def positions(self, *, skip: int = 0) -> Positions:
        """Return all but the first `skip` positions; at least one must have been added.

        Raises:
            EngineError: a step's arrays are not about the same positions.
        """
        self._join_pending()
        if len(self._joined) > 1:
            self._joined = [_join([(part.token_ids, part.logprobs, part.ranks) for part in self._joined])]
        (whole,) = self._joined
        return Positions(token_ids=whole.token_ids[skip:], logprobs=whole.logprobs[skip:], ranks=whole.ranks[skip:])

    def _join_pending(self) -> None:
        if self._pending:
            self._joined.append(_join(self._pending))
            self._pending = []


def _join(parts: Sequence[Sequence[Any]]) -> Positions:
    token_ids, logprobs, ranks, *_ = zip(*parts, strict=True)
    width = token_ids[0].shape[1]
    joined_ids, joined_logprobs = _join_arrays(token_ids, np.int32), _join_arrays(logprobs, np.float32)
    joined_ranks = _join_arrays(ranks, np.int32)
    if not len(joined_ids) == len(joined_logprobs) == len(joined_ranks) * width:
        got = f"{len(joined_ids)} ids, {len(joined_logprobs)} log-probabilities and {len(joined_ranks)} ranks"
        raise _unknown_shape(got, width)
    return Positions(
        token_ids=joined_ids.reshape(-1, width), logprobs=joined_logprobs.reshape(-1, width), ranks=joined_ranks
    )


def _join_arrays(arrays: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    """Return the values of arrays of one dtype, one after the other, flat and copied.

    Joining bytes costs a third of what numpy's concatenate does for arrays of one position (64 of them: 2.5 against 7.9
    microseconds, 2026-11-24), and that was half of what capturing cost at K = 16. An array of another dtype in between
    would change the count of values, which `_join` compares.
    """
    found, buffers = arrays[0].dtype, cast("Sequence[memoryview]", arrays)
    try:
        joined: NDArray[Any] = np.frombuffer(bytearray().join(buffers), dtype=found)
    except TypeError:  # an array that is not contiguous is no buffer
        joined = np.concatenate([array.reshape(-1) for array in arrays])
    return joined.astype(dtype, casting="same_kind", copy=False)


def capture_arrays() -> bool:
    """Make vLLM collect arrays for the requests that ask for it with ARRAYS_KEY; False where that is not possible.

    The request's output then holds `CapturedLogprobs` where it would hold flat lists. Other users of vLLM in this
    process are left as they are. What is needed of vLLM is looked at, not its version.
    """
    try:
        from vllm.v1.engine import output_processor
        from vllm.v1.engine.logprobs import LogprobsProcessor
    except ImportError:
        return False
    needed = ("from_new_request", "_update_sample_logprobs", "_update_prompt_logprobs")
    if not all(hasattr(LogprobsProcessor, name) for name in needed):
        return False
    if getattr(output_processor, "LogprobsProcessor", None) is not LogprobsProcessor:
        return hasattr(output_processor, "LogprobsProcessor") and _is_ours(output_processor.LogprobsProcessor)
    output_processor.LogprobsProcessor = _array_processor(LogprobsProcessor)
    return True


def positions_of(given: CapturedLogprobs | FlatLogprobs, *, top_k: int, prompt_skip: int | None = None) -> Positions:
    """Return the positions of a finished request, whichever way they were collected.

    `prompt_skip` is for a prompt's: how many of its positions are left out. The first one is that of token 1.

    Raises:
        EngineError: they are not of the shape that is known: this vLLM version is not supported.
    """
    if isinstance(given, CapturedLogprobs):
        return given.positions(skip=prompt_skip or 0)
    width = top_k + 1
    skip = 0 if prompt_skip is None else prompt_skip + 1  # a prompt's flat lists begin with an empty entry for token 0
    starts, stops = np.array(given.start_indices[skip:]), np.array(given.end_indices[skip:])
    if (stops - starts != width).any():
        raise _unknown_shape(f"positions of {sorted(set((stops - starts).tolist()))} entries", width)
    first = int(starts[0]) if len(starts) else 0
    last = first + len(starts) * width
    return Positions(
        token_ids=np.array(given.token_ids[first:last], dtype=np.int32).reshape(-1, width),
        logprobs=np.array(given.logprobs[first:last], dtype=np.float32).reshape(-1, width),
        ranks=np.array(given.ranks[first:last:width], dtype=np.int32),
    )


def captured_width(selection: Selection) -> int:
    """Return K: how many entries vLLM must give at each position, besides the target's."""
    return head_width(selection) + (selection.draws or 0) + int(selection.entropy)


def labels_of(positions: Positions, targets: NDArray[np.int32], selection: Selection) -> Labels:
    """Return the labels of `targets` [N], one for each position.

    Raises:
        ValueError: the engine gave NaN or infinite log-probabilities.
        EngineError: the positions are not about these targets: vLLM's order has changed, labels would be wrong.
    """
    width = 1 + captured_width(selection)
    if positions.token_ids.shape != (len(targets), width):
        raise _unknown_shape(f"entries {positions.token_ids.shape} for {len(targets)} tokens", width)
    if (positions.token_ids[:, 0] != targets).any():
        raise EngineError("vLLM's log-probabilities are about other tokens than its text; labels would be shifted")
    stop = width - int(selection.entropy)  # the entropy, in nats, comes in the last column
    # A float32 softmax of a sure thing can round to above 0.
    return select_labels(
        selection,
        token_ids=positions.token_ids[:, 1:stop].copy(),
        logprobs=np.minimum(positions.logprobs[:, 1:stop], 0.0),
        target_logprobs=np.minimum(positions.logprobs[:, 0], 0.0),
        target_ranks=positions.ranks.copy(),
        entropy=np.maximum(positions.logprobs[:, stop], 0.0) if selection.entropy else None,
    )


def _unknown_shape(got: str, width: int) -> EngineError:
    return EngineError(f"vLLM gave {got}, wanted {width} entries at each; this vLLM version is not supported")


def _is_ours(processor: Any) -> bool:
    return getattr(processor, "collects_arrays", False) is True


def _array_processor(base: Any) -> Any:
    """Return vLLM's LogprobsProcessor with arrays in place of lists for the requests that ask for them."""

    class ArrayLogprobsProcessor(base):  # type: ignore[misc]
        collects_arrays = True

        @classmethod
        def from_new_request(cls, tokenizer: Any, request: Any) -> Any:
            asked = (request.sampling_params.extra_args or {}).get(ARRAYS_KEY, False)
            if not asked:
                return base.from_new_request(tokenizer, request)
            processor = super().from_new_request(tokenizer, request)
            if processor.logprobs is not None:
                processor.logprobs = CapturedLogprobs()
                # Called for each token: one call less than by way of a method here.
                processor._update_sample_logprobs = processor.logprobs.append
            if processor.prompt_logprobs is not None:
                processor.prompt_logprobs = CapturedLogprobs()
            return processor

        def _update_prompt_logprobs(self, prompt_logprobs_tensors: Sequence[Any]) -> None:
            self.prompt_logprobs.append([np.asarray(tensor) for tensor in prompt_logprobs_tensors[:3]])

    return ArrayLogprobsProcessor
