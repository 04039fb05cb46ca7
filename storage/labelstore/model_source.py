"""Which model a codec's next shard gets: trained on the first labels, and again while there is much more to learn."""

from __future__ import annotations

from collections.abc import Sequence

from labelstore.codecs import Codec
from labelstore.record import LabelRecord

__all__ = ["ModelSource"]

# Training takes no more than this, so a larger block would teach it nothing (codecs.packed.training).
ENOUGH_LABELS = 200_000
_GROWTH = 4  # train again when a block has so many times the labels of the last training


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
        has_more = self._num_labels < ENOUGH_LABELS and num_labels >= _GROWTH * self._num_labels
        if self._model is None or has_more:
            # A small block may be all there is: its model is no larger than its own labels pay for.
            self._model = self.train(
                records, num_labels_expected=num_labels if num_labels < ENOUGH_LABELS else 1_000_000
            )
            self._num_labels = num_labels
        return self._model

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
