"""A plan as a picture: bytes a label against what is left out, for every selection and codec."""

from __future__ import annotations

from pathlib import Path

from labelgen.plan.plan import Plan
from labelgen.storage_benchmark.plots import CODEC_COLOURS

__all__ = ["plot_plan"]


def plot_plan(plan: Plan, path: Path) -> None:
    """Write the picture.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("--plot needs matplotlib: pip install 'labelgen[plot]'") from error
    figure = Figure(figsize=(8, 5), layout="constrained", dpi=130)
    axes = figure.subplots()
    for codec, colour in CODEC_COLOURS.items():
        rows = [row for row in plan.projections if row.codec == codec and row.selection.top_k is not None]
        sizes = [row.bytes_per_label for row in rows]
        losses = [row.truncation_kl_nats for row in rows]
        errors = [[row.bytes_per_label - row.low for row in rows], [row.high - row.bytes_per_label for row in rows]]
        axes.errorbar(sizes, losses, xerr=errors, marker="o", color=colour, label=codec, capsize=2)
        by_mass = [row for row in plan.projections if row.codec == codec and row.selection.keep_mass is not None]
        axes.scatter(
            [row.bytes_per_label for row in by_mass],
            [row.truncation_kl_nats for row in by_mass],
            marker="s",
            color=colour,
        )
    for row in plan.projections:
        if row.codec == "standard":
            name = f"k={row.selection.top_k}" if row.selection.top_k else f"mass {row.selection.keep_mass}"
            place = (row.bytes_per_label, row.truncation_kl_nats)
            axes.annotate(name, place, xytext=(4, 4), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="bytes a label, everything included", ylabel="truncation KL, nats")
    axes.set_title(f"{plan.teacher}: {plan.num_labels:,} labels, planned from {plan.num_probed_labels:,}")
    axes.legend(title="codec (squares: by mass)")
    axes.grid(visible=True, which="both", alpha=0.2)
    figure.savefig(path)
