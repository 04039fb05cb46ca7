"""Arguments that a user hands to vLLM's engine by name: which there may be, and which of them change labels."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import json
from collections.abc import Mapping
from typing import Any, NoReturn

__all__ = ["changing_labels", "parse_engine_args", "recorded_only"]

_ELSEWHERE = {
    "model": "--teacher",
    "tokenizer": "--teacher, whose folder has it",
    "dtype": "--dtype",
    "max_model_len": "--max-model-len",
    "gpu_memory_utilization": "--gpu-memory-utilization",
    "tensor_parallel_size": "--tensor-parallel-size",
    "pipeline_parallel_size": "--pipeline-parallel-size",
    "enable_expert_parallel": "--expert-parallel",
    "enable_lora": "--adapter",
    "max_lora_rank": "--adapter, which says its own rank",
    "data_parallel_size": "--part I/N, a job for each share",
    "generation_config": "the sampling options, such as --temperature",
    "override_generation_config": "the sampling options, such as --temperature",
    "hf_token": "the environment variable HF_TOKEN, as a dataset keeps its job",
}
_REFUSED = {
    "max_logprobs": "labelgen sets it, from what is kept",
    "logprobs_mode": "labelgen sets it: labels are raw log-probabilities",
    "seed": "labelgen sets it: each response has a seed of its own, see --seed",
    "worker_extension_cls": "labelgen sets it, to capture draws and the entropy",
    "enable_chunked_prefill": "labelgen sets it, to bound the memory of a step",
    "disable_log_stats": "labelgen sets it",
    "skip_tokenizer_init": "stop strings and constraints need the tokenizer",
    "runner": "a teacher is a generating model",
    "kv_sharing_fast_prefill": "log-probabilities of given text would be wrong",
}
# Where and how fast, in which order, with which kernels: what they change is a float's last bits.
_RECORDED_ONLY = frozenset(
    {
        "all2all_backend",
        "async_scheduling",
        "attention_backend",
        "block_size",
        "compilation_config",
        "cpu_offload_gb",
        "cudagraph_capture_sizes",
        "disable_cascade_attn",
        "disable_custom_all_reduce",
        "distributed_executor_backend",
        "download_dir",
        "enable_prefix_caching",
        "enforce_eager",
        "kv_cache_memory_bytes",
        "log_level",
        "max_cudagraph_capture_size",
        "max_num_batched_tokens",
        "max_num_seqs",
        "max_parallel_loading_workers",
        "num_gpu_blocks_override",
        "numa_bind",
        "optimization_level",
        "performance_mode",
        "prefix_caching_hash_algo",
        "safetensors_load_strategy",
        "scheduling_policy",
        "speculative_config",
        "spec_method",
        "spec_model",
        "spec_tokens",
        "use_tqdm_on_load",
    }
)


def parse_engine_args(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what vLLM's own command line makes of names and values.

    Raises:
        ValueError: vLLM has no such argument, refuses its value, or labelgen sets it; the message names it.
    """
    return {name: _parse(name, value) for name, value in given.items()}


def changing_labels(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those that belong to a dataset's fingerprint: all that are not known to change nothing."""
    return {name: value for name, value in sorted(values.items()) if name not in _RECORDED_ONLY}


def recorded_only(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the others."""
    return {name: value for name, value in sorted(values.items()) if name in _RECORDED_ONLY}


def _parse(name: str, value: Any) -> Any:
    actions = {action.dest: action for action in _parser()._actions}
    if name in _ELSEWHERE:
        raise ValueError(f"--engine-arg {name}: give {_ELSEWHERE[name]}")
    if name in _REFUSED:
        raise ValueError(f"--engine-arg {name}: is refused: {_REFUSED[name]}")
    if name not in actions:
        nearest = difflib.get_close_matches(name, actions, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else "; see its list of engine arguments"
        raise ValueError(f"--engine-arg {name}: vLLM has no such argument{hint}")
    option = max(actions[name].option_strings, key=len)
    text = value if isinstance(value, str) else json.dumps(value)
    if isinstance(actions[name], argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            raise ValueError(f"--engine-arg {name}: must be true or false, got {text!r}")
        words = ["--" + name.replace("_", "-") if value else "--no-" + name.replace("_", "-")]
    else:
        words = [f"{option}={text}"]
    try:
        return getattr(_parser().parse_args(words), name)
    except ValueError as error:
        raise ValueError(f"--engine-arg {name}: vLLM refuses {text!r}: {error}") from error


@functools.cache
def _parser() -> argparse.ArgumentParser:
    """Return vLLM's own parser of engine arguments, which raises where it would end the program."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            raise ValueError(message)

    parser: argparse.ArgumentParser = EngineArgs.add_cli_args(Parser(add_help=False))
    fields = {field.name for field in dataclasses.fields(EngineArgs)}
    assert fields >= {action.dest for action in parser._actions}, "each of vLLM's options is a field of EngineArgs"
    return parser
