"""A dataset of very many blocks, made by very many parts: what entries, finish, open_dataset and status take.

The labels are few; what grows with blocks is real: 100,000 entries with the row-group counts and hashes of blocks of
100,000 labels each (10^10 in all), as many files in data/ and in the snapshot, 1,000 heartbeats. Nothing is synced
while it is made.

    python benchmarks/many_blocks.py --write
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
from dated_result import write_result

from labelgen.job.heartbeat import Heartbeat, ProcessName
from labelgen.job.part import Part
from labelgen.job.status import read_status
from labelstore.codecs import codec_named
from labelstore.dataset import open_dataset
from labelstore.dataset_writer import DatasetWriter, finish_dataset
from labelstore.entry import Entry, LabelCounts, ShardEntry, read_entries
from labelstore.header import Header
from labelstore.local_store import LocalStore
from labelstore.prompt_files import SOURCES_NAME, prompts_name
from labelstore.sealed_json import seal
from labelstore.sealed_parquet import seal_table
from labelstore.selection import Selection

LABELS_IN_BLOCK = 100_000
LABELS_IN_ROW_GROUP = 4096
RECORDS_IN_BLOCK = 200
PROMPTS_IN_BLOCK = 4  # in the files of the snapshot; their size does not matter here


def make_header() -> Header:
    return Header(
        task="generate",
        teacher="simulated",
        vocab_size=262_144,
        selection=Selection(top_k=64),
        fingerprint_fields={"weights": "0" * 64},
        labelgen_version="0",
        created_at="2026-01-01T00:00:00+00:00",
    )


def make_entry(block: str, fingerprint: str, rng: np.random.Generator) -> Entry:
    """Return an entry as a block of 100,000 labels has it."""
    sha256 = rng.bytes(32).hex()
    num_groups = -(-LABELS_IN_BLOCK // LABELS_IN_ROW_GROUP)
    shard = ShardEntry(
        name=f"data/{block}-0-{sha256[:8]}.parquet",
        codec="standard",
        num_bytes=6_000_000,
        sha256=sha256,
        model_bytes=480_000,
        footer_bytes=20_000,
        hash_list_sha256=rng.bytes(32).hex(),
        row_group_records=(RECORDS_IN_BLOCK // num_groups,) * num_groups,
        counts=LabelCounts(
            num_records=RECORDS_IN_BLOCK,
            num_labels=LABELS_IN_BLOCK,
            num_tokens=LABELS_IN_BLOCK + 5_000,
            kept_mass_sum=91_000.123456789,
            truncation_kl_sum=10_000.123456789,
            codec_kl_sum=44.123456789,
            finish_reasons={"stop": 150, "length": 50},
        ),
        stream_bytes={
            "hard": 233_000,
            "ids": 3_049_000,
            "values": 2_539_000,
            "target_and_tail": 87_000,
            "framing": 13_000,
            "model": 480_000,
        },
    )
    return Entry(
        block=block,
        generation=0,
        nonce=rng.bytes(16).hex(),
        fingerprint=fingerprint,
        shards=(shard,),
        num_prompts=PROMPTS_IN_BLOCK,
        num_rejected=0,
        recorded={
            "labelgen_version": "0.1.0",
            "engine": "vllm 0.32.0",
            "runner": "V1",
            "device": "cuda",
            "tensor_parallel_size": 1,
            "responses": 1,
            "sampling_origins": {"temperature": "command line", "top_p": "model", "top_k": "model"},
            "stop_id_origins": {"1": "generation_config", "106": "tokenizer"},
        },
        created_at="2026-01-01T00:00:00+00:00",
    )


def make_dataset(root: Path, *, num_blocks: int, num_parts: int) -> int:
    """Write such a dataset, without its labels; return the bytes of an entry."""
    rng = np.random.default_rng(0)
    header = make_header()
    DatasetWriter(root, header, codec=codec_named("standard"))
    for folder in ("data", ".labelgen/entries", ".labelgen/prompts", ".labelgen/jobs"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    table = pa.table({"prompt_id": [f"p{i}" for i in range(PROMPTS_IN_BLOCK)]})
    num_bytes = 0
    for number in range(num_blocks):
        block = f"{number:06d}"
        entry = make_entry(block, header.fingerprint, rng)
        content = entry.to_bytes()
        num_bytes += len(content)
        (root / entry.name).write_bytes(content)
        (root / entry.shards[0].name).touch()
        (root / prompts_name(block)).write_bytes(seal_table(table, name=prompts_name(block)))
    read = {"sources": {}, "num_blocks": num_blocks, "num_prompts": num_blocks * PROMPTS_IN_BLOCK}
    (root / SOURCES_NAME).write_bytes(seal(read))  # as the reading of the prompts leaves it
    for number in range(1, num_parts + 1):
        beat = Heartbeat(
            process=ProcessName(host="elsewhere", pid=number, started_ticks=1),
            state="labelling",
            started_at=0.0,
            beat_at=time.time() + 3600,
            share=f"part {number}/{num_parts}",
            total_prompts=400,
            done_prompts=200,
            labelling_seconds=100.0,
            num_labels=1_000_000,
            in_flight=tuple(f"{number:06d}/{row}/0" for row in range(512)),
        )
        (root / f".labelgen/jobs/{hashlib.md5(str(number).encode()).hexdigest()}.json").write_text(
            json.dumps(asdict(beat))
        )
    return num_bytes // num_blocks


def seconds_of(act: Callable[[], object]) -> float:
    """Return the processor's seconds, the system's included: the machine may be busy with other things."""
    start = time.process_time()
    act()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=100_000)
    parser.add_argument("--parts", type=int, default=1_000)
    parser.add_argument("--write", action="store_true", help="write the dated result")
    options = parser.parse_args()
    num_blocks, num_parts = options.blocks, options.parts
    root = Path(tempfile.mkdtemp(prefix="labelgen-many-"))
    try:
        entry_bytes = make_dataset(root, num_blocks=num_blocks, num_parts=num_parts)
        store, part = LocalStore(root), Part(number=2, count=num_parts)
        seconds = {
            "all entries, one by one": seconds_of(lambda: read_entries(store)),
            "a part opens the folder": seconds_of(
                lambda: DatasetWriter(root, make_header(), codec=codec_named("standard"), holds=part.holds)
            ),
            "status, before a manifest": seconds_of(lambda: read_status(root)),
            "finish, the first time": seconds_of(lambda: finish_dataset(root)),
            "finish, again": seconds_of(lambda: finish_dataset(root)),
            "open_dataset": seconds_of(lambda: open_dataset(root)),
            "status": seconds_of(lambda: read_status(root)),
        }
        manifest_bytes = (root / "manifest.json").stat().st_size
    finally:
        shutil.rmtree(root)
    content = {
        "num_blocks": num_blocks,
        "num_parts": num_parts,
        "entry_bytes": entry_bytes,
        "manifest_bytes": manifest_bytes,
        "seconds": seconds,
    }
    if options.write:
        rows = "\n".join(f"| {name} | {value:.1f} |" for name, value in seconds.items())
        write_result(
            "many-blocks",
            title=f"{num_blocks:,} blocks, {num_parts:,} parts",
            table=f"| what | seconds |\n|---|---|\n{rows}",
            note=f"An entry has {entry_bytes:,} bytes, the manifest {manifest_bytes / 1e6:,.0f} MB. One process, a "
            f"local disk whose pages are in memory. Seconds of the processor, as much other work ran on the machine.",
            command="python benchmarks/many_blocks.py --write",
            content=content,
        )
    print(json.dumps(content))


if __name__ == "__main__":
    main()
