"""How soft labels become columns of a shard. A codec's name stands for one layout forever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import pyarrow as pa

from labelstore.codecs.open import OpenCodec
from labelstore.labels import Labels

__all__ = ["CODECS", "Codec", "DecodedLabels", "codec_named"]


class DecodedLabels(Protocol):
    """The soft labels of one row group."""

    def row(self, row: int, /) -> Labels: ...


class Codec(Protocol):
    """Encodes and decodes the soft labels of one row group."""

    @property
    def name(self) -> str: ...
    @property
    def logprob_tolerance(self) -> float:
        """By how many nats a logprob may differ after a round trip."""

    @property
    def parquet_encodings(self) -> Mapping[str, str]:
        """The Parquet encodings of its columns, by path, where they are not PLAIN."""

    @property
    def fields(self) -> Sequence[pa.Field]: ...
    def encode(self, labels: Sequence[Labels]) -> list[pa.Array]: ...
    def decode(self, table: pa.Table) -> DecodedLabels: ...


CODECS: dict[str, Codec] = {"open": OpenCodec()}


def codec_named(name: str) -> Codec:
    """Return the codec of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in CODECS:
        raise ValueError(f"--codec must be one of {', '.join(CODECS)}, got {name!r}")
    return CODECS[name]
