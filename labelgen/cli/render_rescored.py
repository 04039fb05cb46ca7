"""What letting the teacher read records again came to, as rows and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labelstore.rescored import Rescored

__all__ = ["rescored_rows", "rescored_values"]


def rescored_rows(rescored: Rescored | None) -> dict[str, str]:
    """Return the row of a table: how near the labels are to what the teacher says now."""
    if rescored is None:
        return {}
    if not rescored.num_records:
        return {"rescored": "no record: none has a label among the tokens that this engine has memory to read"}
    argmax = f"most likely token: {rescored.num_argmax_equal:,} the same"
    if rescored.num_argmax_tied:
        argmax += f", {rescored.num_argmax_tied:,} tied"
    if rescored.num_argmax_different:
        argmax += f", {rescored.num_argmax_different:,} different"
    difference = f"off by {rescored.median_nats:.1e} nats (median), {rescored.p999_nats:.1e} (p99.9)"
    if not rescored.largest_nats:
        difference = "no difference beyond the codec's rounding"
    sign = "✓" if rescored.agrees else "✗"
    return {
        "rescored": f"{sign} {rescored.num_records:,} records, {rescored.num_labels:,} labels: "
        f"{difference}, KL {rescored.kl_nats:.1e} nats; {argmax}"
    }


def rescored_values(rescored: Rescored | None) -> dict[str, Any] | None:
    """Return the same for --json."""
    if rescored is None:
        return None
    return {
        "agrees": rescored.agrees,
        "records": rescored.num_records,
        "labels": rescored.num_labels,
        "median_nats": rescored.median_nats,
        "p999_nats": rescored.p999_nats,
        "largest_nats": rescored.largest_nats,
        "kl_nats": rescored.kl_nats,
        "argmax_equal": rescored.num_argmax_equal,
        "argmax_tied": rescored.num_argmax_tied,
        "argmax_different": rescored.num_argmax_different,
        "problems": list(rescored.problems),
        "at": rescored.created_at,
    }
