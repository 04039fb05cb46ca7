"""How far stored labels may be from the teacher's of now: no difference below the engine's noise means anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labelstore.rescored import Rescored

__all__ = ["Limits"]

_TIMES_THE_FLOOR = 3.0  # the floor was measured on some records; others, in other batches, may be a little noisier
_FLOAT32_LEAST_NATS = 1e-3  # float32 engines differ by 1e-4 at the 99.9th percentile (parity-2026-11-24.md)
_OTHER_LEAST_NATS = 2e-2
# Where no job has measured the floor. Logits of 16 to 32 are 1/8 apart in bfloat16, and a step more or less for one of
# 64 candidates is common; a shift is off by several nats. Not measured on a GPU; on a CPU such an engine repeats
# itself.
_OTHER_DEFAULT = (0.5, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What labels' differences may be at most, in nats."""

    median_nats: float
    p999_nats: float
    origin: str  # where these numbers come from, for people

    @classmethod
    def of(cls, fingerprint_fields: Mapping[str, Any], floor: Rescored | None) -> Limits:
        """Derive them from what a job's end has measured, or else from the teacher's precision."""
        is_float32 = {fingerprint_fields.get("dtype", "float32")} == {"float32"}
        if floor is not None and floor.agrees and floor.num_labels:
            least = _FLOAT32_LEAST_NATS if is_float32 else _OTHER_LEAST_NATS
            return cls(
                median_nats=max(least / 5, _TIMES_THE_FLOOR * floor.median_nats),
                p999_nats=max(least, _TIMES_THE_FLOOR * floor.p999_nats),
                origin=f"{_TIMES_THE_FLOOR:g} times the noise that the job measured at its end, or {least:g} nats",
            )
        median, p999 = (_FLOAT32_LEAST_NATS / 5, _FLOAT32_LEAST_NATS) if is_float32 else _OTHER_DEFAULT
        return cls(median_nats=median, p999_nats=p999, origin="the teacher's precision; no job has measured its noise")
