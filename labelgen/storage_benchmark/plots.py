"""The pictures: bytes against k, fidelity against bytes, where the bytes go, and what each codec loses.

Colours are those of Okabe and Ito, which colour-blind people tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from labelgen.storage_benchmark.rivals import REFERENCE
from labelgen.storage_benchmark.rows import StorageRow

__all__ = ["CODEC_COLOURS", "write_plots"]

CODEC_COLOURS = {"standard": "#0072B2", "small": "#009E73", "exact": "#E69F00", "open": "#D55E00"}
_STREAM_COLOURS = {
    "ids": "#0072B2",
    "values": "#56B4E9",
    "target_and_tail": "#009E73",
    "model": "#E69F00",
    "framing": "#999999",
}
_RIVAL_COLOUR = "#555555"
_SHOWN_RIVALS = {
    "int64 + float32 lists, as datasets writes": "int64 + float32 lists",
    REFERENCE: "int32 + float16, zstd-9",
    "order-0 entropy bound, 1/8 nat": "order-0 entropy bound",
}
_PIXELS_PER_INCH = 130
_FIDELITY_KEY = """\
● top-k   ■ mass   △ draws (the noise of one label; none on average)
yellow: the least that any k, mass and codec lose for the bytes"""


def write_plots(rows: Sequence[StorageRow], *, folder: Path) -> list[Path]:
    """Write the plots as PNG files; return their paths.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'labelgen[plot]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    teachers = list(dict.fromkeys(row.teacher_name for row in rows if row.dtype == "float32"))
    teachers = teachers or list(dict.fromkeys(row.teacher_name for row in rows))
    plots: dict[str, tuple[float, Callable[[Any, list[StorageRow]], None]]] = {
        "storage-bytes": (5.0, _draw_bytes),
        "storage-fidelity": (5.6, _draw_fidelity),
        "storage-streams": (2.9, _draw_streams),
        "storage-codec-loss": (4.6, _draw_codec_loss),
    }
    paths = []
    for name, (height, draw) in plots.items():
        figure = Figure(figsize=(max(6.4 * len(teachers), 8), height), layout="constrained", dpi=_PIXELS_PER_INCH)
        for axes, teacher in zip(figure.subplots(1, len(teachers), squeeze=False)[0], teachers, strict=True):
            axes.set_title(teacher, loc="left", fontweight="bold")
            axes.spines[["top", "right"]].set_visible(False)
            draw(axes, [row for row in rows if row.teacher_name == teacher])
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1])
    return paths


def _draw_bytes(axes: Any, rows: list[StorageRow]) -> None:
    """Bytes a label against k: a line for each codec, with the range of the kinds of text."""
    rows = [row for row in rows if row.selection_label.startswith("k=")]
    ks = sorted({_k(row) for row in rows})
    ends: list[tuple[float, str, str]] = []
    for method in dict.fromkeys(row.method for row in rows):
        same = [row for row in rows if row.method == method]
        if not (same[0].is_codec or method in _SHOWN_RIVALS):
            continue
        by_k = [[row.bytes_per_label for row in same if _k(row) == k] for k in ks]
        means = [fmean(sizes) for sizes in by_k]
        colour = _colour(same[0])
        axes.plot(ks, means, color=colour, marker="o", markersize=4, **_line_style(same[0]))
        if same[0].is_codec:
            axes.fill_between(
                ks, [min(one) for one in by_k], [max(one) for one in by_k], color=colour, alpha=0.18, linewidth=0
            )
        ends.append((means[-1], _SHOWN_RIVALS.get(method, method), colour))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    ticks = [2**i for i in range(2, 12)]
    lowest, highest = min(row.bytes_per_label for row in rows), max(size for size, _, _ in ends)
    axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_ylim(lowest / 1.3, highest * 1.3)
    axes.grid(alpha=0.25)
    axes.set_xlabel("candidates a label (k)")
    axes.set_ylabel("bytes a label, mean and range of kinds of text")
    _label_ends(axes, ends, x=ks[-1] * 1.12)
    axes.set_xlim(ks[0] * 0.9, ks[-1] * 5.5)


def _draw_fidelity(axes: Any, rows: list[StorageRow]) -> None:
    """What is lost against bytes: lower and more to the left is better; what lies off the front is never right."""
    points = []
    for method, label in dict.fromkeys((row.method, row.selection_label) for row in rows if row.is_codec):
        same = [row for row in rows if (row.method, row.selection_label) == (method, label)]
        points.append((fmean(row.bytes_per_label for row in same), fmean(row.loss_nats for row in same), same[0]))
    # One label's draws are noise that averages out, so they compete with each other only.
    front = _pareto_front((size, loss) for size, loss, row in points if row.draw_kl_nats is None)
    axes.plot(*zip(*front, strict=True), color="#F0E442", linewidth=8, zorder=0, solid_capstyle="round")
    for method in dict.fromkeys(row.method for _, _, row in points):
        for family, marker in (("k=", "o"), ("mass", "s"), ("draws", "^")):
            line = [point for point in points if point[2].method == method and family in point[2].selection_label]
            if line:
                colour = _colour(line[0][2])
                face = "white" if family == "draws" else colour
                sizes, losses = [size for size, _, _ in line], [loss for _, loss, _ in line]
                axes.plot(sizes, losses, color=colour, marker=marker, markersize=6, markerfacecolor=face, linewidth=1)
            if line and family == "k=":
                _write(axes, method, line[0][:2], shift=(-2, 8), color=colour, rotation=60, fontweight="bold")
    largest, smallest = (
        {label: end((p for p in points if p[2].selection_label == label), key=lambda p: p[0]) for label in labels}
        for end, labels in (
            (max, [row.selection_label for _, _, row in points if row.selection_label.startswith("k=")]),
            (min, [row.selection_label for _, _, row in points if not row.selection_label.startswith("k=")]),
        )
    )
    for label, (size, loss, _) in largest.items():
        _write(axes, label, (size, loss), shift=(8, 0), va="center")
    for label, (size, loss, _) in smallest.items():
        _write(axes, label, (size, loss), shift=(-8, 0), va="center", ha="right")
    axes.text(0.99, 0.98, _FIDELITY_KEY, transform=axes.transAxes, ha="right", va="top", fontsize=8.5)
    _set_log_axis(axes.xaxis, [5, 10, 20, 50, 100, 200, 500, 1_000, 2_000])
    _set_log_axis(axes.yaxis, [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2])
    axes.margins(x=0.2, y=0.4)
    axes.set_xlabel("bytes a label")
    axes.set_ylabel("KL of a stored label from the full distribution (nats)")


def _draw_streams(axes: Any, rows: list[StorageRow]) -> None:
    """Where the bytes go: a bar for each codec at k = 64."""
    rows = [row for row in rows if row.is_codec and row.selection_label == "k=64"]
    codecs = list(dict.fromkeys(row.method for row in rows))[::-1]
    widest = max(row.bytes_per_label for row in rows)
    for place, codec in enumerate(codecs):
        same = [row.bytes_per_label_by_stream for row in rows if row.method == codec]
        left, small = 0.0, []
        for stream, colour in _STREAM_COLOURS.items():
            size = fmean(one.get(stream, 0.0) for one in same)
            axes.barh(place, size, left=left, color=colour, edgecolor="white", linewidth=0.6, height=0.72)
            if size > 0.15 * widest:
                ink = "white" if stream == "ids" else "black"
                axes.text(
                    left + size / 2,
                    place,
                    f"{stream.replace('_', ' ')} {size:.0f}",
                    ha="center",
                    va="center",
                    color=ink,
                )
            elif size >= 0.05:
                small.append(f"{stream.replace('_', ' ')} {size:.1f}")
            left += size
        _write(axes, f"{left:.1f}", (left, place), shift=(6, 0), va="center", fontsize=11, fontweight="bold")
        _write(axes, ", ".join(small), (left, place), shift=(46, 0), va="center", fontsize=8)
    axes.set_yticks(range(len(codecs)), codecs)
    axes.set_xlim(0, widest * 1.75)
    axes.set_xlabel("bytes a label at k = 64, without the hard labels")


def _draw_codec_loss(axes: Any, rows: list[StorageRow]) -> None:
    """What storing alone loses, against bytes, at k = 64: every method is a point."""
    lowest = 1e-8  # what loses nothing is drawn here
    for method in dict.fromkeys(row.method for row in rows):
        same = [row for row in rows if row.method == method and row.selection_label == "k=64" and row.codec_kl_nats]
        if not same or not (same[0].is_codec or method in _SHOWN_RIVALS or "bit-packed" in method):
            continue
        size = fmean(row.bytes_per_label for row in same)
        loss = max(fmean(row.codec_kl_nats.mean for row in same if row.codec_kl_nats), lowest)
        colour, weight = _colour(same[0]), "bold" if same[0].is_codec else "normal"
        axes.plot(size, loss, marker="o" if same[0].is_codec else "D", color=colour, markersize=7)
        name = f"{_SHOWN_RIVALS.get(method, method)}: {size:.0f}"
        _write(axes, name, (size, loss), shift=(2, 9), color=colour, rotation=30, fontweight=weight)
    _set_log_axis(axes.xaxis, [20, 50, 100, 200, 500])
    ticks = [10.0**exponent for exponent in range(-8, -1)]
    axes.set_yscale("log")
    axes.set_yticks(ticks, ["none", *(f"$10^{{{exponent}}}$" for exponent in range(-7, -1))])
    axes.set_ylim(lowest / 2, 3e-2)
    axes.minorticks_off()
    axes.margins(x=0.3)
    axes.grid(alpha=0.25)
    axes.set_xlabel("bytes a label at k = 64")
    axes.set_ylabel("mean codec KL (nats)")


def _write(axes: Any, text: str, place: tuple[float, float], *, shift: tuple[float, float], **style: Any) -> None:
    """Write a label beside a point, `shift` points away."""
    axes.annotate(text, place, xytext=shift, textcoords="offset points", **{"fontsize": 8.5, **style})


def _set_log_axis(axis: Any, ticks: Sequence[float]) -> None:
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_ticks(ticks, [f"{tick:,g}" for tick in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.25)


def _pareto_front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other one beats in both size and loss, by rising size."""
    front: list[tuple[float, float]] = []
    for size, loss in sorted(points):
        if not front or loss < front[-1][1]:
            front.append((size, loss))
    return front


def _label_ends(axes: Any, ends: Sequence[tuple[float, str, str]], *, x: float) -> None:
    """Write names at the ends of lines on a logarithmic axis, moved apart where they would touch."""
    smallest_ratio = 1.22
    lowest = 0.0
    for y, name, colour in sorted(ends):
        y = max(y, lowest * smallest_ratio)
        axes.text(x, y, name, color=colour, va="center", fontsize=9, fontweight="bold")
        lowest = y


def _colour(row: StorageRow) -> str:
    return CODEC_COLOURS.get(row.method, "#000000") if row.is_codec else _RIVAL_COLOUR


def _line_style(row: StorageRow) -> dict[str, Any]:
    if row.is_codec:
        return {"linewidth": 2.2}
    return {"linewidth": 1.2, "linestyle": ":" if "bound" in row.method else "--"}


def _k(row: StorageRow) -> int:
    return int(row.selection_label.removeprefix("k="))
