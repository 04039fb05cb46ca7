"""How a response is sampled. It shapes which tokens the teacher writes, never what it is recorded to believe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Sampling", "SamplingChoice"]

_NEUTRAL = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The values in force; 0 as top_k and min_p, and 1 as top_p, switch the filter off. Temperature 0 is greedy."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    stop: tuple[str, ...] = ()  # strings that end a response

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "stop": list(self.stop)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingChoice:
    """What the user asked for; None leaves a value to the model's generation_config."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 <= self.temperature < float("inf"):
            raise ValueError(f"--temperature must be at least 0, got {self.temperature}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"--sampling-top-p must be in (0, 1], got {self.top_p}")
        if self.top_k is not None and self.top_k < 0:
            raise ValueError(f"--sampling-top-k must be at least 0 (0: off), got {self.top_k}")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"--sampling-min-p must be in [0, 1], got {self.min_p}")
        if "" in self.stop:
            raise ValueError("--stop must not be empty")

    def resolve(self, defaults: Mapping[str, float]) -> tuple[Sampling, dict[str, str]]:
        """Return the values in force over the model's defaults, and where each of them comes from."""
        asked = {name: value for name, value in asdict(self).items() if name in _NEUTRAL and value is not None}
        known = {name: value for name, value in defaults.items() if name in _NEUTRAL}
        values: dict[str, Any] = {**_NEUTRAL, **known, **asked}
        origins = {
            name: "option" if name in asked else "generation_config" if name in known else "neutral" for name in values
        }
        numbers: dict[str, Any] = {name: float(value) for name, value in values.items()}  # 1 and 1.0 are one setting
        numbers["top_k"] = max(int(values["top_k"]), 0)
        return Sampling(stop=self.stop, **numbers), origins
