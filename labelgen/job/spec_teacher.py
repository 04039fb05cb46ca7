"""The teacher that a run asks for, not started; and where its engine's log goes."""

from __future__ import annotations

from dataclasses import replace

from labelgen.job.spec import RunSpec
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.teacher import Teacher
from labelstore.store import open_writable_store

__all__ = ["engine_log_name", "load_replica_teacher", "load_teacher"]


def load_teacher(spec: RunSpec) -> Teacher:
    """Return the teacher of a job that labels in its own process."""
    return _vllm_teacher(spec, log_name=engine_log_name(spec))


def load_replica_teacher(spec: RunSpec, number: int) -> Teacher:
    """Return the teacher of a replica, with a log of its own."""
    return _vllm_teacher(spec, log_name=f".labelgen/logs/engine-replica-{number}.log")


def engine_log_name(spec: RunSpec) -> str:
    """Return the name of the engine's log in the dataset's folder: each part has its own."""
    part = "" if spec.part is None else f"-{spec.part.number}-of-{spec.part.count}"
    return f".labelgen/logs/engine{part}.log"


def _vllm_teacher(spec: RunSpec, *, log_name: str) -> Teacher:
    from labelgen.teachers.vllm_teacher import VLLMTeacher

    return VLLMTeacher(
        spec.teacher,
        selection=spec.selection,
        settings=_engine_settings(spec),
        log_path=open_writable_store(spec.output_dir).local_dir / log_name,
        for_scoring=spec.task == "score",
        chat_template=spec.chat_template,
    )


def _engine_settings(spec: RunSpec) -> EngineSettings:
    """Return how the engine is started: with the tokens whose distance it is to bound, where there is a budget."""
    if spec.think_tokens is None or spec.sampling.max_think_tokens is None:
        return spec.engine
    start, end = spec.think_tokens
    marks = {"reasoning_start_str": start, "reasoning_end_str": end}
    return replace(spec.engine, engine_args={**spec.engine.engine_args, "reasoning_config": marks})
