"""Which selection and codec to take of those that were projected, under a budget or a bound on the loss, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from labelgen.plan.projection import Projection

__all__ = ["Choice", "choose", "parse_bytes"]

_UNITS = {
    "": 1,
    "B": 1,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to take, or why nothing will do."""

    chosen: Projection | None
    reason: str


def choose(
    projections: Sequence[Projection], *, budget_bytes: float | None = None, max_kl_nats: float | None = None
) -> Choice:
    """Return the choice under a budget: the one that loses least; under a bound on either loss alone: the smallest.

    A projection must fit with the upper end of its interval. The two losses are compared apart, truncation's first.
    """
    fitting = list(projections)
    if budget_bytes is not None:
        fitting = [each for each in fitting if each.high / each.bytes_per_label * each.num_bytes <= budget_bytes]
        if not fitting:
            least = min(projections, key=lambda each: each.num_bytes)
            return Choice(
                chosen=None,
                reason=f"nothing fits {_in_gb(budget_bytes)}: the smallest, {least.selection} with --codec "
                f"{least.codec}, takes {_in_gb(least.num_bytes)}; label fewer prompts",
            )
    if max_kl_nats is not None:
        fitting = [each for each in fitting if max(each.truncation_kl_nats, each.codec_kl_nats) <= max_kl_nats]
        if not fitting:
            within = "within the budget, " if budget_bytes is not None else ""
            best = min(each.truncation_kl_nats for each in projections)
            return Choice(
                chosen=None,
                reason=f"{within}nothing keeps both losses at or below {max_kl_nats:g} nats; the least truncation KL "
                f"here is {best:.3g}: keep more, or probe with a larger --probe-top-k",
            )
        chosen = min(fitting, key=lambda each: each.num_bytes)
        return Choice(chosen=chosen, reason=f"the smallest of {len(fitting)} that lose at most {max_kl_nats:g} nats")
    chosen = min(fitting, key=lambda each: (each.truncation_kl_nats, each.codec_kl_nats, each.num_bytes))
    return Choice(chosen=chosen, reason=f"of {len(fitting)} that fit, it loses least by truncation, then by its codec")


def _in_gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:,.3f}".rstrip("0").rstrip(".") + " GB"


def parse_bytes(text: str) -> float:
    """Read `500GB`, `1.5TB` or `200GiB`.

    Raises:
        ValueError: it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    units = {name.lower(): size for name, size in _UNITS.items()}
    if match is None or match[2].lower() not in units:
        raise ValueError(f"--budget must be a size such as 500GB or 1.5TB, got {text!r}")
    return float(match[1]) * units[match[2].lower()]
