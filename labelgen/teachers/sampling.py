"""How a response is sampled. It shapes which tokens the teacher writes, never what it is recorded to believe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labelgen.teachers.constraint import Constraint

__all__ = ["Sampling", "SamplingChoice"]

_MAX_BIAS = 100.0  # vLLM's own bound
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
    stop_ids: tuple[int, ...] = ()  # token ids that end it, besides the teacher's own
    min_tokens: int = 0  # in a response, before anything may end it
    bad_words: tuple[str, ...] = ()  # that a response must not hold
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # added to the logits of some ids
    constraint: Constraint | None = None  # the form that it must have
    max_think_tokens: int | None = None  # the engine ends the thinking of a reasoning teacher behind so many

    @property
    def is_constrained(self) -> bool:
        """Are tokens masked or favoured? Then labels come from reading the finished response, not from writing it."""
        return bool(self.bad_words or self.logit_bias or self.constraint)

    def to_json(self) -> dict[str, Any]:
        """Return the values as JSON has them; of those that most jobs do without, the ones that are set."""
        optional = {
            "stop_ids": list(self.stop_ids),
            "min_tokens": self.min_tokens,
            "bad_words": list(self.bad_words),
            "logit_bias": {str(token_id): bias for token_id, bias in sorted(self.logit_bias.items())},
            "max_think_tokens": self.max_think_tokens,
            "constraint": None if self.constraint is None else self.constraint.to_json(),
        }
        numbers = {name: getattr(self, name) for name in _NEUTRAL}
        return {**numbers, "stop": list(self.stop), **{name: value for name, value in optional.items() if value}}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingChoice:
    """What the user asked for; None leaves a value to the model's generation_config."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    bad_words: tuple[str, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    constraint: Constraint | None = None
    max_think_tokens: int | None = None

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
        if "" in self.bad_words:
            raise ValueError("--bad-word must not be empty")
        if self.max_think_tokens is not None and self.max_think_tokens < 1:
            raise ValueError(f"--max-think-tokens must be at least 1, got {self.max_think_tokens}")
        if self.min_tokens < 0:
            raise ValueError(f"--min-tokens must be at least 0, got {self.min_tokens}")
        for option, ids in (("--stop-id", self.stop_ids), ("--logit-bias", tuple(self.logit_bias))):
            if (negative := [token_id for token_id in ids if token_id < 0]) != []:
                raise ValueError(f"{option}: a token id is at least 0, got {negative[0]}")
        for token_id, bias in self.logit_bias.items():
            if not -_MAX_BIAS <= bias <= _MAX_BIAS:
                raise ValueError(f"--logit-bias {token_id}={bias}: must be in [-{_MAX_BIAS:.0f}, {_MAX_BIAS:.0f}]")

    def resolve(self, defaults: Mapping[str, float]) -> tuple[Sampling, dict[str, str]]:
        """Return the values in force over the model's defaults, and where each of them comes from."""
        choices = {name: getattr(self, name, None) for name in _NEUTRAL}
        asked = {name: value for name, value in choices.items() if value is not None}
        known = {name: value for name, value in defaults.items() if name in _NEUTRAL}
        values: dict[str, Any] = {**_NEUTRAL, **known, **asked}
        origins = {
            name: "option" if name in asked else "generation_config" if name in known else "neutral" for name in values
        }
        numbers: dict[str, Any] = {name: float(value) for name, value in values.items()}  # 1 and 1.0 are one setting
        numbers["top_k"] = max(int(values["top_k"]), 0)
        given = ("stop", "stop_ids", "min_tokens", "bad_words", "logit_bias", "constraint", "max_think_tokens")
        return Sampling(**{name: getattr(self, name) for name in given}, **numbers), origins
