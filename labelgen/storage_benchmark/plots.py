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
from labelgen.storage_benchmark.streams import STREAMS

__all__ = ["write_plots"]

_CODEC_COLOURS = {"standard": "#0072B2", "small": "#009E73", "exact": "#E69F00", "open": "#D55E00"}
_STREAM_COLOURS = {
    "ids": "#0072B2",
    "values": "#56B4E9",
    "draw counts": "#CC79A7",
    "target and tail": "#009E73",
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
        "storage-fidelity": (5.4, _draw_fidelity),
        "storage-streams": (2.6, _draw_streams),
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
    ticks = [2**i for i in range(3, 13)]
    axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_ylim(8, None)
    axes.grid(alpha=0.25)
    axes.set_xlabel("candidates a label (k)")
    axes.set_ylabel("bytes a label, mean and range of kinds of text")
    _label_ends(axes, ends, x=ks[-1] * 1.12)
    axes.set_xlim(ks[0] * 0.9, ks[-1] * 4.2)


def _draw_fidelity(axes: Any, rows: list[StorageRow]) -> None:
    """What is lost against bytes: the lower left is better; what lies off the front is never right."""
    points: list[tuple[float, float, StorageRow]] = []
    for method, label in dict.fromkeys((row.method, row.selection_label) for row in rows):
        same = [row for row in rows if (row.method, row.selection_label) == (method, label)]
        if same[0].is_codec or method == REFERENCE:
            size, loss = fmean(row.bytes_per_label for row in same), fmean(row.loss_nats for row in same)
            points.append((size, loss, same[0]))
    codecs = [point for point in points if point[2].is_codec]
    front = _pareto_front([(size, loss) for size, loss, _ in codecs])
    axes.plot(*zip(*front, strict=True), color="#F0E442", linewidth=7, zorder=0, solid_capstyle="round")
    for method in dict.fromkeys(row.method for _, _, row in points):
        for prefix, marker in (("k=", "o"), ("mass", "s"), ("draws", "^")):
            family = [point for point in points if point[2].method == method and prefix in point[2].selection_label]
            colour = _colour(family[0][2])
            sizes, losses = [size for size, _, _ in family], [loss for _, loss, _ in family]
            style = {**_line_style(family[0][2]), "linewidth": 1.0}
            filled = "none" if prefix == "draws" else colour
            axes.plot(
                sizes, losses, color=colour, marker=marker, markersize=6, markerfacecolor=filled, zorder=2, **style
            )
        top = [point for point in points if point[2].method == method and point[2].selection_label.startswith("k=")]
        name = _SHOWN_RIVALS.get(method, method)
        axes.annotate(
            name, top[-1][:2], xytext=(8, -4), textcoords="offset points", color=_colour(top[-1][2]), fontweight="bold"
        )
    first = codecs[0][2].method
    for size, loss, row in codecs:
        if row.method == first:
            axes.annotate(
                row.selection_label,
                (size, loss),
                xytext=(6, 5),
                textcoords="offset points",
                fontsize=8,
                color="#333333",
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = [10, 20, 50, 100, 200, 500, 1_000, 2_000]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.margins(x=0.16)
    axes.grid(alpha=0.25)
    axes.set_xlabel("bytes a label")
    axes.set_ylabel("KL of one stored label from the full distribution (nats)")


def _draw_streams(axes: Any, rows: list[StorageRow]) -> None:
    """Where the bytes go: a bar for each codec at k = 64."""
    rows = [row for row in rows if row.is_codec and row.selection_label == "k=64"]
    codecs = list(dict.fromkeys(row.method for row in rows))[::-1]
    widest = max(row.bytes_per_label for row in rows)
    for place, codec in enumerate(codecs):
        same = [row.bytes_per_label_by_stream for row in rows if row.method == codec]
        left = 0.0
        for stream in STREAMS:
            size = fmean(one.get(stream, 0.0) for one in same)
            if stream == "hard labels" or size < 0.005:
                continue
            colour = _STREAM_COLOURS[stream]
            axes.barh(place, size, left=left, color=colour, edgecolor="white", linewidth=0.8, height=0.7)
            if size > 0.1 * widest:
                axes.text(left + size / 2, place, f"{stream}\n{size:.0f}", ha="center", va="center", fontsize=9)
            elif place == len(codecs) - 1 and size > 0.005 * widest:
                axes.annotate(
                    f"{stream} {size:.1f}",
                    (left + size / 2, place + 0.35),
                    xytext=(0, 8),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color=colour,
                )
            left += size
        axes.text(left + 0.01 * widest, place, f"{left:.1f}", va="center", fontweight="bold")
    axes.set_yticks(range(len(codecs)), codecs)
    axes.set_xlim(0, widest * 1.12)
    axes.set_ylim(-0.6, len(codecs) - 0.2)
    axes.set_xlabel("bytes a label at k = 64, without the hard labels")


def _draw_codec_loss(axes: Any, rows: list[StorageRow]) -> None:
    """What storing alone loses, against bytes, at k = 64: every method is a point."""
    rows = [row for row in rows if row.selection_label == "k=64" and row.codec_kl_nats is not None]
    lowest = 1e-8  # what loses nothing is drawn here
    for method in dict.fromkeys(row.method for row in rows):
        same = [row for row in rows if row.method == method]
        size = fmean(row.bytes_per_label for row in same)
        loss = fmean(row.codec_kl_nats.mean for row in same if row.codec_kl_nats)
        colour = _colour(same[0])
        axes.plot(size, max(loss, lowest), marker="o" if same[0].is_codec else "D", color=colour, markersize=7)
        name = method if same[0].is_codec else method.replace(" lists", "").replace(", as datasets writes", "")
        axes.annotate(
            f"{name} {size:.0f}",
            (size, max(loss, lowest)),
            xytext=(0, 9),
            textcoords="offset points",
            rotation=35,
            fontsize=8.5,
            color=colour,
            fontweight="bold" if same[0].is_codec else "normal",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(lowest / 3, 1e-1)
    ticks = [50, 100, 200, 300, 400]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.margins(x=0.2)
    axes.grid(alpha=0.25)
    axes.set_xlabel("bytes a label at k = 64")
    axes.set_ylabel("mean codec KL (nats); at the bottom: none")


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
    return _CODEC_COLOURS.get(row.method, "#000000") if row.is_codec else _RIVAL_COLOUR


def _line_style(row: StorageRow) -> dict[str, Any]:
    if row.is_codec:
        return {"linewidth": 2.2}
    return {"linewidth": 1.2, "linestyle": ":" if "bound" in row.method else "--"}


def _k(row: StorageRow) -> int:
    return int(row.selection_label.removeprefix("k="))
