"""What the size of a row group costs and gives: bytes a label, and the time to read one record at random.

python benchmarks/row_groups.py DATASET --write    (a dataset of records of some hundred labels, any codec)
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from dated_result import write_result

import labelstore.shard_writer as shard_writer
from labelstore.codecs import codec_named
from labelstore.dataset import LabelDataset, open_dataset
from labelstore.dataset_writer import DatasetWriter
from labelstore.record import LabelRecord

NUM_READS = 60


def measure(records: list[LabelRecord], source: LabelDataset, *, codec: str, power: int) -> dict[str, Any]:
    """Write the records in row groups of 2^power candidates, then read some at random, each from its file."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(shard_writer, "MAX_CANDIDATES_PER_ROW_GROUP", 2**power),
        mock.patch("labelstore.dataset._CACHED_ROW_GROUPS", 1),
    ):
        writer = DatasetWriter(Path(folder), source.header, codec=codec_named(codec))
        writer.publish_block("000000", records, num_prompts=1, num_rejected=0, recorded={})
        dataset = open_dataset(folder)
        streams = [shard.stream_bytes for entry in dataset.entries for shard in entry.shards]
        seconds = []
        for index in np.random.default_rng(0).permutation(len(dataset))[:NUM_READS]:
            start = time.process_time()
            _ = dataset[int(index)].labels
            seconds.append(time.process_time() - start)
        num_bytes = dataset.num_bytes - sum(stream["model"] for stream in streams)
        return {
            "codec": codec,
            "candidates_per_row_group": 2**power,
            "bytes_per_label_without_model": num_bytes / dataset.num_labels,
            "read_one_record_ms": 1000 * statistics.median(seconds),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--write", action="store_true", help="Write the result to benchmarks/results/.")
    arguments = parser.parse_args()
    source = open_dataset(arguments.dataset)
    records = list(source)
    rows = [
        measure(records, source, codec=codec, power=power)
        for codec in ("standard", "open")
        for power in (21, 20, 19, 18, 17, 16)
    ]
    table = "| codec | candidates a row group | bytes/label, without the model | one record at random, ms |\n"
    table += "|---|---|---|---|\n" + "\n".join(
        f"| {row['codec']} | 2^{row['candidates_per_row_group'].bit_length() - 1} "
        f"| {row['bytes_per_label_without_model']:.2f} | {row['read_one_record_ms']:.2f} |"
        for row in rows
    )
    print(table)
    if arguments.write:
        write_result(
            "row-groups",
            title="Sizes of row groups",
            table=table,
            note=f"{source.num_labels:,} labels in {len(source):,} records, {source.header.selection}; CPU time, "
            f"median of {NUM_READS} reads, each of another row group.\n",
            command=f"python benchmarks/row_groups.py {arguments.dataset} --write",
            content={"rows": rows},
        )


if __name__ == "__main__":
    main()
