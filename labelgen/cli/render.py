"""Results on stdout: a run's summary and a dataset's, for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from labelgen.job.progress import RunSummary
from labelstore.dataset import LabelDataset
from labelstore.entry import LabelCounts, total_counts

__all__ = ["print_dataset", "print_summary"]


def print_summary(summary: RunSummary, *, as_json: bool) -> None:
    """Print what a run came to."""
    values = {
        "output": str(summary.output_dir),
        **_count_values(summary.counts, summary.num_bytes),
        "new_records": summary.num_new_records,
        "new_labels": summary.num_new_labels,
        "rejected": summary.num_rejected,
        "duplicates": summary.num_duplicates,
        "seconds": round(summary.seconds, 3),
        "labels_per_second": round(summary.labels_per_second, 1),
        "warnings": list(summary.notes),
    }
    if as_json:
        click.echo(json.dumps(values))
        return
    rows = {
        "records": _with_new(summary.counts.num_records, summary.num_new_records),
        "labels": _with_new(summary.counts.num_labels, summary.num_new_labels),
        **_size_rows(summary.counts, summary.num_bytes),
        "finished by": _reasons(summary.counts),
    }
    if summary.num_new_labels:
        rows["speed"] = f"{summary.labels_per_second:,.0f} labelled tokens/s over {summary.seconds:,.1f} s"
    if summary.num_rejected:
        rows["rejected"] = f"{summary.num_rejected:,} (see .labelgen/rejected.jsonl)"
    _print_rows(str(summary.output_dir), rows)
    for warning in summary.notes:
        click.secho(f"warning: {warning}", fg="yellow", err=True)


def print_dataset(dataset: LabelDataset, *, location: str, as_json: bool) -> None:
    """Print what a dataset holds."""
    header, counts = dataset.header, total_counts(dataset.entries)
    codecs = sorted({shard.codec for entry in dataset.entries for shard in entry.shards})
    if as_json:
        values = {
            "teacher": header.teacher,
            "task": header.task,
            "vocab_size": header.vocab_size,
            "fingerprint": header.fingerprint,
            "fingerprint_fields": header.fingerprint_fields,
            "selection": header.selection.to_json(),
            "codecs": codecs,
            "format_version": header.format_version,
            **_count_values(counts, dataset.num_bytes),
            "recorded": [dict(entry.recorded) for entry in dataset.entries[:1]],
        }
        click.echo(json.dumps(values))
        return
    rows = {
        "teacher": f"{header.teacher} ({header.vocab_size:,} rows)",
        "task": header.task,
        "kept": f"{header.selection}, codec {', '.join(codecs) or '-'}",
        "records": f"{counts.num_records:,}",
        "labels": f"{counts.num_labels:,} of {counts.num_tokens:,} tokens",
        **_size_rows(counts, dataset.num_bytes),
        "finished by": _reasons(counts),
        "made": f"{header.created_at}, labelgen {header.labelgen_version}{_engine(dataset)}",
        "fingerprint": header.fingerprint[:16],
    }
    _print_rows(location, rows)


def _print_rows(title: str, rows: Mapping[str, str]) -> None:
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    console.print(title, style="bold", markup=False)
    console.print(table)


def _count_values(counts: LabelCounts, num_bytes: int) -> dict[str, Any]:
    return {
        "records": counts.num_records,
        "labels": counts.num_labels,
        "tokens": counts.num_tokens,
        "bytes": num_bytes,
        "bytes_per_label": _mean(num_bytes, counts),
        "kept_mass": _mean(counts.kept_mass_sum, counts),
        "truncation_kl_nats": _mean(counts.truncation_kl_sum, counts),
        "finish_reasons": dict(counts.finish_reasons),
    }


def _size_rows(counts: LabelCounts, num_bytes: int) -> dict[str, str]:
    if not counts.num_labels:
        return {}
    return {
        "on disk": f"{_bytes(num_bytes)}, {num_bytes / counts.num_labels:,.1f} bytes/label with everything",
        "kept mass": f"{counts.kept_mass_sum / counts.num_labels:.4f} of the teacher's distribution "
        f"(truncation KL {counts.truncation_kl_sum / counts.num_labels:.4f} nats)",
    }


def _mean(total: float, counts: LabelCounts) -> float | None:
    return total / counts.num_labels if counts.num_labels else None


def _reasons(counts: LabelCounts) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.finish_reasons.items()))


def _with_new(total: int, new: int) -> str:
    return f"{total:,}" if new == total else f"{total:,} ({new:,} new)"


def _engine(dataset: LabelDataset) -> str:
    if not dataset.entries:
        return ""
    recorded = dataset.entries[0].recorded
    return "".join(f", {recorded[name]}" for name in ("engine", "vllm_version", "device") if name in recorded)


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
