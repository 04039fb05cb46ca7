"""How soft labels become columns of a shard. A codec's name stands for one layout forever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelstore.codecs.open import OpenCodec
from labelstore.codecs.packed.codec import PackedCodec
from labelstore.codecs.tally import Tally
from labelstore.labels import Labels
from labelstore.record import LabelRecord

__all__ = ["CODECS", "DEFAULT_CODEC", "Codec", "DecodedLabels", "Decoder", "Encoder", "codec_named"]

STANDARD_KL_NATS = 4.4e-4  # as trained; what is promised of a dataset's mean is 4.5e-4


class DecodedLabels(Protocol):
    """The soft labels of one row group."""

    def row(self, row: int, /) -> Labels: ...
    def tolerance(self, labels: Labels, /) -> NDArray[np.float64] | None:
        """Return by how much the square root of a probability may be off in each label [N]; None: by nothing."""


class Encoder(Protocol):
    """Encodes the soft labels of a shard, one row group after the other."""

    def encode(self, records: Sequence[LabelRecord], /) -> list[pa.Array]: ...
    def tally(self) -> Tally:
        """Return what all labels encoded so far have cost."""


class Decoder(Protocol):
    """Decodes the soft labels of one row group."""

    def decode(self, table: pa.Table, /) -> DecodedLabels: ...


class Codec(Protocol):
    """A layout of the soft labels. What it has learned about them, its model, stands once in each shard."""

    @property
    def name(self) -> str: ...
    @property
    def is_exact(self) -> bool:
        """Whether every value comes back bit for bit."""

    @property
    def parquet_encodings(self) -> Mapping[str, str]:
        """The Parquet encodings of its columns, by path, where they are not PLAIN."""

    @property
    def uncompressed(self) -> Set[str]:
        """The columns that Parquet is to leave as they are."""

    @property
    def column_streams(self) -> Mapping[str, str]:
        """The stream ("ids", "values", "target_and_tail") of each of its columns that has one."""

    @property
    def fields(self) -> Sequence[pa.Field]: ...
    def check_can_write(self) -> None:
        """Raise ImportError where a library that writing needs is not installed."""

    def train(
        self, records: Sequence[LabelRecord], /, *, vocab_size: int, num_labels_expected: int, is_constant_size: bool
    ) -> bytes:
        """Return a model for labels like these; `is_constant_size`: K is the same for all that will come."""

    def encoder(self, model: bytes, /) -> Encoder: ...
    def decoder(self, model: bytes, /) -> Decoder: ...


CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        OpenCodec(),
        PackedCodec("exact", max_kl_nats=None),
        PackedCodec("standard", max_kl_nats=STANDARD_KL_NATS),
        PackedCodec("small", max_kl_nats=4 * STANDARD_KL_NATS),
    )
}
DEFAULT_CODEC = "standard"


def codec_named(name: str) -> Codec:
    """Return the codec of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in CODECS:
        raise ValueError(f"--codec must be one of {', '.join(CODECS)}, got {name!r}")
    return CODECS[name]
