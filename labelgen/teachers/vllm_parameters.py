"""What vLLM is asked for each request: its SamplingParams."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from labelgen.teachers.constraint import Constraint
from labelgen.teachers.sampling import Sampling
from labelgen.teachers.teacher import GenerateRequest
from labelgen.teachers.vllm_logprobs import ARRAYS_KEY

__all__ = ["check_parameters", "score_parameters", "write_parameters"]


def write_parameters(request: GenerateRequest, *, stop_ids: Collection[int], width: int, uses_arrays: bool) -> Any:
    """Return the parameters that make vLLM write a response.

    Log-probabilities come with it only where they are the teacher's: vLLM 0.32 masks logits for structured output
    before it takes them (gpu_model_runner.sample_tokens), and where else it does is its own affair.
    """
    sampling = request.sampling
    return _of_sampling(
        sampling,
        stop_token_ids=[*stop_ids, *sampling.stop_ids],
        seed=request.seed,
        max_tokens=request.max_tokens,
        min_tokens=min(sampling.min_tokens, request.max_tokens),
        logprobs=None if sampling.is_constrained else width,
        flat_logprobs=True,
        extra_args={ARRAYS_KEY: uses_arrays},
        detokenize=bool(sampling.stop),  # stop strings need text; without them the ids are enough
    )


def score_parameters(*, width: int, uses_arrays: bool) -> Any:
    """Return the parameters that make vLLM read a text and give `width` log-probabilities for each of its tokens."""
    from vllm import SamplingParams

    return SamplingParams(
        max_tokens=1,  # the least there is; the token is thrown away
        temperature=0.0,
        prompt_logprobs=width,
        flat_logprobs=True,
        extra_args={ARRAYS_KEY: uses_arrays},
        detokenize=False,
        output_kind=_final_only(),
    )


def check_parameters(sampling: Sampling, config: Any) -> None:
    """Let vLLM look at a sampling as it would at each request, before any of them fails.

    Raises:
        one of vllm_config.refusals: it is refused.
    """
    from vllm.tokenizers import cached_tokenizer_from_config

    tokenizer = cached_tokenizer_from_config(config.model_config)
    parameters = _of_sampling(sampling, stop_token_ids=list(sampling.stop_ids))
    parameters.update_from_tokenizer(tokenizer)
    parameters.verify(config.model_config, config.speculative_config, config.structured_outputs_config, tokenizer)


def _of_sampling(sampling: Sampling, **others: Any) -> Any:
    from vllm import SamplingParams

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        stop=list(sampling.stop),
        bad_words=list(sampling.bad_words),
        thinking_token_budget=sampling.max_think_tokens,
        logit_bias=dict(sampling.logit_bias) or None,
        structured_outputs=None if sampling.constraint is None else _structured(sampling.constraint),
        output_kind=_final_only(),
        **others,
    )


def _structured(constraint: Constraint) -> Any:
    from vllm.sampling_params import StructuredOutputsParams

    given = constraint.to_json()
    if "json_schema" in given:
        return StructuredOutputsParams(json=json.dumps(given["json_schema"]))
    if "regex" in given:
        return StructuredOutputsParams(regex=given["regex"])
    return StructuredOutputsParams(choice=given["choices"])


def _final_only() -> Any:
    from vllm.sampling_params import RequestOutputKind

    return RequestOutputKind.FINAL_ONLY
