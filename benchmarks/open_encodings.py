"""Bytes a label of the codec `open`'s larger columns in Parquet's encodings, over a dataset folder.

python benchmarks/open_encodings.py demo-labels
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

VARIANTS = [
    ("token_ids", "PLAIN"),
    ("token_ids", "BYTE_STREAM_SPLIT"),
    ("token_ids", "DELTA_BINARY_PACKED"),
    ("logprobs", "PLAIN"),
    ("logprobs", "BYTE_STREAM_SPLIT"),
]


def bytes_per_label(table: pa.Table, column: str, encoding: str, *, num_labels: int) -> float:
    """Return the size of one column, written alone with zstd-9, over the labels."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "column.parquet"
        pq.write_table(
            table.select([column]),
            path,
            compression="zstd",
            compression_level=9,
            use_dictionary=False,
            column_encoding={f"{column}.list.element.list.element": encoding},
            store_schema=False,
        )
        return path.stat().st_size / num_labels


def main() -> None:
    table = pq.read_table(sorted(Path(sys.argv[1], "data").glob("*.parquet")))
    num_labels = sum(len(row) for row in table["target_ranks"].to_pylist())
    print(f"{num_labels:,} labels of {sys.argv[1]}\n\n| column | encoding | bytes/label |\n|---|---|---|")
    for column, encoding in VARIANTS:
        print(f"| {column} | {encoding} | {bytes_per_label(table, column, encoding, num_labels=num_labels):.1f} |")


if __name__ == "__main__":
    main()
