"""A dataset's own teacher, loaded as its header says, and what of it is not as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labelgen.prompts.chat_template import ChatTemplate
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.selecting import head_width
from labelgen.teachers.teacher import Teacher, TeacherFacts
from labelstore.header import Header
from labelstore.selection import Selection

__all__ = ["find_changes", "load_own_teacher"]

_HEAD_BESIDE_DRAWS = 256  # most likely tokens to look for drawn ones among; draws cannot be repeated
_MEANINGS = {
    "weights": "another model",
    "model_config": "another model",
    "adapter": "another model",
    "quantization": "another precision",
    "dtype": "another precision",
    "head_dtype": "another precision",
    "kv_cache_dtype": "another precision",
    "config_overrides": "another precision",
    "engine_args": "another way of computing",
    "vocab_size": "another model",
    "max_model_len": "another context",
    "tokenizer": "another tokenizer",
    "tokenizer_lead_ids": "another tokenizer",
    "chat_template": "another template",
    "chat_template_args": "another template",
}


def load_own_teacher(
    header: Header,
    *,
    teacher: str | None,
    adapter: str | None,
    chat_template: str | None,
    log_path: Path,
    gpu_memory_utilization: float,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    expert_parallel: bool,
) -> Teacher:
    """Return the teacher that a header names, in the precision that it states.

    `teacher` is where it is now, `adapter` where its adapter is, of which the header has the hash, `chat_template` the
    text of the one that the job was given in place of the teacher's own.

    Raises:
        ImportError: the engine is not installed.
        ValueError: there is no such model, no adapter where there was one, or vLLM cannot run it.
    """
    from labelgen.teachers.vllm_teacher import VLLMTeacher

    fields = header.fingerprint_fields
    if fields.get("adapter") is not None and adapter is None:
        raise ValueError("the dataset's teacher had an adapter; say with --adapter where it is")
    overrides = dict(fields.get("config_overrides") or {})
    head_dtype = overrides.pop("head_dtype", None)
    engine_args = {**(fields.get("engine_args") or {}), **({"hf_overrides": overrides} if overrides else {})}
    return VLLMTeacher(
        teacher or header.teacher,
        selection=_selection(header.selection, vocab_size=header.vocab_size),
        settings=EngineSettings(
            dtype=fields.get("dtype"),
            head_dtype=head_dtype,
            max_model_len=fields.get("max_model_len"),
            gpu_memory_utilization=gpu_memory_utilization,
            tensor_parallel_size=tensor_parallel_size,
            pipeline_parallel_size=pipeline_parallel_size,
            expert_parallel=expert_parallel,
            adapter=adapter,
            engine_args=engine_args,
        ),
        log_path=log_path,
        for_scoring=True,
        chat_template=ChatTemplate(text=chat_template, arguments=fields.get("chat_template_args") or {}),
    )


def find_changes(header: Header, facts: TeacherFacts) -> list[str]:
    """Return in which fields of the fingerprint a teacher is not the one that a header states, and what that means."""
    stated: dict[str, Any] = dict(header.fingerprint_fields)
    return [
        f"{_MEANINGS.get(name, 'another teacher')}: {name} is {_shown(value)}, the dataset's header says "
        f"{_shown(stated[name])}"
        for name, value in facts.fingerprint_fields.items()
        if name in stated and stated[name] != value
    ]


def _selection(selection: Selection, *, vocab_size: int) -> Selection:
    """Return what to ask the teacher for, so that most of what a selection has kept can be found in it."""
    width = head_width(selection)
    if selection.draws is not None:
        width = max(width, _HEAD_BESIDE_DRAWS)
    return Selection(top_k=min(width, vocab_size))


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}..."
