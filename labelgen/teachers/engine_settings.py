"""How a teacher is loaded and run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["EngineSettings"]

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Settings of the engine; None leaves a value to it."""

    dtype: str | None = None  # of weights and activations; None: float32 on a CPU, else the model's own
    head_dtype: str | None = None  # of the output layer; float32 breaks the ties that a bfloat16 head makes
    max_model_len: int | None = None  # tokens, prompt and response together
    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    expert_parallel: bool = False
    adapter: str | None = None  # a LoRA adapter: a folder, or a hub name
    engine_args: Mapping[str, Any] = field(default_factory=dict)  # vLLM's own, by name, as JSON values

    def __post_init__(self) -> None:
        for name, dtype in (("--dtype", self.dtype), ("--head-dtype", self.head_dtype)):
            if dtype is not None and dtype not in DTYPES:
                raise ValueError(f"{name} must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if self.max_model_len is not None and self.max_model_len < 2:
            raise ValueError(f"--max-model-len must be at least 2 tokens, got {self.max_model_len}")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(f"--gpu-memory-utilization must be in (0, 1], got {self.gpu_memory_utilization}")
        for name in ("tensor_parallel_size", "pipeline_parallel_size"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
