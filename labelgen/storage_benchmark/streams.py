"""Where the bytes of a dataset's shards go: ids, values, target and tail, framing, hard labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from labelgen.storage_benchmark.coding import TrainedCodec, packed_streams
from labelstore.record import LabelRecord
from labelstore.schema import HARD_FIELDS

__all__ = ["STREAMS", "bytes_by_stream"]

STREAMS = ("ids", "values", "draw counts", "target and tail", "model", "framing", "hard labels")
_STREAM_OF_COLUMN = {
    **{field.name: "hard labels" for field in HARD_FIELDS},
    "token_ids": "ids",
    "logprobs": "values",
    "draw_counts": "draw counts",
    "target_logprobs": "target and tail",
    "target_ranks": "target and tail",
    "tail_mass": "target and tail",
    "entropy": "target and tail",
}


def bytes_by_stream(paths: Sequence[Path], *, codec: TrainedCodec, records: Sequence[LabelRecord]) -> dict[str, float]:
    """Return the bytes of shards by stream; they add up to the files' sizes.

    Columns tell their stream by name. A packed codec's one column is split as its encoder says; what it does not
    explain is framing, as are the Parquet pages' headers, the hash list and the footer.
    """
    totals: dict[str, float] = defaultdict(float)
    for path in paths:
        metadata = pq.read_metadata(path)
        for group in range(metadata.num_row_groups):
            for index in range(metadata.num_columns):
                column = metadata.row_group(group).column(index)
                name = column.path_in_schema.split(".", 1)[0]
                totals[_STREAM_OF_COLUMN.get(name, "packed")] += column.total_compressed_size
        totals["model"] += len(codec.model)
    num_packed = totals.pop("packed", 0)
    if num_packed:
        for stream, num_bytes in packed_streams(codec, records).items():
            totals[stream] += num_bytes
    total = sum(path.stat().st_size for path in paths)
    totals["framing"] += total - sum(totals.values())
    return {stream: totals[stream] for stream in STREAMS if totals[stream]}
