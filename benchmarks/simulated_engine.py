"""An engine whose steps take time and compute nothing, under the real driver.

What is simulated is vLLM's engine core, the process beside: slots, a queue, and steps back to back for as long as there
is work. All on the driver's side is real: VLLMTeacher's feeding and collecting, vLLM's own front end (LLMEngine, its
input and output processors), the runner, the writing. What the messages between the two cost is left out.

The clock is a simulated one, so that it shows the same on a busy machine: it goes on by the processor time that the
driver takes, all its threads as if on one core, and by what the driver waits for a step, which takes no real time.

A step gives each running request one token.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen.teachers.engine_log import capture_output
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.teacher import Answer, GenerateRequest, Refusal, Request
from labelgen.teachers.vllm_teacher import VLLMTeacher
from labelstore.selection import Selection
from teachers import fetch_teacher

__all__ = ["MixedLengths", "SimulatedCore", "SimulatedTeacher", "Step", "mixed_length"]

SHORTEST, LONGEST = 4, 200  # tokens: 50x


def mixed_length(request: Request, *, shortest: int = SHORTEST, longest: int = LONGEST) -> int:
    """Return a response length that depends on the request's name alone: as many from 4 to 8 as from 100 to 200."""
    number = float(np.random.default_rng([ord(character) for character in request.request_id]).random())
    return round(shortest * math.exp(number * math.log(longest / shortest)))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of an engine."""

    start: float  # seconds
    stop: float
    num_running: int  # slots filled


class MixedLengths(VLLMTeacher):
    """A teacher whose responses differ 50x in length, whatever the model would like to say."""

    long_first = False  # feed the longest of each block first, as if lengths were known
    wave: int | None = None  # feed so many at once and wait for the last of them, as simple loops do
    exhausted_at = 0.0  # on the engine's clock: when the last request was drawn
    seen: Sequence[Request] = ()  # the requests of the last job

    def clock(self) -> float:
        return time.monotonic()

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        mixed = self._with_lengths(requests)
        if self.wave is None:
            yield from super().label(mixed)
            return
        while wave := list(itertools.islice(mixed, self.wave)):
            yield from super().label(wave)

    def _with_lengths(self, requests: Iterable[Request]) -> Iterator[Request]:
        seen: list[Request] = []
        for _, of_block in itertools.groupby(requests, key=lambda request: request.request_id.split("/")[0]):
            mixed: Iterable[GenerateRequest] = (self._with_length(request) for request in of_block)
            if self.long_first:
                mixed = sorted(mixed, key=lambda request: -request.max_tokens)
            for request in mixed:
                seen.append(request)
                yield request
        self.seen = seen
        self.exhausted_at = self.clock()

    def _with_length(self, request: Request) -> GenerateRequest:
        assert isinstance(request, GenerateRequest)
        return dataclasses.replace(request, max_tokens=mixed_length(request))


class SimulatedCore:
    """Stands where vLLM's client of the engine core stands (vLLM 0.32, SyncMPClient)."""

    resources = None

    def __init__(self, *, num_slots: int, step_seconds: float, top_k: int, is_driver_free: bool) -> None:
        self._num_slots = num_slots
        self._step_seconds = step_seconds
        self._is_driver_free = is_driver_free  # the driver takes no time
        self._waited_seconds = 0.0
        self._began = time.process_time()
        self._queue: collections.deque[tuple[float, Any]] = collections.deque()  # when it came, and what
        self._running: dict[str, list[Any]] = {}  # the request, and how many tokens are left
        self._finished: collections.deque[tuple[float, Any]] = collections.deque()  # steps' outputs, and since when
        self._free_at = 0.0
        self.steps: list[Step] = []
        self.starved_seconds = 0.0  # between steps, without a request
        rng = np.random.default_rng(0)
        ids = np.stack([rng.choice(49_000, top_k + 1, replace=False) for _ in range(512)]).astype(np.int32)
        logits = -np.sort(rng.exponential(1.5, (512, top_k + 1)), axis=1)
        self._ids = ids
        self._logprobs: NDArray[np.float32] = (logits - 0.1 - np.log(np.exp(logits).sum(1, keepdims=True))).astype("f4")
        self._logprobs[:, 0] = self._logprobs[:, -1] - 1  # the target, none of the candidates
        self._ranks = np.full(512, top_k + 1, dtype=np.int64)

    def clock(self) -> float:
        taken = 0.0 if self._is_driver_free else time.process_time() - self._began
        return taken + self._waited_seconds

    def get_supported_tasks(self) -> tuple[str, ...]:
        return ("generate",)

    def reset_mm_cache(self) -> None:
        pass

    def add_request(self, request: Any) -> None:
        self._queue.append((self.clock(), request))

    def abort_requests(self, request_ids: list[str]) -> None:
        assert not request_ids, "nothing is aborted here"

    def shutdown(self, timeout: float | None = None) -> None:
        pass

    def get_output(self) -> Any:
        """Return the outputs of the next step that the driver has not seen, when that step has ended."""
        while not self._finished:
            self._run_step()
        ready_at, outputs = self._finished.popleft()
        self._waited_seconds += max(ready_at - self.clock(), 0.0)
        while self._has_started_by(self.clock()):  # an engine goes on while its driver is busy
            self._run_step()
        return outputs

    def _has_started_by(self, now: float) -> bool:
        return self._free_at <= now and bool(self._running or self._queue)

    def _run_step(self) -> None:
        start = self._free_at if self._running else max(self._free_at, self._queue[0][0])
        if self.steps:
            self.starved_seconds += start - self._free_at
        while self._queue and len(self._running) < self._num_slots and self._queue[0][0] <= start:
            _, request = self._queue.popleft()
            self._running[request.request_id] = [request, request.sampling_params.max_tokens]
        stop = self._free_at = start + self._step_seconds
        self.steps.append(Step(start=start, stop=stop, num_running=len(self._running)))
        self._finished.append((stop, self._outputs()))

    def _outputs(self) -> Any:
        from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, FinishReason
        from vllm.v1.outputs import LogprobsLists

        outputs, step = [], len(self.steps)
        for number, (name, state) in enumerate(list(self._running.items())):
            row = (step * 31 + number) % 512
            state[1] -= 1
            if is_last := state[1] == 0:
                del self._running[name]
            rows = slice(row, row + 1)
            logprobs = LogprobsLists(self._ids[rows], self._logprobs[rows], self._ranks[rows])
            output = EngineCoreOutput(
                request_id=name,
                new_token_ids=[int(self._ids[row, 0])],
                new_logprobs=logprobs,
                finish_reason=FinishReason.LENGTH if is_last else None,
            )
            outputs.append(output)
        return EngineCoreOutputs(outputs=outputs)


class SimulatedTeacher(MixedLengths):
    """The demo teacher's files and tokenizer, and an engine that is simulated."""

    def __init__(
        self, *, num_slots: int, step_seconds: float, top_k: int, log_path: Path, is_driver_free: bool = False
    ) -> None:
        super().__init__(
            str(fetch_teacher("smollm2")),
            selection=Selection(top_k=top_k),
            settings=EngineSettings(max_model_len=512),
            log_path=log_path,
        )
        for config in (self._engine_args, self._config.scheduler_config):
            config.max_num_seqs = num_slots
        self.core = SimulatedCore(
            num_slots=num_slots, step_seconds=step_seconds, top_k=top_k, is_driver_free=is_driver_free
        )

    def clock(self) -> float:
        return self.core.clock()

    def start(self) -> None:
        if self._engine is not None:
            return
        from vllm.v1.engine.core_client import EngineCoreClient
        from vllm.v1.engine.llm_engine import LLMEngine

        original = EngineCoreClient.make_client
        EngineCoreClient.make_client = lambda **_: self.core
        try:
            with capture_output(self._log_path):
                self._engine = LLMEngine(
                    vllm_config=self._config, executor_class=object, log_stats=False, multiprocess_mode=True
                )
        finally:
            EngineCoreClient.make_client = original
