"""Where the bytes of a shard go: hard labels, ids, values, targets and tails, framing, and the codec's model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow.parquet as pq

from labelstore.checksums import SealedShard
from labelstore.codecs import Codec
from labelstore.codecs.tally import Tally
from labelstore.schema import HARD_FIELDS

__all__ = ["STREAMS", "STREAM_TITLES", "known_bytes", "split_bytes", "sum_streams"]

STREAM_TITLES = {
    "hard": "hard labels and texts",
    "ids": "candidates' ids",
    "values": "candidates' logprobs",
    "target_and_tail": "targets and tails",
    "framing": "framing",
    "model": "codec's model",
}
STREAMS = tuple(STREAM_TITLES)
_HARD_NAMES = frozenset(field.name for field in HARD_FIELDS)


def known_bytes(metadata: pq.FileMetaData, *, model_bytes: int, codec: Codec) -> dict[str, int]:
    """Return the bytes of the streams that have a place of their own in the file, pages' headers included.

    Those are the hard columns, the model, and the soft columns of a codec that has columns for each stream.
    """
    sizes = dict.fromkeys(("hard", *codec.column_streams.values()), 0)
    for index in range(metadata.num_row_groups):
        row_group = metadata.row_group(index)
        for i in range(metadata.num_columns):
            column = row_group.column(i)
            name = column.path_in_schema.split(".", 1)[0]
            stream = "hard" if name in _HARD_NAMES else codec.column_streams.get(name)
            if stream is not None:
                sizes[stream] += column.total_compressed_size
    return {**sizes, "model": model_bytes}


def split_bytes(metadata: pq.FileMetaData, sealed: SealedShard, *, codec: Codec, tally: Tally) -> dict[str, int]:
    """Split a shard's bytes by stream; they add up to the file's size.

    What no other stream has is framing: lengths, checksums, the ends of the coders' words, hash list and footer, and
    the headers of pages that hold several streams.
    """
    streams = {**dict.fromkeys(STREAMS, 0), **known_bytes(metadata, model_bytes=sealed.model_bytes, codec=codec)}
    for stream, counted in tally.stream_bytes.items():
        streams[stream] += round(counted)
    streams["framing"] = sealed.num_bytes - sum(streams.values())
    return streams


def sum_streams(shards: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the bytes of several shards by stream: those that are known in their order, then any others."""
    totals = dict.fromkeys(STREAMS, 0)
    for streams in shards:
        for name, size in streams.items():
            totals[name] = totals.get(name, 0) + size
    return totals
