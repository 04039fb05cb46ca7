"""Results on stdout: a run's summary and a dataset's, for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from labelgen.cli.plain_text import echo, plain
from labelgen.cli.render_rescored import rescored_rows, rescored_values
from labelgen.cli.units import bytes_text
from labelgen.job.progress import RunSummary
from labelstore.dataset import LabelDataset
from labelstore.entry import LabelCounts, total_counts
from labelstore.provenance import lossy_codecs
from labelstore.stream_bytes import STREAM_TITLES, sum_streams

__all__ = ["count_values", "print_dataset", "print_rows", "print_summary", "size_rows"]


def print_summary(summary: RunSummary, *, as_json: bool) -> None:
    """Print what a run came to."""
    values = {
        "event": "summary",
        "output": str(summary.output_dir),
        **count_values(summary.counts, summary.num_bytes),
        "new_records": summary.num_new_records,
        "new_labels": summary.num_new_labels,
        "rejected": summary.num_rejected,
        "duplicates": summary.num_duplicates,
        "seconds": round(summary.seconds, 3),
        "labels_per_second": round(summary.labels_per_second, 1),
        "rescored": rescored_values(summary.rescored),
        "blocks_left": summary.num_blocks_left,
        "warnings": list(summary.notes),
    }
    if as_json:
        click.echo(json.dumps(values))
        return
    rows = {
        "records": _with_new(summary.counts.num_records, summary.num_new_records),
        "labels": _with_new(summary.counts.num_labels, summary.num_new_labels),
        **size_rows(summary.counts, summary.num_bytes),
        "finished by": _reasons(summary.counts),
    }
    if summary.num_new_labels:
        rows["speed"] = f"{summary.labels_per_second:,.0f} labelled tokens/s over {summary.seconds:,.1f} s"
    rows |= rescored_rows(summary.rescored)
    if summary.num_rejected:
        rows["rejected"] = f"{summary.num_rejected:,} (see .labelgen/rejected/)"
    if summary.num_blocks_left:
        rows["left"] = (
            f"{summary.num_blocks_left:,} blocks of other parts; when they are done, the last part, "
            f"or 'labelgen finish {summary.output_dir}', makes the manifest"
        )
    print_rows(str(summary.output_dir), rows)
    for warning in summary.notes:
        echo(f"warning: {warning}", fg="yellow", err=True)


def print_dataset(dataset: LabelDataset, *, location: str, as_json: bool) -> None:
    """Print what a dataset holds."""
    header, counts = dataset.header, total_counts(dataset.entries)
    shards = [shard for entry in dataset.entries for shard in entry.shards]
    codecs = sorted({shard.codec for shard in shards})
    streams = sum_streams(shard.stream_bytes for shard in shards)
    chain = _chain(dataset)
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
            **count_values(counts, dataset.num_bytes),
            "stream_bytes": streams,
            "shards": len(shards),
            "rejected_prompts": sum(entry.num_rejected for entry in dataset.entries),
            "refused_responses": sum(entry.num_refused for entry in dataset.entries),
            "lossy_codecs": list(dict.fromkeys(codec for entry in dataset.entries for codec in lossy_codecs(entry))),
            "converted_from": chain,
            "rescored": rescored_values(dataset.rescored),
            "recorded": [dict(entry.recorded) for entry in dataset.entries[:1]],
        }
        click.echo(json.dumps(values))
        return
    rows = {
        "teacher": f"{header.teacher} ({header.vocab_size:,} rows)",
        "task": header.task,
        "kept": str(header.selection),
        "codec": ", ".join(codecs) or "-",
        "records": f"{counts.num_records:,}",
        "labels": f"{counts.num_labels:,} of {counts.num_tokens:,} tokens",
        "shards": f"{len(shards):,}",
        **size_rows(counts, dataset.num_bytes),
        "finished by": _reasons(counts),
        "rejected": _rejected(dataset),
        **rescored_rows(dataset.rescored),
        "made": f"{header.created_at}, labelgen {header.labelgen_version}{_engine(dataset)}",
        "converted from": "\n".join(f"{step['location']} ({_codec_of(step)})" for step in chain),
        "fingerprint": header.fingerprint[:16],
    }
    print_rows(location, rows)
    if counts.num_labels:
        _print_streams(streams, counts)


_BAR_WIDTH = 30


def _print_streams(streams: Mapping[str, int], counts: LabelCounts) -> None:
    """Print what the bytes of a label are for."""
    total = sum(streams.values())
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_footer=True)
    table.add_column("bytes by stream", footer="in all", no_wrap=True)
    table.add_column("bytes/label", footer=f"{total / counts.num_labels:,.2f}", justify="right", no_wrap=True)
    table.add_column("share", footer="100.0%", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="crop")
    for name, size in streams.items():
        if size:
            bar = "█" * round(_BAR_WIDTH * size / total)
            title = STREAM_TITLES.get(name, name)
            table.add_row(
                Text(plain(title)), f"{size / counts.num_labels:,.2f}", f"{size / total:.1%}", f"[dim]{bar}[/dim]"
            )
    console = Console(highlight=False)
    console.print()
    console.print(table)


def print_rows(title: str, rows: Mapping[str, str]) -> None:
    """Print a title and rows of a name and a text; those without a text are left out."""
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(plain(value)))
    console.print(Text(plain(title), style="bold"))
    console.print(table)


def count_values(counts: LabelCounts, num_bytes: int) -> dict[str, Any]:
    """Return counts and means under the keys that every --json has."""
    return {
        "records": counts.num_records,
        "labels": counts.num_labels,
        "tokens": counts.num_tokens,
        "bytes": num_bytes,
        "bytes_per_label": _mean(num_bytes, counts),
        "kept_mass": _mean(counts.kept_mass_sum, counts),
        "truncation_kl_nats": _mean(counts.truncation_kl_sum, counts),
        "codec_kl_nats": _mean(counts.codec_kl_sum, counts),
        "finish_reasons": dict(counts.finish_reasons),
    }


def size_rows(counts: LabelCounts, num_bytes: int, *, after_size: str = "") -> dict[str, str]:
    """Return the rows about size and fidelity; what truncation and codec lose stand apart."""
    if not counts.num_labels:
        return {}
    truncation_kl, codec_kl = (total / counts.num_labels for total in (counts.truncation_kl_sum, counts.codec_kl_sum))
    return {
        "on disk": f"{bytes_text(num_bytes)}{after_size}, "
        f"{num_bytes / counts.num_labels:,.1f} bytes/label with everything",
        "kept mass": f"{counts.kept_mass_sum / counts.num_labels:.4f} of the teacher's distribution "
        f"(truncation KL {truncation_kl:.4f} nats)",
        "codec KL": f"{codec_kl:.2g} nats" if codec_kl else "0: the values are the teacher's, bit for bit",
    }


def _mean(total: float, counts: LabelCounts) -> float | None:
    return total / counts.num_labels if counts.num_labels else None


def _reasons(counts: LabelCounts) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.finish_reasons.items()))


def _with_new(total: int, new: int) -> str:
    return f"{total:,}" if new == total else f"{total:,} ({new:,} new)"


def _rejected(dataset: LabelDataset) -> str:
    prompts = sum(entry.num_rejected for entry in dataset.entries)
    responses = sum(entry.num_refused for entry in dataset.entries)
    parts = [f"{prompts:,} prompts"] if prompts else []
    return ", ".join(parts + ([f"{responses:,} responses to others"] if responses else []))


def _chain(dataset: LabelDataset) -> list[dict[str, Any]]:
    """Return the datasets that the labels came through, oldest first, each once."""
    steps: dict[str, dict[str, Any]] = {}
    for entry in dataset.entries:
        for step in entry.recorded.get("converted_from", []):
            named = {name: step[name] for name in ("location", "fingerprint", "selection", "codec", "labelgen_version")}
            steps.setdefault(json.dumps(named), named)
    return list(steps.values())


def _codec_of(step: Mapping[str, Any]) -> str:
    return f"{', '.join(f'{name}={value}' for name, value in step['selection'].items())}, codec {step['codec']}"


def _engine(dataset: LabelDataset) -> str:
    if not dataset.entries:
        return ""
    recorded = dataset.entries[0].recorded
    return "".join(f", {recorded[name]}" for name in ("engine", "vllm_version", "device") if name in recorded)
