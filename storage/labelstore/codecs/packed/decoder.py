"""Decodes the packed labels of records with a shard's model: compiled where numba is installed, else with numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.coded import Coded, empty_coded, lookup_of
from labelstore.codecs.packed.frame import read_frame
from labelstore.codecs.packed.layout import ENTROPY_STEPS, MAX_SIZE, TARGET_STEPS
from labelstore.codecs.packed.model import Model
from labelstore.labels import Labels

__all__ = ["LabelDecoder"]


class LabelDecoder:
    """Decodes records that were encoded with one model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._lookup = lookup_of(model)

    def decode(self, data: memoryview, target_ids: NDArray[np.int32]) -> Labels:
        """Return the labels of one record about these tokens, each label's candidates most likely first.

        Raises:
            ValueError: the bytes are damaged.
        """
        if len(target_ids) == 0 and len(data) == 0:
            return self._labels(empty_coded(self._model, num_labels=0, num_candidates=0))
        return self._labels(self.coded(data, target_ids))

    def coded(self, data: memoryview, target_ids: NDArray[np.int32]) -> Coded:
        """Return a record's labels as the coder gives them: each label's candidates by place in its cluster's order.

        Raises:
            ValueError: the bytes are damaged.
        """
        from labelstore.codecs.packed.decode_kernels import decode_steps

        model, num_labels = self._model, len(target_ids)
        frame = read_frame(data, num_labels=num_labels, has_sizes=model.size == 0, has_unit=model.inverse_step == 0)
        num_candidates = num_labels * model.size if frame.num_candidates is None else frame.num_candidates
        if num_candidates > num_labels * MAX_SIZE:
            raise ValueError(f"{num_labels} labels cannot have {num_candidates} candidates")
        coded = empty_coded(model, num_labels=num_labels, num_candidates=num_candidates)
        if not decode_steps(frame.words, frame.lane_starts, frame.unit, target_ids, self._lookup, coded):
            raise ValueError("the packed labels do not decode")
        return coded

    def tolerance(self, labels: Labels) -> NDArray[np.float64] | None:
        """Return by how much the square root of a probability may be off in each label [N]; None: by nothing.

        A level is off by half a step; a label's first candidate by another step, where it was lifted above its
        equals. Scaling to the kept mass moves a root p by p * (0.55 * sqrt(K) steps + 1 / 256) at most.
        """
        if self._model.inverse_step == 0:
            return None
        sizes = np.diff(labels.candidate_offsets)
        return (1.55 + 0.55 * np.sqrt(sizes)) / self._model.inverse_step + 1 / 256 + 1 / (2 * TARGET_STEPS)

    def _labels(self, coded: Coded) -> Labels:
        from labelstore.codecs.packed.decode_kernels import sort_exact, sort_grid

        model = self._model
        token_ids = np.empty_like(coded.token_ids)
        draw_counts = np.empty_like(coded.draw_counts)
        if model.inverse_step == 0:
            bits = np.empty_like(coded.exact_bits)
            sort_exact(coded, token_ids, bits, draw_counts)
            logprobs = _negative(bits)
            target_logprobs = _negative(coded.targets.astype(np.uint32))
            tail_mass = coded.tails.astype(np.uint32).view(np.float32)
            entropy = coded.entropies.view(np.float32)
        else:
            logprobs = np.empty(len(token_ids), np.float32)
            sort_grid(coded, self._lookup.log_of_level, token_ids, logprobs, draw_counts)
            target_logprobs = (coded.targets / -TARGET_STEPS).astype(np.float32)
            kept = np.maximum(65536 - coded.tails * coded.tails, 1)
            tail_mass = (1 - kept / 65536).astype(np.float32)
            entropy = (coded.entropies / ENTROPY_STEPS).astype(np.float32)
        return Labels(
            token_ids=token_ids,
            logprobs=logprobs,
            candidate_offsets=coded.offsets,
            target_logprobs=target_logprobs,
            target_ranks=coded.ranks.astype(np.int32),
            tail_mass=tail_mass,
            draw_counts=draw_counts if model.has_draws else None,
            entropy=entropy if model.has_entropy else None,
        )


def _negative(bits: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Return the numbers of float32 bits with their sign set; zero has none."""
    signed = np.where(bits > 0, bits | np.uint32(0x80000000), bits).astype(np.uint32)
    return signed.view(np.float32)
