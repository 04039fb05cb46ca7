"""Decodes the packed labels of records with a shard's model: compiled where numba is installed, else with numpy."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.coded import Coded, empty_coded, lookup_of
from labelstore.codecs.packed.fixed_log import kept_of_tail
from labelstore.codecs.packed.frame import Frame, read_frame
from labelstore.codecs.packed.layout import ENTROPY_STEPS, KEPT_BITS, TARGET_STEPS
from labelstore.codecs.packed.model import Model
from labelstore.codecs.packed.numpy_batch import Batch
from labelstore.codecs.packed.numpy_decoder import NumpyDecoder
from labelstore.labels import Labels

__all__ = ["LabelDecoder", "has_numba"]


# The numpy decoder works on so many records together: the arrays of a batch take 30 bytes a candidate.
MAX_BATCH_RECORDS = 1024
MAX_BATCH_CANDIDATES = 1 << 22


@lru_cache(maxsize=1)
def has_numba() -> bool:
    """Can the compiled decoder be used here?"""
    return importlib.util.find_spec("numba") is not None


class LabelDecoder:
    """Decodes records that were encoded with one model."""

    def __init__(self, model: Model, *, is_compiled: bool) -> None:
        """Open a model; `is_compiled` needs numba, and without it records are best decoded many at a time."""
        self.is_compiled = is_compiled
        self._model = model
        self._lookup = lookup_of(model)
        self._numpy_decoder = None if is_compiled else NumpyDecoder(self._lookup)

    def decode(self, data: memoryview, target_ids: NDArray[np.int32]) -> Labels:
        """Return the labels of one record about these tokens, each label's candidates most likely first.

        Raises:
            ValueError: the bytes are damaged.
        """
        (labels,) = self.decode_each([data], [target_ids])
        if isinstance(labels, ValueError):
            raise labels
        return labels

    def decode_each(
        self, data: Sequence[memoryview], target_ids: Sequence[NDArray[np.int32]]
    ) -> Iterator[Labels | ValueError]:
        """Yield the labels of each record, or what is wrong with its bytes."""
        for coded in self.coded_each(data, target_ids):
            try:
                yield coded if isinstance(coded, ValueError) else self._labels(coded)
            except ValueError as error:
                yield error

    def coded_each(
        self, data: Sequence[memoryview], target_ids: Sequence[NDArray[np.int32]]
    ) -> Iterator[Coded | ValueError]:
        """Yield each record's labels as integers, or what is wrong with its bytes."""
        frames: list[Frame | ValueError] = []
        first, num_candidates = 0, 0
        for i, (record, ids) in enumerate(zip(data, target_ids, strict=True)):
            try:
                frame: Frame | ValueError = self._frame(record, num_labels=len(ids))
            except ValueError as error:
                frame = error
            more = 0 if isinstance(frame, ValueError) else frame.num_candidates
            limit = 1 if self.is_compiled else MAX_BATCH_RECORDS
            if frames and (len(frames) >= limit or num_candidates + more > MAX_BATCH_CANDIDATES):
                yield from self._decode_frames(frames, target_ids[first:i])
                frames, first, num_candidates = [], i, 0
            frames.append(frame)
            num_candidates += more
        yield from self._decode_frames(frames, target_ids[first:])

    def _frame(self, data: memoryview, *, num_labels: int) -> Frame:
        model = self._model
        return read_frame(data, num_labels=num_labels, size=model.size, has_unit=model.inverse_step == 0)

    def _decode_frames(
        self, frames: Sequence[Frame | ValueError], target_ids: Sequence[NDArray[np.int32]]
    ) -> Iterator[Coded | ValueError]:
        sound = [(frame, ids) for frame, ids in zip(frames, target_ids, strict=True) if isinstance(frame, Frame)]
        decoded = iter(self._decode_sound([frame for frame, _ in sound], [ids for _, ids in sound]))
        for frame in frames:
            coded = next(decoded) if isinstance(frame, Frame) else frame
            yield ValueError("the packed labels do not decode") if coded is None else coded

    def _decode_sound(self, frames: Sequence[Frame], target_ids: Sequence[NDArray[np.int32]]) -> list[Coded | None]:
        if not frames:
            return []
        num_candidates = sum(frame.num_candidates for frame in frames)
        try:
            coded = empty_coded(self._model, num_labels=sum(map(len, target_ids)), num_candidates=num_candidates)
            if self._numpy_decoder is not None:
                return self._numpy_decoder.decode(Batch(frames, target_ids, coded))
        except MemoryError:
            return [None] * len(frames)
        from labelstore.codecs.packed.decode_kernels import decode_record

        (frame,), (ids,) = frames, target_ids
        return [coded if decode_record(frame, ids, self._lookup, coded) else None]

    def tolerance(self, labels: Labels) -> NDArray[np.float64] | None:
        """Return by how much the square root of a probability may be off in each label [N]; None: by nothing.

        A level is off by half a step; a label's first candidate by another step, where it was lifted above its
        equals. Scaling to the kept mass moves a root by 0.55 * sqrt(K) steps at most, and by what the root of the
        kept mass is off: 1/724, or 1/512 where nearly nothing is kept.
        """
        if self._model.inverse_step == 0:
            return None
        sizes = np.diff(labels.candidate_offsets)
        bound: NDArray[np.float64] = (1.55 + 0.55 * np.sqrt(sizes)) / self._model.inverse_step
        bound += 1 / 512 + 1 / (4 * TARGET_STEPS) + 1e-6
        return bound

    def _labels(self, coded: Coded) -> Labels:
        model = self._model
        if model.inverse_step == 0:
            logprobs = _negative(coded.exact_bits)
            target_logprobs = _negative(coded.targets.astype(np.uint32))
            tail_mass = coded.tails.astype(np.uint32).view(np.float32)
            entropy = coded.entropies.view(np.float32)
        else:
            logprobs = coded.logprobs
            target_logprobs = (coded.targets / -TARGET_STEPS).astype(np.float32)
            tail_mass = (1 - kept_of_tail()[coded.tails] / (1 << KEPT_BITS)).astype(np.float32)
            entropy = (coded.entropies / ENTROPY_STEPS).astype(np.float32)
        return Labels(
            token_ids=coded.token_ids,
            logprobs=logprobs,
            candidate_offsets=coded.offsets,
            target_logprobs=target_logprobs,
            target_ranks=coded.ranks.astype(np.int32),
            tail_mass=tail_mass,
            draw_counts=coded.draw_counts if model.has_draws else None,
            entropy=entropy if model.has_entropy else None,
        )


def _negative(bits: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Return the numbers of float32 bits with their sign set; zero has none."""
    signed = np.where(bits > 0, bits | np.uint32(0x80000000), bits).astype(np.uint32)
    return signed.view(np.float32)
