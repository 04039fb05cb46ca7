"""All that changes a label, by name. Another fingerprint is another dataset."""

from __future__ import annotations

import hashlib
from typing import Any

from labelgen.job.spec import RunSpec
from labelgen.prompts.thinking import ThinkTokens
from labelgen.prompts.windows import window_stride
from labelgen.teachers.sampling import Sampling
from labelgen.teachers.teacher import TeacherFacts

__all__ = ["fingerprint_fields", "response_seed"]


def fingerprint_fields(
    spec: RunSpec, facts: TeacherFacts, sampling: Sampling, *, think_tokens: ThinkTokens | None = None
) -> dict[str, Any]:
    """Return the fields: the teacher's own (weights, precision, tokenizer, template, lengths) and the job's.

    Neither the prompt set, limits and the number of responses, nor codec and block size are among them: they decide
    which records there are, not what a record says. `label_spans` and `keep_positions` are: the same record would have
    other labels.
    """
    generating = {
        "stop_ids": sorted({*facts.stop_ids, *sampling.stop_ids}),
        "sampling": sampling.to_json(),
        "run_seed": spec.seed,
        "max_tokens": spec.max_tokens,
        **({} if think_tokens is None else {"think_tokens": [think_tokens.start_id, think_tokens.end_id]}),
        **({} if spec.prefill is None else {"prefill": spec.prefill}),
    }
    return {
        "task": spec.task,
        "selection": spec.selection.to_json(),
        "label_spans": spec.label_spans,
        **({} if spec.keep_positions is None else {"keep_positions": str(spec.keep_positions)}),
        **facts.fingerprint_fields,
        **(generating if spec.task == "generate" else {"stride": _stride(spec, facts)}),
    }


def _stride(spec: RunSpec, facts: TeacherFacts) -> int:
    """Return how far a window of a text reaches beyond the one before: it decides how much stands before a label."""
    num_lead = len(facts.fingerprint_fields.get("tokenizer_lead_ids", ()))
    return window_stride(spec.stride, max_tokens=facts.max_model_len - 1, num_lead=num_lead)


def response_seed(run_seed: int, prompt_id: str, response_index: int) -> int:
    """Return the seed of one response in [0, 2^63): neither order nor batch changes which one it gets.

    vLLM's own rule (seed + index for the responses of one prompt) makes neighbouring prompts share seeds.
    """
    digest = hashlib.blake2b(f"{run_seed}\0{prompt_id}\0{response_index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
