"""A run as the options that would ask for it: what a job file holds."""

from __future__ import annotations

from typing import Any

from labelgen.job.spec import RunSpec
from labelgen.teachers.constraint import Constraint

__all__ = ["job_file_bytes", "job_options"]


def job_options(spec: RunSpec) -> dict[str, Any]:
    """Return a run's settings by the names of the command line's options; those without a value are left out."""
    fields, engine, sampling, sample = spec.fields, spec.engine, spec.sampling, spec.sample
    options: dict[str, Any] = {
        "prompts" if spec.task == "generate" else "texts": list(spec.sources),
        "output": str(spec.output_dir),
        "block_size": spec.block_size,
        "journal_dir": None if spec.journal_dir is None else str(spec.journal_dir),
        "flush_seconds": spec.flush_seconds,
        "grace_seconds": spec.grace_seconds,
        "replicas": spec.replicas,
        "ray": spec.ray,
        "max_rejects": None if spec.max_rejects is None else str(spec.max_rejects),
        "rescore_at_end": spec.rescore_at_end,
        "teacher": spec.teacher,
        "dtype": engine.dtype,
        "head_dtype": engine.head_dtype,
        "max_model_len": engine.max_model_len,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "tensor_parallel_size": engine.tensor_parallel_size,
        "pipeline_parallel_size": engine.pipeline_parallel_size,
        "expert_parallel": engine.expert_parallel or None,
        "adapter": engine.adapter,
        "engine_arg": dict(engine.engine_args),
        "id_field": fields.prompt_id,
        "template": None if fields.template is None else {"text": fields.template.text},
        "column": list(fields.columns),
        "prompt_field": fields.prompt,
        "messages_field": fields.messages,
        "system": fields.system,
        "chat": fields.as_chat or None,
        "chat_template": None if spec.chat_template.text is None else {"text": spec.chat_template.text},
        "chat_template_arg": dict(spec.chat_template.arguments),
        "limit": spec.limit,
        "sample_prompts": None if sample is None else sample.size,
        "sample_seed": None if sample is None else sample.seed,
        "label_spans": spec.label_spans,
        "keep_positions": None if spec.keep_positions is None else str(spec.keep_positions),
        **spec.selection.to_json(),
        "codec": spec.codec,
    }
    if spec.task == "score":
        options |= {"text_field": fields.text, "completion_field": fields.completion, "stride": spec.stride}
    else:
        options |= {
            "responses": spec.responses,
            "max_tokens": spec.max_tokens,
            "prefill": spec.prefill,
            "think_tokens": None if spec.think_tokens is None else list(spec.think_tokens),
            "max_think_tokens": sampling.max_think_tokens,
            "temperature": sampling.temperature,
            "sampling_top_p": sampling.top_p,
            "sampling_top_k": sampling.top_k,
            "sampling_min_p": sampling.min_p,
            "stop": list(sampling.stop),
            "stop_id": list(sampling.stop_ids),
            "min_tokens": sampling.min_tokens or None,
            "bad_word": list(sampling.bad_words),
            "logit_bias": {str(token_id): bias for token_id, bias in sampling.logit_bias.items()},
            **_constraint_options(sampling.constraint),
            "seed": spec.seed,
        }
    return {name: value for name, value in options.items() if value is not None and value != [] and value != {}}


def _constraint_options(constraint: Constraint | None) -> dict[str, Any]:
    if constraint is None:
        return {}
    schema = constraint.json_schema
    return {
        "json_schema": None if schema is None else {"text": schema},
        "regex": constraint.regex,
        "choice": list(constraint.choices),
    }


def job_file_bytes(spec: RunSpec) -> bytes:
    """Return the job file that asks for the run again: `labelgen generate -c FILE`, or `score`."""
    import yaml

    text = yaml.safe_dump(job_options(spec), sort_keys=False, allow_unicode=True)
    return f"# labelgen {spec.task} -c FILE\n{text}".encode()
