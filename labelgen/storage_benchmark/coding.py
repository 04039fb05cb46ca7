"""The one place where the benchmark touches a codec: its model is learned from some records, others are encoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set

import pyarrow as pa

from labelstore.codecs import Codec, Decoder, Encoder, codec_named
from labelstore.header import Header
from labelstore.record import LabelRecord
from labelstore.schema import HARD_FIELDS, hard_columns
from labelstore.shard_writer import MAX_CANDIDATES_PER_ROW_GROUP, MAX_RECORDS_PER_ROW_GROUP

__all__ = ["MODEL_LABELS", "TrainedCodec", "decode_group", "row_groups", "table_of", "train_model"]

MODEL_LABELS = 1_000_000  # a model's bytes are spread over as many labels, as a dataset has them and a test has not


class TrainedCodec:
    """A codec with a model, so that it learns nothing from what is measured."""

    def __init__(self, name: str, model: bytes) -> None:
        codec: Codec = codec_named(name)
        self._codec = codec
        self.model = model
        self.name = codec.name
        self.parquet_encodings: Mapping[str, str] = codec.parquet_encodings
        self.uncompressed: Set[str] = codec.uncompressed
        self.column_streams: Mapping[str, str] = codec.column_streams
        self.is_exact = codec.is_exact
        self.fields: Sequence[pa.Field] = codec.fields

    def check_can_write(self) -> None:
        self._codec.check_can_write()

    def train(
        self, records: Sequence[LabelRecord], *, vocab_size: int, num_labels_expected: int, is_constant_size: bool
    ) -> bytes:
        """Return the model that is there already."""
        return self.model

    def encoder(self, model: bytes) -> Encoder:
        return self._codec.encoder(model)

    def decoder(self, model: bytes) -> Decoder:
        return self._codec.decoder(model)


def train_model(name: str, train: Sequence[LabelRecord], *, header: Header) -> bytes:
    """Return a codec's model, learned from these records alone."""
    return codec_named(name).train(
        train,
        vocab_size=header.vocab_size,
        num_labels_expected=MODEL_LABELS,
        is_constant_size=header.selection.is_constant_size,
    )


def row_groups(records: Sequence[LabelRecord]) -> Iterator[list[LabelRecord]]:
    """Group records as the shard writer does."""
    group: list[LabelRecord] = []
    num_candidates = 0
    for record in records:
        group.append(record)
        num_candidates += record.labels.token_ids.size
        if num_candidates >= MAX_CANDIDATES_PER_ROW_GROUP or len(group) >= MAX_RECORDS_PER_ROW_GROUP:
            yield group
            group, num_candidates = [], 0
    if group:
        yield group


def table_of(encoder: Encoder, fields: Sequence[pa.Field], records: Sequence[LabelRecord]) -> pa.Table:
    """Return one row group as a reader gets it."""
    columns = [*hard_columns(records), *encoder.encode(records)]
    return pa.Table.from_arrays(columns, schema=pa.schema([*HARD_FIELDS, *fields]))


def decode_group(decoder: Decoder, table: pa.Table) -> None:
    """Decode the labels of all records of one row group, and drop them."""
    decoded = decoder.decode(table)
    for row in range(len(table)):
        decoded.row(row)
