"""Which model a codec's next shard gets: trained on the first labels, and again while there is much more to learn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from labelstore.codecs import Codec
from labelstore.entry import Entry, ShardEntry
from labelstore.errors import DamagedDatasetError
from labelstore.record import LabelRecord
from labelstore.shard_reader import ShardReader
from labelstore.store import ReadableStore

__all__ = ["ENOUGH_LABELS", "ModelSource", "expected_labels"]

# Training takes no more than this, so a larger block would teach it nothing (codecs.packed.training).
ENOUGH_LABELS = 200_000
_GROWTH = 4  # train again when a block has so many times the labels of the last training


def expected_labels(num_in_block: int) -> int:
    """Return how many labels a model is made for that is trained on a block of so many.

    A small block may be all there is: its model is no larger than its own labels pay for.
    """
    return num_in_block if num_in_block < ENOUGH_LABELS else 1_000_000


class ModelSource:
    """Keeps the model of a run. Each shard holds its own copy, so that a change of model changes no older shard."""

    def __init__(self, codec: Codec, *, vocab_size: int, is_constant_size: bool) -> None:
        self._codec = codec
        self._vocab_size = vocab_size
        self._is_constant_size = is_constant_size
        self._model: bytes | None = None
        self._num_labels = 0

    def model_for(self, records: Sequence[LabelRecord]) -> bytes:
        """Return the model for a block's records.

        Raises:
            ImportError: the codec needs a library to write that is not installed.
        """
        num_labels = sum(len(record.labels) for record in records)
        if self._model is None or self._has_more(num_labels):
            self._model = self.train(records, num_labels_expected=expected_labels(num_labels))
            self._num_labels = num_labels
        return self._model

    def recall(self, store: ReadableStore, entries: Iterable[Entry]) -> None:
        """Take up the model where the job that published these entries left it.

        So a job that was killed trains no more often, and gives the same shards, as one that never was. A model that
        cannot be read is trained again.
        """
        last: ShardEntry | None = None
        for entry in entries:
            shards = [shard for shard in entry.shards if shard.codec == self._codec.name]
            num_labels = sum(shard.counts.num_labels for shard in shards)
            if shards:
                last = shards[-1]
                self._num_labels = num_labels if self._has_more(num_labels) else self._num_labels
        if last is not None:
            try:
                self._model = ShardReader(store, last).read_model()
            except DamagedDatasetError:
                self._num_labels = 0

    def _has_more(self, num_labels: int) -> bool:
        """Return whether a block of so many labels has much more to teach than the last training had."""
        return self._num_labels < ENOUGH_LABELS and num_labels >= _GROWTH * self._num_labels

    def train(self, records: Sequence[LabelRecord], *, num_labels_expected: int) -> bytes:
        """Return a model for labels like these, of which so many will be in a shard.

        Raises:
            ImportError: as `model_for`.
        """
        return self._codec.train(
            records,
            vocab_size=self._vocab_size,
            num_labels_expected=num_labels_expected,
            is_constant_size=self._is_constant_size,
        )
