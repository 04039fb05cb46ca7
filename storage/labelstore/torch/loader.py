"""A DataLoader over a stream of batches that knows where it stands, whatever its workers have read ahead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader

from labelstore.torch.batch import Batch
from labelstore.torch.stream import BatchStream

__all__ = ["BatchLoader"]


class BatchLoader:
    """The batches of a stream, an epoch each time it is iterated, made by the stream's workers where it has any.

    Its state is that of the batch that was yielded last: what workers have read ahead is not lost.
    """

    def __init__(
        self, stream: BatchStream, *, prefetch_batches: int = 2, pin_memory: bool = False, context: str | None = None
    ) -> None:
        """Wrap a stream; `prefetch_batches` is for each worker, `context` how they start ("fork", "spawn", ...)."""
        self._stream = stream
        self._num_workers = stream.num_workers if stream.num_workers > 1 else 0
        self._prefetch_batches = prefetch_batches
        self._pin_memory = pin_memory
        self._context = context

    def __len__(self) -> int:
        """Return how many batches are left of this epoch."""
        return self._stream.num_steps_left

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches that are left of this epoch; then go to the next one."""
        epoch = self._stream.epoch
        loader: DataLoader[Batch] = DataLoader(
            self._stream,
            batch_size=None,
            num_workers=self._num_workers,
            prefetch_factor=self._prefetch_batches if self._num_workers else None,
            pin_memory=self._pin_memory,
            multiprocessing_context=self._context if self._num_workers else None,
        )
        for batch in loader:
            assert batch.stream_state is not None, "a stream's batches have a state"
            if self._num_workers:  # the workers' copies have moved on, this one has not
                self._stream.load_state_dict(batch.stream_state)
            yield batch
        self._stream.set_epoch(epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """Return where the batch that was yielded last ends, as plain JSON values, the same on all ranks."""
        return self._stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another loader stood; see BatchStream.

        Raises:
            ValueError: it read other records, or in another order.
        """
        self._stream.load_state_dict(state)
