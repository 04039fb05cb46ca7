"""The result for people: Markdown tables beside the JSON file and the plots."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from labelgen.storage_benchmark.benchmark import BenchmarkResult
from labelgen.storage_benchmark.dated_result import write_dated_result
from labelgen.storage_benchmark.plots import write_plots
from labelgen.storage_benchmark.rivals import REFERENCE, curve_settings
from labelgen.storage_benchmark.rows import StorageRow
from labelstore.stream_bytes import STREAMS

__all__ = ["write_report"]

_HEADLINE_KS = ("k=16", "k=64", "k=128")
_NOTE = f"""\
Bytes are those of the files on disk, everything but the hard labels' columns; in brackets their share of
*{REFERENCE}* over the same labels. KL in nats: *truncation* is -ln(kept mass), what the selection leaves out;
*codec* is what storing changes of the rest, the tail being one more outcome. Draws have no truncation, but noise:
the KL of one label's draws against the full distribution. The rivals keep neither target log-probability nor tail
mass, and are given both exactly and for nothing. Lists are written with pyarrow's defaults, but where *byte-stream
split* is said. The entropy bound knows the frequencies of the very labels that it codes. Speeds: one core, median.
"""


def write_report(result: BenchmarkResult, *, folder: Path, images_dir: Path) -> Path:
    """Write the tables, the JSON file and the plots; return the path of the tables.

    Raises:
        ImportError: matplotlib is not installed.
    """
    plots = write_plots(result.rows, folder=images_dir)
    curves = [
        {**asdict(setting), "name": setting.name, "teacher": teacher, "bytes_per_label": size}
        for teacher, vocab_size in result.vocab_sizes.items()
        for setting in curve_settings()
        for size in [setting.bytes_per_label(vocab_size=vocab_size)]
    ]
    return write_dated_result(
        "storage",
        folder=folder,
        title="How many bytes a label takes",
        table="\n\n".join(format_tables(result, curves)),
        note=_NOTE,
        command=shlex.join(["python", "-m", "labelgen.storage_benchmark", *sys.argv[1:]]),
        content={
            "rows": [row.to_json() for row in result.rows],
            "random_access": [one.to_json() for one in result.random_access],
            "published_curve_settings": curves,
            "plots": [path.name for path in plots],
        },
    )


def format_tables(result: BenchmarkResult, curves: Sequence[dict[str, Any]]) -> list[str]:
    """Return the tables, each under its heading."""
    rows = result.rows
    parts = ["## By kind of text", _by_kind(rows)]
    for teacher in _distinct(row.teacher_name for row in rows):
        of_teacher = [row for row in rows if row.teacher_name == teacher]
        parts += [
            f"## {teacher}: what is kept, bytes a label, mean of all kinds of text",
            _by_selection(of_teacher),
            f"## {teacher}: every way of storing 64 candidates, mean of all kinds of text",
            _by_method([row for row in of_teacher if row.selection_label == "k=64"]),
            f"## {teacher}: where the bytes go, 64 candidates",
            _by_stream([row for row in of_teacher if row.selection_label == "k=64" and row.is_codec]),
        ]
    parts += ["## Single records in random order, 64 candidates", _random_access(result)]
    parts += ["## The best-known open capture tool, published settings: sizes computed, KL measured elsewhere"]
    parts += [_curves(curves)]
    return parts


def _by_kind(rows: Sequence[StorageRow]) -> str:
    codecs = _codecs(rows)
    table = [["teacher", "text", "selection", *codecs, REFERENCE]]
    for key in _distinct((row.teacher_name, row.kind, row.selection_label) for row in rows):
        if key[2] in _HEADLINE_KS:
            same = [row for row in rows if (row.teacher_name, row.kind, row.selection_label) == key]
            reference = _size(same, REFERENCE)
            cells = [f"{_size(same, codec):.1f} ({_size(same, codec) / reference:.2f})" for codec in codecs]
            table.append([*key, *cells, f"{reference:.1f}"])
    return _markdown(table)


def _by_selection(rows: Sequence[StorageRow]) -> str:
    methods = [*_codecs(rows), REFERENCE, "order-0 entropy bound, 1/8 nat"]
    table = [["selection", "candidates", "truncation KL", "KL of draws", *methods]]
    for label in _distinct(row.selection_label for row in rows):
        same = [row for row in rows if row.selection_label == label]
        table.append(
            [
                label,
                f"{_mean(same, lambda row: row.candidates_per_label):.1f}",
                _nats(_mean(same, lambda row: row.truncation_kl_nats)),
                _nats(_mean(same, lambda row: row.draw_kl_nats)),
                *(f"{_size(same, method):.1f}" for method in methods),
            ]
        )
    return _markdown(table)


def _by_method(rows: Sequence[StorageRow]) -> str:
    table = [
        ["method", "bytes/label", "share", "codec KL", "p99.9", "worst", "top-1 agrees", "encode/s", "decode/s"],
    ]
    reference = _size(rows, REFERENCE)
    for method in _distinct(row.method for row in rows):
        same = [row for row in rows if row.method == method]
        table.append(
            [
                method,
                f"{_size(same, method):,.1f}",
                f"{_size(same, method) / reference:.2f}",
                _nats(_mean(same, lambda row: row.codec_kl_nats.mean if row.codec_kl_nats else None)),
                _nats(_mean(same, lambda row: row.codec_kl_nats.p999 if row.codec_kl_nats else None)),
                _nats(max((row.codec_kl_nats.worst for row in same if row.codec_kl_nats), default=None)),
                _share(_mean(same, lambda row: row.top1_agreement)),
                _speed(_mean(same, lambda row: row.encode_labels_per_second)),
                _speed(_mean(same, lambda row: row.decode_labels_per_second)),
            ]
        )
    return _markdown(table)


def _by_stream(rows: Sequence[StorageRow]) -> str:
    streams = [stream for stream in STREAMS if any(stream in row.bytes_per_label_by_stream for row in rows)]
    table = [["codec", *(stream.replace("_", " ") for stream in streams)]]
    for codec in _codecs(rows):
        same = [row.bytes_per_label_by_stream for row in rows if row.method == codec]
        table.append([codec, *(f"{fmean(one.get(stream, 0.0) for one in same):.2f}" for stream in streams)])
    return _markdown(table)


def _random_access(result: BenchmarkResult) -> str:
    table = [["teacher", "codec", "labels in the dataset", "labels/s", "records/s"]]
    for one in result.random_access:
        speeds = [_speed(one.labels_per_second), _speed(one.records_per_second)]
        table.append([one.teacher, one.codec, f"{one.num_labels:,}", *speeds])
    return _markdown(table)


def _curves(curves: Sequence[dict[str, Any]]) -> str:
    table = [["teacher", "setting", "bytes/label", "KL, as measured elsewhere on Gemma 3 270M"]]
    for one in curves:
        table.append([one["teacher"], one["name"], f"{one['bytes_per_label']:.1f}", _nats(one["kl_nats"])])
    return _markdown(table)


def _codecs(rows: Sequence[StorageRow]) -> list[str]:
    return _distinct(row.method for row in rows if row.is_codec)


def _size(rows: Sequence[StorageRow], method: str) -> float:
    """Return the mean bytes a label of a method over kinds of text."""
    return fmean(row.bytes_per_label for row in rows if row.method == method)


def _mean(rows: Sequence[StorageRow], value: Callable[[StorageRow], float | None]) -> float | None:
    values = [number for row in rows if (number := value(row)) is not None]
    return fmean(values) if values else None


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _nats(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 1e-9:  # less than float32 can tell
        return "0"
    return f"{value:.1e}" if value < 0.001 else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _speed(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _markdown(table: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in table]
    lines.insert(1, "|" + "---|" * len(table[0]))
    return "\n".join(lines)
