"""The static model that stands in a shard: which ids go together, how values are spaced, how often symbols come.

V rows of the teacher's output layer, S ids that training saw, Z clusters. Layout: FORMAT.md, "The model of a shard".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelstore.codecs.packed.fixed_log import ln_fixed
from labelstore.codecs.packed.layout import (
    FREQUENCY_CLASSES,
    LIST_CLASSES,
    MAX_CLUSTERS,
    MAX_LISTED,
    MAX_SIZE,
    NUM_CONTEXTS,
    NUM_SYMBOLS,
)
from labelstore.codecs.packed.tables import check_frequencies, coding_entries, symbol_slots

__all__ = ["MAX_INVERSE_STEP", "MAX_VOCAB_SIZE", "Model"]

MAX_VOCAB_SIZE = 1 << 24
MAX_INVERSE_STEP = (1 << 15) - 2  # so that a level has 15 bits
_MAGIC = b"LSM0"
_HEADER = struct.Struct("<4sIIIIIIIII")  # magic, size of the rest, then the numbers of `Model`
_MAX_EXACT_BASE = 0x7FF  # the highest bits of infinity


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """What the packed codecs know before they see a label."""

    vocab_size: int
    size: int  # K of every label; 0 where it differs
    inverse_step: int  # levels per unit of sqrt(p); 0: exact values
    exact_base: int  # exact values: highest bits of the least likely candidate that training saw
    has_draws: bool  # a count beside each candidate
    has_entropy: bool
    num_training_labels: int
    frequency_class_sizes: NDArray[np.uint32]  # how many seen ids are in each class of frequency, most frequent first
    seen_ids: NDArray[np.int32]  # [S], by class, rising in a class
    list_class_sizes: NDArray[np.uint16]  # [Z, LIST_CLASSES]
    list_ranks: NDArray[np.int32]  # the clusters' ids as ranks; by cluster, by class, rising in a class
    frequencies: NDArray[np.uint16] = field(repr=False)  # [contexts, symbols]

    def to_bytes(self) -> bytes:
        """Return the model as it stands in a shard."""
        parts = [
            self.frequency_class_sizes.astype("<u4").tobytes(),
            _planes(_gaps(self.seen_ids, self.frequency_class_sizes.astype(np.int64))),
            self.list_class_sizes.astype("<u2").tobytes(),
            _planes(_gaps(self.list_ranks, self.list_class_sizes.reshape(-1).astype(np.int64))),
            self.frequencies.astype("<u2").tobytes(),
        ]
        content = b"".join(parts)
        header = _HEADER.pack(
            _MAGIC,
            len(content),
            self.vocab_size,
            self.size,
            self.inverse_step,
            self.exact_base,
            int(self.has_draws) | int(self.has_entropy) << 1,
            self.num_training_labels,
            len(self.seen_ids),
            len(self.list_class_sizes),
        )
        return header + pa.Codec("zstd", compression_level=19).compress(content, asbytes=True)  # type: ignore[no-any-return]

    @staticmethod
    @lru_cache(maxsize=8)  # the shards of a run have the same model
    def from_bytes(data: bytes) -> Model:
        """Read a model.

        Raises:
            ValueError: the bytes are not a model.
        """
        if len(data) < _HEADER.size or data[:4] != _MAGIC:
            raise ValueError("the shard's model does not begin as a model does")
        _, num_bytes, vocab_size, size, inverse_step, exact_base, flags, num_labels, num_seen, num_clusters = (
            _HEADER.unpack(data[: _HEADER.size])
        )
        if (
            not 1 <= vocab_size <= MAX_VOCAB_SIZE
            or num_seen > vocab_size
            or not 1 <= num_clusters <= MAX_CLUSTERS
            or size > MAX_SIZE
            or inverse_step > MAX_INVERSE_STEP
            or exact_base > _MAX_EXACT_BASE
            or num_bytes > _max_bytes(num_seen, num_clusters)
            or flags > 3
        ):
            raise ValueError("the shard's model states impossible sizes")
        try:
            content = pa.Codec("zstd").decompress(data[_HEADER.size :], num_bytes, asbytes=True)
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"the shard's model does not unpack: {error}") from error
        source = _Source(content)
        class_sizes = source.take("<u4", FREQUENCY_CLASSES)
        if class_sizes.sum(dtype=np.int64) != num_seen:
            raise ValueError("the shard's model counts its ids in two ways")
        seen_ids = _from_gaps(source.take_planes(num_seen), class_sizes.astype(np.int64), vocab_size)
        if len(np.unique(seen_ids)) != num_seen:
            raise ValueError("the shard's model holds an id twice")
        list_sizes = source.take("<u2", num_clusters * LIST_CLASSES)
        num_listed = int(list_sizes.sum(dtype=np.int64))
        if (list_sizes.reshape(num_clusters, LIST_CLASSES).sum(axis=1, dtype=np.int64) > MAX_LISTED).any():
            raise ValueError(f"the shard's model has a list of more than {MAX_LISTED:,} ids")
        list_ranks = _from_gaps(source.take_planes(num_listed), list_sizes.astype(np.int64), vocab_size)
        frequencies = source.take("<u2", NUM_CONTEXTS * NUM_SYMBOLS).reshape(NUM_CONTEXTS, NUM_SYMBOLS)
        source.check_end()
        check_frequencies(frequencies)
        return Model(
            vocab_size=vocab_size,
            size=size,
            inverse_step=inverse_step,
            exact_base=exact_base,
            has_draws=bool(flags & 1),
            has_entropy=bool(flags & 2),
            num_training_labels=num_labels,
            frequency_class_sizes=class_sizes,
            seen_ids=seen_ids,
            list_class_sizes=list_sizes.reshape(num_clusters, LIST_CLASSES),
            list_ranks=list_ranks,
            frequencies=frequencies,
        )

    @cached_property
    def id_of_rank(self) -> NDArray[np.int32]:
        """All ids [V]: those that training saw by falling frequency, then the others."""
        is_seen = np.zeros(self.vocab_size, dtype=np.bool_)
        is_seen[self.seen_ids] = True
        return np.concatenate([self.seen_ids, np.flatnonzero(~is_seen).astype(np.int32)])

    @cached_property
    def rank_of_id(self) -> NDArray[np.int32]:
        """The inverse of id_of_rank [V]."""
        ranks = np.empty(self.vocab_size, dtype=np.int32)
        ranks[self.id_of_rank] = np.arange(self.vocab_size, dtype=np.int32)
        return ranks

    @cached_property
    def list_offsets(self) -> NDArray[np.int32]:
        """Where each cluster's list begins [Z + 1]."""
        sizes = self.list_class_sizes.sum(axis=1, dtype=np.int64)
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)

    @cached_property
    def list_classes(self) -> NDArray[np.uint8]:
        """The place class of each entry of the lists."""
        classes = np.tile(np.arange(LIST_CLASSES, dtype=np.uint8), len(self.list_class_sizes))
        return np.repeat(classes, self.list_class_sizes.reshape(-1))

    @cached_property
    def entries(self) -> NDArray[np.uint32]:
        """Frequency and start of each symbol; see tables.coding_entries."""
        return coding_entries(self.frequencies)

    @cached_property
    def slots(self) -> NDArray[np.uint8]:
        """The symbol of each slot; see tables.symbol_slots."""
        return symbol_slots(self.frequencies)

    @cached_property
    def log_of_level(self) -> NDArray[np.int64]:
        """Logarithm of each level's weight, 12 level^2 + 1, in units of 2^-24 nats."""
        levels = np.arange(self.inverse_step + 2, dtype=np.int64)
        return ln_fixed(12 * levels * levels + 1)

    @cached_property
    def weight_of_one(self) -> int:
        """What the weights of all candidates add up to where the tail is empty; 0: exact values."""
        return 12 * self.inverse_step**2


def _max_bytes(num_seen: int, num_clusters: int) -> int:
    """Return the most bytes that a model has once it is unpacked."""
    num_ids = num_seen + num_clusters * MAX_LISTED
    return 4 * FREQUENCY_CLASSES + 3 * num_ids + 2 * LIST_CLASSES * num_clusters + 2 * NUM_CONTEXTS * NUM_SYMBOLS


def _gaps(values: NDArray[np.int32], run_sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the steps between the values of rising runs; a run's first value is its own step."""
    starts = np.cumsum(run_sizes) - run_sizes
    gaps = np.diff(values.astype(np.int64), prepend=0)
    firsts = starts[run_sizes > 0]
    gaps[firsts] = values[firsts]
    return gaps


def _from_gaps(gaps: NDArray[np.int64], run_sizes: NDArray[np.int64], limit: int) -> NDArray[np.int32]:
    totals = np.cumsum(gaps)
    starts = np.cumsum(run_sizes) - run_sizes
    before = np.concatenate([[0], totals])[starts]
    values: NDArray[np.int64] = totals - np.repeat(before, run_sizes)
    if len(values) and (values.min() < 0 or values.max() >= limit):
        raise ValueError("the shard's model holds an id beyond its vocabulary")
    return values.astype(np.int32)


def _planes(values: NDArray[np.int64]) -> bytes:
    """Return the values' low, middle and high bytes, one plane after the other."""
    return b"".join(((values >> shift) & 0xFF).astype(np.uint8).tobytes() for shift in (0, 8, 16))


class _Source:
    """Bytes taken from front to end, never beyond."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0

    def take(self, dtype: str, count: int) -> NDArray[Any]:
        size = np.dtype(dtype).itemsize * count
        if self._place + size > len(self._content):
            raise ValueError("the shard's model ends too early")
        values = np.frombuffer(self._content, dtype=dtype, count=count, offset=self._place)
        self._place += size
        return values

    def take_planes(self, count: int) -> NDArray[np.int64]:
        low, middle, high = (self.take("u1", count).astype(np.int64) for _ in range(3))
        return low | (middle << 8) | (high << 16)

    def check_end(self) -> None:
        if self._place != len(self._content):
            raise ValueError("the shard's model has bytes behind its end")
