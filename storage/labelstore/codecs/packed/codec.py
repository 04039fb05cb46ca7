"""The packed codecs `exact`, `standard` and `small`: one layout, three precisions of the values.

What `standard` and `small` lose: the mean KL of what was kept is at most 4.5e-4 and 1.8e-3 nats on labels like those
of training. The KL of any single label, both sides scaled to sum to 1, is at most (K + 8) / (2 S^2 P) nats, for K
candidates of mass P and S levels per unit of sqrt(p), the model's inverse_step. (KL is at most the sum of
a ln(a / b) - a + b over a = p S^2 and b = level^2 + 1/12, divided by S^2 P; each term is below 1/2 where the level is
sqrt(a) rounded, and below 9/2 for the one that was lifted above its equal.) A target's logprob is off by 1/64 nat at
most, the roots of the tail mass and of the kept mass by 1/724 (1/512 where nearly nothing is kept), an entropy by
1/4096 nat.

The soft labels of a record are one binary value, which Parquet leaves as it is; a model in the shard says how to read
it. Layout: FORMAT.md, "The packed codecs".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelstore.codecs.packed.decoder import LabelDecoder, has_numba
from labelstore.codecs.packed.model import Model
from labelstore.codecs.tally import Tally
from labelstore.labels import Labels
from labelstore.record import LabelRecord
from labelstore.schema import LabelPositions, flat_list

__all__ = ["PackedCodec", "PackedDecoder", "PackedEncoder", "PackedLabels"]

_COLUMN = "packed_labels"


class PackedCodec:
    """Packs soft labels; `max_kl_nats` bounds what the values' grid costs on average, None keeps them exact."""

    parquet_encodings: ClassVar[Mapping[str, str]] = {}
    uncompressed: ClassVar[frozenset[str]] = frozenset({_COLUMN})
    column_streams: ClassVar[Mapping[str, str]] = {}
    fields = (pa.field(_COLUMN, pa.binary(), nullable=False),)

    def __init__(self, name: str, *, max_kl_nats: float | None) -> None:
        self.name = name
        self.max_kl_nats = max_kl_nats
        self.is_exact = max_kl_nats is None

    def check_can_write(self) -> None:
        """Check that numba is there, before anything is spent on labels.

        Raises:
            ImportError: it is not; the message says how to get it.
        """
        import labelstore.codecs.packed.compiled  # noqa: F401

    def train(
        self, records: Sequence[LabelRecord], *, vocab_size: int, num_labels_expected: int, is_constant_size: bool
    ) -> bytes:
        """Return a model for labels like these records'.

        Raises:
            ImportError: numba is not installed; the message says how to get it.
        """
        from labelstore.codecs.packed.training import train_model

        model = train_model(
            records,
            vocab_size=vocab_size,
            max_kl_nats=self.max_kl_nats,
            num_labels_expected=num_labels_expected,
            is_constant_size=is_constant_size,
        )
        return model.to_bytes()

    def encoder(self, model: bytes) -> PackedEncoder:
        return PackedEncoder(Model.from_bytes(model))

    def decoder(self, model: bytes) -> PackedDecoder:
        return PackedDecoder(Model.from_bytes(model))


class PackedEncoder:
    """Encodes records with one model."""

    def __init__(self, model: Model) -> None:
        from labelstore.codecs.packed.encoder import LabelEncoder

        self._encoder = LabelEncoder(model)

    def encode(self, records: Sequence[LabelRecord]) -> list[pa.Array]:
        """Return the column of `fields`, a row for each record.

        Raises:
            ValueError: a record does not fit the model.
        """
        return [pa.array([self._encoder.encode(record) for record in records], pa.binary())]

    def tally(self) -> Tally:
        """Return what all labels encoded so far have cost."""
        return self._encoder.tally.total()


class PackedDecoder:
    """Opens row groups whose labels were encoded with one model."""

    def __init__(self, model: Model) -> None:
        self._decoder = LabelDecoder(model, is_compiled=has_numba())

    def decode(self, table: pa.Table) -> PackedLabels:
        """Open the soft column of one row group; the hard columns say which tokens the labels are about.

        Raises:
            ValueError: a column is missing or of another type.
        """
        if _COLUMN not in table.column_names or table.schema.field(_COLUMN).type != pa.binary():
            raise ValueError(f"column {_COLUMN!r} must be there and be binary")
        return PackedLabels(table, self._decoder)


class PackedLabels:
    """The packed labels of one row group.

    `row(i)` decodes those of one record where the decoder is compiled; else the first call decodes all that there are.
    """

    def __init__(self, table: pa.Table, decoder: LabelDecoder) -> None:
        self._decoder = decoder
        column = table.column(_COLUMN).combine_chunks()
        _, offsets, content = column.buffers()
        self._offsets = np.frombuffer(offsets, dtype=np.int32, count=len(column) + 1, offset=4 * column.offset)
        self._content = memoryview(content).cast("B") if content is not None else memoryview(b"")
        self._ids_offsets, self._ids = flat_list(table, "input_ids")
        spans = table.column("spans").combine_chunks()
        self._spans_offsets = spans.offsets.to_numpy()
        self._starts = spans.values.field("start").to_numpy()
        self._stops = spans.values.field("stop").to_numpy()
        self._label_positions = LabelPositions(table)
        self._decoded: list[Labels | ValueError] | None = None

    def row(self, row: int) -> Labels:
        """Return the labels of one record.

        Raises:
            ValueError: they are damaged.
        """
        if self._decoder.is_compiled:
            return self._decoder.decode(self._bytes(row), self._target_ids(row))
        if self._decoded is None:
            rows = range(len(self._offsets) - 1)
            data, target_ids = [self._bytes(i) for i in rows], [self._target_ids(i) for i in rows]
            self._decoded = list(self._decoder.decode_each(data, target_ids))
        labels = self._decoded[row]
        if isinstance(labels, ValueError):
            raise labels
        return labels

    def tolerance(self, labels: Labels) -> NDArray[np.float64] | None:
        """Return by how much the square root of a probability may be off in each label [N]; None: by nothing."""
        return self._decoder.tolerance(labels)

    def _bytes(self, row: int) -> memoryview:
        return self._content[self._offsets[row] : self._offsets[row + 1]]

    def _target_ids(self, row: int) -> NDArray[np.int32]:
        ids: NDArray[np.int32] = self._ids[self._ids_offsets[row] : self._ids_offsets[row + 1]].astype(
            np.int32, copy=False
        )
        if (chosen := self._label_positions.row(row)) is not None:
            return ids[chosen[(chosen >= 0) & (chosen < len(ids))]]
        first, stop = self._spans_offsets[row], self._spans_offsets[row + 1]
        spans = zip(self._starts[first:stop], self._stops[first:stop], strict=True)
        targets = [ids[start:stop] for start, stop in spans if 0 <= start <= stop <= len(ids)]
        return np.concatenate(targets) if targets else np.zeros(0, np.int32)
