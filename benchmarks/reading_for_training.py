"""How fast labels become a student's batches on one core: in order, shuffled, single records at random.

python benchmarks/reading_for_training.py DATASET --tokenizer TEACHER --write

DATASET is of the codec `standard` with K = 64, and of some hundred thousand labels. The same labels as int32 and
float16 lists (Parquet, zstd-3) are read through `datasets` beside it, to the same [P, K] tensors. The page cache is
warm, and time is processor time, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from dated_result import write_result

from labelgen.storage_benchmark.rivals import ListFormat
from labelstore.dataset import LabelDataset, open_dataset
from labelstore.student_checks import StudentTokenizer
from labelstore.torch import BatchStream, PaddingCollator

BATCH_RECORDS = 8
LISTS = ListFormat(
    name="int32 + float16 lists, zstd-3",
    id_type=pa.int32(),
    logprob_type=pa.float16(),
    compression="zstd",
    level=3,
    num_rows_per_group=100,
)


def measure(dataset: LabelDataset, tokenizer: StudentTokenizer, *, num_rounds: int) -> list[dict[str, Any]]:
    """Return the labels a second of each way to read a dataset."""
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    rows = [
        _timed(name, read, num_labels=dataset.num_labels, num_rounds=num_rounds)
        for name, read in _ours(dataset, tokenizer, order).items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, read in _through_datasets(dataset, Path(folder), order).items():
            rows.append(_timed(name, read, num_labels=dataset.num_labels, num_rounds=num_rounds))
    return rows


def _ours(dataset: LabelDataset, tokenizer: StudentTokenizer, order: Sequence[int]) -> dict[str, Callable[[], int]]:
    collate = PaddingCollator(dataset, tokenizer=tokenizer, model=dataset.header.vocab_size, max_length=1 << 20)

    def stream(seed: int | None) -> Callable[[], int]:
        batches = BatchStream(dataset, collate, batch_size=BATCH_RECORDS, seed=seed)
        return lambda: sum(len(batch.soft) for batch in batches)

    def at_random() -> int:
        return sum(len(collate([dataset[i] for i in part]).soft) for part in _batches(order))

    return {
        "labelstore, in order": stream(None),
        "labelstore, shuffled": stream(0),
        "labelstore, random records": at_random,
    }


def _through_datasets(dataset: LabelDataset, folder: Path, order: Sequence[int]) -> dict[str, Callable[[], int]]:
    import datasets

    path = folder / "lists.parquet"
    LISTS.write([record.labels for record in dataset], path)
    lists = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(folder / "cache"))
    lists = lists.with_format("numpy")

    def read(places: Sequence[int]) -> int:
        total = 0
        for part in _batches(places):
            rows = lists[list(part)]
            ids = torch.from_numpy(np.concatenate([np.stack(record) for record in rows["token_ids"]]))
            logprobs = torch.from_numpy(np.concatenate([np.stack(record) for record in rows["logprobs"]])).float()
            assert ids.shape == logprobs.shape
            total += len(ids)
        return total

    return {
        "datasets, in order": lambda: read(range(len(lists))),
        "datasets, random records": lambda: read(order),
    }


def _batches(places: Sequence[int]) -> list[Sequence[int]]:
    return [places[start : start + BATCH_RECORDS] for start in range(0, len(places), BATCH_RECORDS)]


def _timed(name: str, read: Callable[[], int], *, num_labels: int, num_rounds: int) -> dict[str, Any]:
    """Return the median and the spread of some rounds, after one that warms up."""
    speeds = []
    for number in range(num_rounds + 1):
        start = time.process_time()
        num_read = read()
        seconds = time.process_time() - start
        if num_read != num_labels:
            raise RuntimeError(f"{name}: read {num_read} labels, wanted {num_labels}")
        if number:
            speeds.append(num_labels / seconds)
    return {
        "way": name,
        "labels_per_second": statistics.median(speeds),
        "lowest": min(speeds),
        "highest": max(speeds),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--tokenizer", required=True, help="The teacher's tokenizer: a model folder or a hub name.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="Write the result to benchmarks/results/.")
    arguments = parser.parse_args()
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    dataset = open_dataset(arguments.dataset)
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    rows = measure(dataset, tokenizer, num_rounds=arguments.rounds)
    table = "| way | labels/s | lowest | highest | peak memory so far |\n|---|---|---|---|---|\n" + "\n".join(
        f"| {row['way']} | {row['labels_per_second']:,.0f} | {row['lowest']:,.0f} | {row['highest']:,.0f} "
        f"| {row['peak_memory_bytes'] / 2**20:,.0f} MiB |"
        for row in rows
    )
    print(table)
    print(json.dumps({"rows": rows}))
    if arguments.write:
        write_result(
            "reading-for-training",
            title="Reading labels for training",
            table=table,
            note=f"{dataset.num_labels:,} labels in {len(dataset):,} records, {dataset.header.selection}, one core, "
            f"processor time, median of {arguments.rounds} rounds; to torch batches of {BATCH_RECORDS} records.\n",
            command=f"python benchmarks/reading_for_training.py {arguments.dataset} --tokenizer {arguments.tokenizer} "
            f"--write",
            content={"rows": rows},
        )


if __name__ == "__main__":
    main()
