"""The teacher that runs under vLLM, in this process's own engine."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen.prompts.chat_template import ChatTemplate
from labelgen.prompts.token_spans import TokenSpan, positions_in
from labelgen.prompts.tokenizer import HFTokenizer
from labelgen.teachers.engine_guard import EngineGuard
from labelgen.teachers.engine_log import capture_output, cause_in, tail_of
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.gpu_holders import describe_gpu_holders
from labelgen.teachers.model_files import find_adapter_dir, find_model_dir
from labelgen.teachers.sampling import Sampling
from labelgen.teachers.selecting import check_selection, head_width
from labelgen.teachers.selection_check import SELF_TEST_TEXT, find_selection_problems
from labelgen.teachers.teacher import (
    Answer,
    EngineDeathError,
    EngineError,
    GenerateRequest,
    Refusal,
    Request,
    ScoreRequest,
    TeacherFacts,
)
from labelgen.teachers.vllm_config import (
    check_vllm_installed,
    describe_bounds,
    gather_facts,
    lora_request,
    max_scored_tokens,
    needs_worker,
    refusals,
    resolve_engine,
)
from labelgen.teachers.vllm_end import close_sockets, describe_death, has_died, wake_at_death
from labelgen.teachers.vllm_logprobs import capture_arrays, captured_width, labels_of, positions_of
from labelgen.teachers.vllm_parameters import check_parameters, score_parameters, write_parameters
from labelstore.selection import Selection

__all__ = ["VLLMTeacher"]

_SELF_TEST_TOKENS = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Reading:
    """A response that was written under a constraint, and is read for its labels."""

    request: ScoreRequest
    finish_reason: str
    text: str | None


class VLLMTeacher:
    """A model folder or hub name under vLLM. The engine starts with `start`, or with the first `label`."""

    def __init__(
        self,
        teacher: str,
        *,
        selection: Selection,
        settings: EngineSettings,
        log_path: Path,
        for_scoring: bool = False,
        use_arrays: bool = True,
        chat_template: ChatTemplate | None = None,
    ) -> None:
        """Resolve what the engine will run, without starting it. Its output goes to `log_path`.

        `for_scoring` bounds the tokens of a step: prompt log-probabilities need rows of the whole vocabulary for each.
        `use_arrays=False` takes vLLM's flat lists, as where its internals are not known.

        Raises:
            ImportError: vLLM is missing, or installed twice; the message gives the pip line.
            ValueError: there is no such model, or vLLM cannot run it with these settings.
        """
        check_vllm_installed()
        self._selection = selection
        self._width = captured_width(selection)
        self._log_path = log_path
        self._log_start = 0  # what stands before is of other runs
        self._engine: Any = None
        self._guard: EngineGuard | None = None
        self._num_names = 0
        model_dir = find_model_dir(teacher)
        adapter_dir = None if settings.adapter is None else find_adapter_dir(settings.adapter)
        self._lora = None if adapter_dir is None else lora_request(adapter_dir)
        self._tokenizer = HFTokenizer(model_dir, chat_template=chat_template)
        # Until all is checked, nothing is written into a folder of the user's.
        with tempfile.TemporaryDirectory(prefix="labelgen-") as scratch, capture_output(Path(scratch) / "engine.log"):
            try:
                self._engine_args, self._config = resolve_engine(
                    model_dir, settings, adapter_dir=adapter_dir, selection=selection, for_scoring=for_scoring
                )
            except refusals() as error:
                raise ValueError(f"--teacher {teacher}: vLLM cannot run it: {_first_line(error)}") from error
            self._uses_arrays = use_arrays and capture_arrays()
            capture = "arrays" if self._uses_arrays else "flat_logprobs"
            self._facts = gather_facts(
                teacher,
                model_dir,
                settings,
                adapter_dir=adapter_dir,
                config=self._config,
                tokenizer=self._tokenizer,
                capture=capture,
                max_scored_tokens=max_scored_tokens(
                    self._config, settings, selection=selection, for_scoring=for_scoring
                ),
                bounds=describe_bounds(self._config, selection=selection, for_scoring=for_scoring),
            )
        self._facts = dataclasses.replace(self._facts, notes=(*self._facts.notes, *describe_gpu_holders()))
        check_selection(selection, vocab_size=self._facts.vocab_size)
        if self._width > self._facts.vocab_size:
            raise ValueError(f"{selection} asks for more entries than the teacher's {self._facts.vocab_size} rows")

    @property
    def facts(self) -> TeacherFacts:
        return self._facts

    @property
    def selection(self) -> Selection:
        return self._selection

    @property
    def tokenizer(self) -> HFTokenizer:
        return self._tokenizer

    @property
    def max_batched_tokens(self) -> int:
        """Tokens that the engine computes in one step at most."""
        limit: int = self._config.scheduler_config.max_num_batched_tokens
        return limit

    def check_sampling(self, sampling: Sampling) -> None:
        with tempfile.TemporaryDirectory(prefix="labelgen-") as scratch, capture_output(Path(scratch) / "engine.log"):
            try:
                check_parameters(sampling, self._config)
            except refusals() as error:
                raise ValueError(f"vLLM refuses this sampling: {_first_line(error)}") from error

    def start(self) -> None:
        if self._engine is not None:
            return
        from vllm.v1.engine.llm_engine import LLMEngine

        self._log_start = self._log_path.stat().st_size if self._log_path.exists() else 0
        self._guard = EngineGuard()
        try:
            with capture_output(self._log_path), self._guard.marking():
                self._engine = LLMEngine.from_engine_args(self._engine_args)
                if self._lora is not None:
                    self._engine.add_lora(self._lora)  # now, so that one that does not fit is no request's fault
        except Exception as error:  # vLLM raises plain exceptions of many kinds; all mean that there is no engine
            self.close()
            raise self._engine_error(f"the engine did not start: {_first_line(error)}") from error
        except BaseException:  # told to stop while it loaded
            self.close()
            raise
        wake_at_death(self._engine)
        try:
            self.select(self._selection)
        except BaseException:
            self.close()
            raise

    def select(self, selection: Selection) -> None:
        """Keep another selection from now on; not while requests are answered. It tests itself.

        Raises:
            EngineError: this engine does not give it right.
        """
        if needs_worker(selection):
            arguments = (head_width(selection), selection.draws or 0, selection.entropy)
            with self._naming_death():
                is_possible = all(self._engine.collective_rpc("labelgen_capture", args=arguments))
            if not is_possible:
                raise EngineError(f"this vLLM gives no way to capture {selection}; use --top-k or --keep-mass")
        self._selection, self._width = selection, captured_width(selection)
        self._test_selection()

    def parameters_of(self, request: Request) -> Any:
        """Return the SamplingParams with which vLLM gets a request."""
        if isinstance(request, GenerateRequest):
            stop_ids = self._facts.stop_ids
            return write_parameters(request, stop_ids=stop_ids, width=self._width, uses_arrays=self._uses_arrays)
        return score_parameters(width=self._width, uses_arrays=self._uses_arrays)

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        self.start()
        # Twice what runs at once: while an answer is taken away, the next request is in the engine's queue already.
        max_in_flight = 2 * self._config.scheduler_config.max_num_seqs
        waiting = iter(requests)
        in_flight: dict[str, Request | _Reading] = {}  # by the name that the engine knows
        is_exhausted = False
        try:
            while in_flight or not is_exhausted:
                while not is_exhausted and len(in_flight) < max_in_flight:
                    request = next(waiting, None)
                    if request is None:
                        is_exhausted = True
                        continue
                    if (refusal := self._submit(request, in_flight)) is not None:
                        yield refusal
                if in_flight:
                    for output in self._step():
                        if output.finished and output.request_id in in_flight:
                            answer = self._settle(in_flight.pop(output.request_id), output, in_flight)
                            if answer is not None:
                                yield answer
        except EngineError:
            raise  # there is nothing left to stop
        except BaseException:  # a caller that stops early must leave no work behind for the next one to wait for
            if in_flight and self._engine is not None:
                self._engine.abort_request(list(in_flight))
            raise

    def close(self) -> None:
        # Without a timeout: the engine does not hear SIGTERM (engine_guard) and has nothing to save.
        engine, self._engine = self._engine, None
        if engine is not None:
            try:
                with capture_output(self._log_path):
                    engine.engine_core.shutdown(timeout=0)
            except OSError:  # the log's folder is gone: the engine must end all the same
                engine.engine_core.shutdown(timeout=0)
            close_sockets(engine)
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def __enter__(self) -> VLLMTeacher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _step(self) -> list[Any]:
        with self._naming_death():
            outputs: list[Any] = self._engine.step()
        return outputs

    @contextlib.contextmanager
    def _naming_death(self) -> Iterator[None]:
        """Turn whatever a dead engine raises (its own error, a closed socket's) into one that says what to do."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            yield
        except Exception as error:
            if not isinstance(error, EngineDeadError) and not has_died(self._engine):
                raise
            how = describe_death(self._engine)
            if "SIGKILL" in how:  # from outside: its log knows nothing of it
                cause = f"{how}, as the kernel does when memory runs out"
            else:
                cause = cause_in(self._log_path, start=self._log_start) or how or _first_line(error)
            raise EngineDeathError(
                f"the engine died: {cause.rstrip('.')}. What is complete is kept; run the same command again to go on. "
                f"Its log is {self._log_path}",
                cause=cause.rstrip("."),
            ) from error

    def _engine_error(self, what: str) -> EngineError:
        return EngineError(f"{what}. Its log is {self._log_path}; it ends with\n{tail_of(self._log_path)}")

    def _test_selection(self) -> None:
        """See that a few positions' labels are what the whole distribution says.

        Raises:
            EngineError: they are not; the dataset would be wrong.
        """
        text = self._tokenizer.encode_text(SELF_TEST_TEXT, with_special_tokens=True)
        input_ids = text[: min(_SELF_TEST_TOKENS, self._facts.max_model_len - 1)]
        answers = {}
        for width in (self._facts.vocab_size, self._width):  # one after the other: a step has one width
            name = self._add_request(input_ids, score_parameters(width=width, uses_arrays=self._uses_arrays))
            outputs: list[Any] = []
            while not outputs:
                outputs = [output for output in self._step() if output.finished and output.request_id == name]
            answers[width] = positions_of(outputs[0].prompt_logprobs, top_k=width, prompt_skip=0)
        whole = answers[self._facts.vocab_size]
        full = np.empty((len(input_ids) - 1, self._facts.vocab_size), dtype=np.float32)
        np.put_along_axis(full, whole.token_ids[:, 1:].astype(np.int64), whole.logprobs[:, 1:], axis=1)
        if self._width == self._facts.vocab_size:
            return
        labels = labels_of(answers[self._width], input_ids[1:], self._selection)
        for problem in find_selection_problems(labels, full, self._selection):
            raise EngineError(f"this engine does not give {self._selection} right: {problem}")

    def _add_request(self, token_ids: NDArray[np.int32], parameters: Any) -> str:
        """Put it into the engine's queue, under a new name: callers' own names come again in every run."""
        from vllm.inputs import TokensPrompt

        self._num_names += 1
        name = f"labelgen-{self._num_names}"
        prompt = TokensPrompt(prompt_token_ids=token_ids.tolist())
        with self._naming_death():
            self._engine.add_request(name, prompt, parameters, lora_request=self._lora)
        return name

    def _submit(self, asked: Request | _Reading, in_flight: dict[str, Request | _Reading]) -> Refusal | None:
        """Put a request into the engine's queue, and in flight; return a refusal where it cannot be."""
        request = asked.request if isinstance(asked, _Reading) else asked
        token_ids = _asked_ids(request)
        problem = self._problem_of(request, token_ids)
        if problem is None:
            try:
                in_flight[self._add_request(token_ids, self.parameters_of(request))] = asked
            except refusals() as error:
                problem = f"vLLM refuses it: {_first_line(error)}"
        return None if problem is None else Refusal(request_id=request.request_id, reason=problem)

    def _settle(
        self, asked: Request | _Reading, output: Any, in_flight: dict[str, Request | _Reading]
    ) -> Answer | Refusal | None:
        """Return the answer to what was in flight; None where a response that was written must still be read."""
        request = asked.request if isinstance(asked, _Reading) else asked
        completion = output.outputs[0]
        if not np.array_equal(output.prompt_token_ids, _asked_ids(request)):
            raise EngineError("vLLM gave the answer to another request; labels would be of the wrong prompt")
        if completion.finish_reason not in ("stop", "length"):
            reason = f"the engine ended it with {completion.finish_reason!r}"
            return Refusal(request_id=request.request_id, reason=reason)
        if isinstance(request, ScoreRequest):
            answer = self._read(request, output.prompt_logprobs)
            if isinstance(asked, _Reading) and isinstance(answer, Answer):
                return dataclasses.replace(answer, finish_reason=asked.finish_reason, text=asked.text)
            return answer
        response_ids = np.array(completion.token_ids, dtype=np.int32)
        text = completion.text if request.sampling.stop else None
        input_ids = np.concatenate([request.prompt_ids, response_ids])
        spans = (TokenSpan(start=len(request.prompt_ids), stop=len(input_ids), kind=request.kind),)
        if request.sampling.is_constrained:
            reading = _Reading(
                request=ScoreRequest(request_id=request.request_id, input_ids=input_ids, spans=spans),
                finish_reason=completion.finish_reason,
                text=text,
            )
            return self._submit(reading, in_flight)
        try:
            positions = positions_of(completion.logprobs, top_k=self._width)
            labels = labels_of(positions, response_ids, self._selection)
        except ValueError as error:
            return _unusable(request, error)
        return Answer(
            request_id=request.request_id,
            input_ids=input_ids,
            spans=spans,
            labels=labels,
            finish_reason=completion.finish_reason,
            text=text,
        )

    def _read(self, request: ScoreRequest, prompt_logprobs: Any) -> Answer | Refusal:
        places = positions_in(request.spans)
        first = int(places[0])
        try:
            positions = positions_of(prompt_logprobs, top_k=self._width, prompt_skip=first - 1)
            labels = labels_of(positions.take(places - first), request.input_ids[places], self._selection)
        except ValueError as error:
            return _unusable(request, error)
        return Answer(request_id=request.request_id, input_ids=request.input_ids, spans=request.spans, labels=labels)

    def _problem_of(self, request: Request, token_ids: NDArray[np.int32]) -> str | None:
        if len(token_ids) == 0:
            return "it has no tokens"
        if len(token_ids) >= self._facts.max_model_len:
            return f"it has {len(token_ids)} tokens; with one more, the context holds {self._facts.max_model_len}"
        if (highest := int(token_ids.max())) >= self._facts.vocab_size:
            return f"it holds the token id {highest}, the teacher has {self._facts.vocab_size} rows"
        if isinstance(request, ScoreRequest) and len(token_ids) > self._facts.max_scored_tokens:
            return f"it has {len(token_ids)} tokens; this engine has memory to score {self._facts.max_scored_tokens}"
        is_sampled = isinstance(request, GenerateRequest) and request.sampling.temperature > 0
        scheduler = self._config.scheduler_config
        if is_sampled and self._facts.recorded["device"] == "cpu" and scheduler.enable_chunked_prefill:
            return "an engine for long texts to score cannot sample on a CPU; see vllm_config._batch_bounds"
        return None


def _asked_ids(request: Request) -> NDArray[np.int32]:
    return request.prompt_ids if isinstance(request, GenerateRequest) else request.input_ids


def _unusable(request: Request, error: ValueError) -> Refusal:
    return Refusal(request_id=request.request_id, reason=f"the engine's labels are not usable: {error}")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    if (
        len(lines) > 2 and "validation error" in lines[0]
    ):  # pydantic says where in the second line, and what in the third
        return f"{lines[1].strip()}: {lines[2].strip().split(' [type=')[0]}"
    return lines[0] if lines else type(error).__name__
