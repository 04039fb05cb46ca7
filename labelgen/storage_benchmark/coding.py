"""The one place where the benchmark touches a codec: trained on some records, encoding and decoding others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from labelstore.codecs import CODECS, Codec
from labelstore.record import LabelRecord
from labelstore.shard_writer import MAX_CANDIDATES_PER_ROW_GROUP

__all__ = ["decode_group", "encode_group", "packed_streams", "row_groups", "trained_codec"]


def trained_codec(name: str, train: Sequence[LabelRecord]) -> Codec:
    """Return a codec by name; one that learns tables learns them from these records alone."""
    return CODECS[name]


def row_groups(records: Sequence[LabelRecord]) -> Iterator[list[LabelRecord]]:
    """Group records as the shard writer does."""
    group: list[LabelRecord] = []
    num_candidates = 0
    for record in records:
        group.append(record)
        num_candidates += record.labels.token_ids.size
        if num_candidates >= MAX_CANDIDATES_PER_ROW_GROUP:
            yield group
            group, num_candidates = [], 0
    if group:
        yield group


def encode_group(codec: Codec, records: Sequence[LabelRecord]) -> pa.Table:
    """Return the soft columns of one row group."""
    columns = codec.encode([record.labels for record in records])
    return pa.Table.from_arrays(columns, schema=pa.schema(list(codec.fields)))


def decode_group(codec: Codec, table: pa.Table) -> None:
    """Decode the labels of all records of one row group, and drop them."""
    decoded = codec.decode(table)
    for row in range(len(table)):
        decoded.row(row)


def packed_streams(codec: Codec, records: Sequence[LabelRecord]) -> Mapping[str, int]:
    """Return the bytes of a packed codec's column by stream, as its encoder tells them.

    Raises:
        NotImplementedError: the codec does not tell.
    """
    raise NotImplementedError(f"the codec {codec.name} does not tell its streams")
