"""The picture that says which labels to buy: bytes a label against how near to the teacher a student comes.

Colours are those of Okabe and Ito, which colour-blind people tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from student_gain.rows import FULL, HARD, MethodRow

__all__ = ["write_plot"]

_PIXELS_PER_INCH = 130
_COLOURS = {"hard": "#555555", "top-k": "#0072B2", "draws": "#D55E00", "mass": "#009E73", "other": "#E69F00"}
_TICKS = [5, 10, 20, 50, 100, 200, 500]  # bytes


def write_plot(rows: Sequence[MethodRow], *, path: Path, title: str) -> None:
    """Write the picture as a PNG file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'labelgen[plot]'") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(8, 5), layout="constrained", dpi=_PIXELS_PER_INCH)
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    shown = [row for row in rows if row.method != FULL]
    _draw_line(axes, [row for row in shown if _family(row) == "top-k"], "top-k")
    _draw_line(axes, [row for row in shown if _family(row) == "draws"], "draws")
    for row in shown:
        _draw_point(axes, row)
    for row in rows:
        if row.method == FULL:
            _draw_bound(axes, row)
    axes.set_xscale("log")
    axes.set_xticks(_TICKS, [str(tick) for tick in _TICKS])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.margins(x=0.2, y=0.12)
    axes.set_xlabel("bytes a label on disk, hard columns included")
    axes.set_ylabel("KL of the student from the teacher on held-out text (nats)")
    figure.savefig(path)


def _draw_line(axes: Any, rows: Sequence[MethodRow], family: str) -> None:
    places = sorted((row.bytes_per_label, row.mean["kl_nats"]) for row in rows)
    if places:
        axes.plot(*zip(*places, strict=True), color=_COLOURS[family], linewidth=1.2, zorder=1)


def _draw_point(axes: Any, row: MethodRow) -> None:
    colour, place = _COLOURS[_family(row)], (row.bytes_per_label, row.mean["kl_nats"])
    axes.errorbar(*place, yerr=row.spread["kl_nats"], color=colour, marker="o", markersize=6, capsize=3, zorder=2)
    axes.annotate(
        row.method,
        place,
        # Variants of a selection stand beside its plain labels: their names go to the other side.
        xytext=(-7, -22) if _family(row) == "other" else (7, 6),
        ha="right" if _family(row) == "other" else "left",
        textcoords="offset points",
        fontsize=9,
        color=colour,
        fontweight="bold" if row.method == HARD else "normal",
    )


def _draw_bound(axes: Any, row: MethodRow) -> None:
    """The full distribution's students: a line, as its bytes are off the page."""
    height, spread = row.mean["kl_nats"], row.spread["kl_nats"] or 0.0
    axes.axhspan(height - spread, height + spread, color="#999999", alpha=0.25, linewidth=0)
    axes.axhline(height, color="#555555", linewidth=1, linestyle="--")
    axes.annotate(
        f"full distribution: {row.bytes_per_label:,.0f} bytes",
        (1, height),
        xycoords=("axes fraction", "data"),
        xytext=(-4, -5),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=9,
        color="#555555",
    )


def _family(row: MethodRow) -> str:
    if row.method == HARD:
        return "hard"
    name = row.method.split("=")[0]
    return {"k": "top-k" if "," not in row.method else "other"}.get(name, name)
