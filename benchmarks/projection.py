"""A plan against what came of it: sizes projected from a few documents, and those of the others really encoded.

    python benchmarks/projection.py [--write]

Needs the captures of `make bench-storage`, in .cache/storage-benchmark.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dated_result import write_result

from labelgen.plan.projection import JobSize, project_sizes
from labelgen.prompts.prompt_sample import sample_hash
from labelgen.storage_benchmark.capture import Capture, read_capture
from labelgen.storage_benchmark.cutting import cut_labels
from labelstore.codecs import codec_named
from labelstore.dataset import open_dataset
from labelstore.dataset_writer import DatasetWriter
from labelstore.header import Header
from labelstore.record import LabelRecord
from labelstore.selection import Selection

CAPTURES = Path(__file__).resolve().parent.parent / ".cache/storage-benchmark"
SELECTIONS = (Selection(top_k=16), Selection(top_k=64), Selection(top_k=128))
CODECS = ("open", "exact", "standard", "small")


def measure(
    records: Sequence[LabelRecord], header: Header, *, num_probed: int, selections: Sequence[Selection] = SELECTIONS
) -> list[dict[str, Any]]:
    """Project from the first records to the others, encode the others, and return a row for each choice."""
    probe, others = records[:num_probed], records[num_probed:]
    num_labels = sum(len(record.labels) for record in others)
    job = JobSize(num_labels=num_labels, labels_per_block=num_labels)
    rows = []
    for projection in project_sizes(probe, header, selections=selections, codecs=CODECS, job=job):
        real = _real_bytes(others, header, projection.selection, projection.codec)
        rows.append(
            {
                "selection": str(projection.selection),
                "codec": projection.codec,
                "probed_labels": sum(len(record.labels) for record in probe),
                "labels": num_labels,
                "projected": round(projection.bytes_per_label, 2),
                "low": round(projection.low, 2),
                "high": round(projection.high, 2),
                "real": round(real / num_labels, 2),
                "error": round(projection.bytes_per_label * num_labels / real - 1, 4),
            }
        )
    return rows


def _real_bytes(records: Sequence[LabelRecord], header: Header, selection: Selection, codec: str) -> int:
    cut = [dataclasses.replace(record, labels=cut_labels(record.labels, selection)) for record in records]
    with tempfile.TemporaryDirectory(prefix="labelgen-projection-") as folder:
        writer = DatasetWriter(Path(folder) / "real", header.with_selection(selection), codec=codec_named(codec))
        writer.publish_block("000000", cut, num_prompts=len(cut), num_rejected=0, recorded={})
        return sum(shard.num_bytes for entry in writer.entries.values() for shard in entry.shards)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[16, 32], help="probed")
    parser.add_argument("--kinds", nargs="+", default=["english", "chat", "code"])
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/projection-<date>.{json,md}")
    arguments = parser.parse_args()
    rows = []
    for path in sorted(CAPTURES.glob("*-float32/*")):
        if path.name not in arguments.kinds or not (path / "manifest.json").exists():
            continue
        capture = Capture(teacher=path.parent.name, kind=path.name, path=path)
        captured = read_capture(capture)
        # As `labelgen plan --probe` takes them: a fair sample, not the first ones, which may be alike.
        records = sorted(
            [*captured["test"], *captured["train"]], key=lambda record: sample_hash(record.prompt_id, seed=0)
        )
        for num_probed in arguments.documents:
            for row in measure(records, open_dataset(path).header, num_probed=num_probed):
                rows.append({"teacher": path.parent.name.removesuffix("-float32"), "kind": path.name, **row})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    lines = [
        "| teacher, text | selection | codec | labels probed | labels of the job | projected | real | off by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['teacher']}, {row['kind']} | {row['selection']} | {row['codec']} | {row['probed_labels']:,} | "
        f"{row['labels']:,} | {row['projected']} ({row['low']} to {row['high']}) | {row['real']} | "
        f"{row['error']:+.1%} |"
        for row in rows
    ]
    table = "\n".join(lines)
    print(table)
    if arguments.write:
        write_result(
            "projection",
            title="Sizes planned, and sizes that came of it",
            table=table,
            note="Bytes a label with everything; the job is all documents that were not probed, as one block.",
            command="python benchmarks/projection.py --write",
            content={"rows": rows},
        )
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
