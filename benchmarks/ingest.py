"""Reading a prompt set into the snapshot: rows a second and memory, in a process of its own for each source.

python benchmarks/ingest.py [--rows 1000000] [--write]
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from dated_result import write_result

from labelgen.prompts.prompt_fields import PromptFields
from labelgen.prompts.prompt_sample import PromptSample
from labelgen.prompts.rejects import RejectLog
from labelgen.prompts.snapshot import PromptSnapshot
from labelgen.prompts.sources import find_sources
from labelstore.local_store import LocalStore

BLOCK_SIZE = 2048
SOURCES = ("chats.jsonl", "chats.jsonl.gz", "texts.parquet", "texts.csv")
_WORDS = ("sea", "light", "house", "why", "river", "number", "does", "green", "stone", "the", "of", "a", "how", "if")


def make_rows(num_rows: int, *, is_chat: bool) -> Iterator[dict[str, Any]]:
    """Yield rows with prompts of 20 to 200 words: 560 characters on average."""
    rng = random.Random(0)
    for number in range(num_rows):
        text = " ".join(rng.choices(_WORDS, k=rng.randrange(20, 200)))
        content = {"messages": [{"role": "user", "content": text}]} if is_chat else {"prompt": text}
        yield {"id": f"row-{number}", **content}


def write_source(path: Path, num_rows: int) -> None:
    """Write a prompt set in the format of the path's name."""
    rows = make_rows(num_rows, is_chat=path.name.startswith("chats"))
    if path.suffix == ".parquet":
        schema = pa.schema([("id", pa.string()), ("prompt", pa.string())])
        with pq.ParquetWriter(path, schema) as writer:
            for first in range(0, num_rows, 50_000):
                size = min(50_000, num_rows - first)
                writer.write_table(pa.Table.from_pylist([next(rows) for _ in range(size)], schema))
        return
    with gzip.open(path, "wt", compresslevel=1) if path.suffix == ".gz" else path.open("w") as file:
        if path.suffix == ".csv":
            file.write("id,prompt\n")
            file.writelines(f"{row['id']},{row['prompt']}\n" for row in rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def measure(path: Path, root: Path, *, sample_size: int | None = None) -> dict[str, Any]:
    """Read a source into a new snapshot and return the figures of this process."""
    sources = find_sources([str(path)], task="generate", fields=PromptFields())
    start, cpu_start = time.perf_counter(), time.process_time()
    ingest = PromptSnapshot(root).ingest(
        sources,
        block_size=BLOCK_SIZE,
        rejects=RejectLog(LocalStore(root)),
        sample=None if sample_size is None else PromptSample(size=sample_size),
    )
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return {
        "source": path.name + ("" if sample_size is None else f", a sample of {sample_size:,}"),
        "rows": ingest.num_rows,
        "prompts": ingest.num_new,
        "seconds": round(seconds, 2),
        "rows_per_second": round(ingest.num_rows / seconds),
        "rows_per_cpu_second": round(ingest.num_rows / cpu_seconds),
        "peak_mb": round(_peak_bytes() / 1e6),
    }


def _peak_bytes() -> int:
    # Not getrusage: its peak is that of the parent too, whose memory a child shares until it runs its own program.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "Linux says it of every process"
    return int(found[1]) * 1024


def measure_in_child(path: Path, root: Path, *, sample_size: int | None = None) -> dict[str, Any]:
    """Measure in a process of its own, whose peak memory is of this reading alone."""
    arguments = ["--child", str(path), str(root), *([] if sample_size is None else [str(sample_size)])]
    output = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True).stdout
    figures: dict[str, Any] = json.loads(output)
    return figures


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        source, root, *sample = sys.argv[2:]
        print(json.dumps(measure(Path(source), Path(root), sample_size=int(sample[0]) if sample else None)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/ingest-<date>.{json,md}")
    arguments = parser.parse_args()
    figures = []
    for name in SOURCES:
        with tempfile.TemporaryDirectory(prefix="labelgen-ingest-") as folder:
            source_path = Path(folder) / name
            write_source(source_path, arguments.rows)
            figures.append(measure_in_child(source_path, Path(folder) / "whole"))
            print(figures[-1], file=sys.stderr, flush=True)
            if name == SOURCES[0]:
                size = max(1, arguments.rows // 100)
                figures.append(measure_in_child(source_path, Path(folder) / "sample", sample_size=size))
                print(figures[-1], file=sys.stderr, flush=True)
    lines = [
        "| source | rows | prompts | rows/s | rows/s of processor time | peak RSS, MB |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['source']} | {row['rows']:,} | {row['prompts']:,} | {row['rows_per_second']:,} | "
        f"{row['rows_per_cpu_second']:,} | {row['peak_mb']} |"
        for row in figures
    ]
    table = "\n".join(lines)
    print(table)
    if arguments.write:
        write_result(
            "ingest",
            title="Reading a prompt set into the snapshot",
            table=table,
            note="Prompts of 20 to 200 words, each with an id, in one process; the machine did other work beside it.",
            command="python benchmarks/ingest.py --write",
            content={"rows": arguments.rows, "figures": figures},
        )
    print(json.dumps({"figures": figures}))


if __name__ == "__main__":
    main()
