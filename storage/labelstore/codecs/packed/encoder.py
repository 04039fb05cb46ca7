"""Encodes the labels of records with a model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.encode_kernels import (
    EMPTY_SLOT,
    Chosen,
    assign_clusters,
    choose_classes,
    code_steps,
    fill_hashes,
    find_gaps,
    find_places,
    label_steps,
)
from labelstore.codecs.packed.frame import lanes_of, write_frame
from labelstore.codecs.packed.label_tally import LabelTally
from labelstore.codecs.packed.layout import (
    CLUSTER_HIGH,
    CLUSTER_LOW,
    CLUSTER_LOW_BITS,
    FIT,
    FREQUENCY_CLASSES,
    FREQUENCY_STEPS,
    GAP,
    LIST_CLASSES,
    MAX_SIZE,
    NUM_FITS,
    NUM_PLACES,
    NUM_SHAPES,
    NUM_SYMBOLS,
    NUM_VALUE_PLACES,
    NUMBER_BITS,
    SHAPE,
    STREAMS,
    TABLE_BITS,
    VALUE,
)
from labelstore.codecs.packed.model import MAX_VOCAB_SIZE, Model
from labelstore.codecs.packed.tables import symbol_bits
from labelstore.codecs.packed.values import counts_of, exact_values, float_bits, grid_values, unit_exponent
from labelstore.labels import Labels
from labelstore.record import LabelRecord

__all__ = ["Costs", "LabelEncoder", "costs_of_bits", "list_class_of"]

_SCORES_PER_BIT = 4  # 127 of them, 32 bits, at most
_UNLISTED_BITS = -4.0  # log-odds of an id that is not in a cluster's list, against its frequency
_ASSIGN_IDS = 32  # a label's likeliest ids that decide its cluster (benchmarks/LOG.md)


class Costs(NamedTuple):
    """What symbols cost in bits, to choose a label's shape and fit."""

    values: NDArray[np.float32]  # [value places, symbols, shapes]
    shapes: NDArray[np.float32]  # [shapes]
    gaps: NDArray[np.float32]  # [places, symbols, fits]
    fits: NDArray[np.float32]  # [shapes, fits]


class LabelEncoder:
    """Encodes records with one model; not for several threads at once."""

    def __init__(self, model: Model, *, costs: Costs | None = None) -> None:
        self.model = model
        self._ranks = model.rank_of_id
        self._slot_offsets, self._slots = _hashes_of(model)
        self._scores, self._priors = _scores_of(model)
        self._costs = costs_of_bits(symbol_bits(model.frequencies)) if costs is None else costs
        # Memory that every record uses again: getting it from the system takes longer than filling it.
        self._scratch = np.zeros((4, 0), dtype=np.int64)
        self._steps = np.zeros(0, dtype=np.int64)
        self._words = np.zeros(0, dtype=np.uint32)
        self.tally = LabelTally(model)

    def encode(self, record: LabelRecord) -> bytes:
        """Return the packed labels of one record; nothing where it has none.

        Raises:
            ValueError: the record does not fit the model.
        """
        if len(record.labels) == 0:
            return b""
        steps, step_offsets, unit = self.steps_of(record)
        num_lanes = lanes_of(len(record.labels))
        lane_words = np.zeros(num_lanes, dtype=np.int64)
        max_words = int(step_offsets[-1]) + 2 * num_lanes
        if len(self._words) < max_words:
            self._words = np.zeros(2 * max_words, dtype=np.uint32)
        start = code_steps(steps, step_offsets, num_lanes, self.model.entries, self._words, lane_words)
        packed = write_frame(
            self._words[start:],
            lane_words,
            num_candidates=None if self.model.size else record.token_ids.size,
            unit=unit if self.model.inverse_step == 0 else None,
        )
        self.tally.add(record.labels, self._values, steps[: step_offsets[-1]], num_bytes=len(packed))
        return packed

    def steps_of(self, record: LabelRecord) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Return a record's coding steps, where each label's begin [N + 1], and the unit of its exact values.

        The steps are overwritten by the next call.

        Raises:
            ValueError: the record does not fit the model.
        """
        labels = record.labels
        self._check_fits(labels)
        unit = 0
        if self.model.inverse_step:
            values = grid_values(labels, self.model)
        else:
            unit = unit_exponent(float_bits(labels.logprobs.reshape(-1)))
            values = exact_values(labels, self.model, unit)
        self._values = values
        token_ids = np.ascontiguousarray(labels.token_ids.reshape(-1))
        offsets = labels.candidate_offsets
        clusters = np.empty(len(labels), dtype=np.int32)
        ranks = self._ranks.take(token_ids)
        assign_clusters(ranks, offsets, _ASSIGN_IDS, self._scores, self._priors, clusters)
        if self._scratch.shape[1] < token_ids.size:
            self._scratch = np.empty((4, 2 * token_ids.size), dtype=np.int64)
        places, order, gaps = (row[: token_ids.size] for row in self._scratch[:3])
        begins, classes = (row[: token_ids.size] for row in self._scratch[3].view(np.uint8).reshape(8, -1)[:2])
        shapes, fits = np.empty((2, len(labels)), dtype=np.int64)
        model = self.model
        doubled = find_places(
            ranks,
            offsets,
            clusters,
            model.list_offsets,
            self._slot_offsets,
            self._slots,
            places,
            order,
        )
        if doubled >= 0:
            raise ValueError(f"label {doubled} has a candidate's id twice")
        find_gaps(
            offsets,
            clusters,
            places,
            model.list_offsets,
            model.list_classes,
            gaps,
            begins,
            classes,
        )
        choose_classes(offsets, gaps, begins, classes, order, values.levels, *self._costs, shapes, fits)
        num_steps = 16 * len(labels) + 7 * token_ids.size
        if len(self._steps) < num_steps:
            self._steps = np.empty(2 * num_steps, dtype=np.int64)
        step_offsets = np.zeros(len(labels) + 1, dtype=np.int64)
        chosen = Chosen(
            token_ids=token_ids,
            offsets=offsets,
            draw_counts=counts_of(labels),
            target_ids=record.target_ids,
            target_ranks=labels.target_ranks,
            clusters=clusters,
            shapes=shapes,
            fits=fits,
            gaps=gaps,
            begins=begins,
            classes=classes,
            order=order,
            is_constant_size=model.size > 0,
        )
        label_steps(chosen, values, self._steps, step_offsets)
        return self._steps, step_offsets, unit

    def _check_fits(self, labels: Labels) -> None:
        sizes = np.diff(labels.candidate_offsets)
        if self.model.size and (sizes != self.model.size).any():
            raise ValueError(
                f"every label must have {self.model.size} candidates, as those that the model is for, "
                f"got {sizes[sizes != self.model.size][0]}"
            )
        if labels.token_ids.max(initial=0) >= self.model.vocab_size:
            raise ValueError(
                f"candidates' ids must be below {self.model.vocab_size:,}, as the model is for, "
                f"got {labels.token_ids.max()}"
            )
        if len(sizes) and sizes.max() > MAX_SIZE:
            raise ValueError(f"a label can have {MAX_SIZE:,} candidates, got {sizes.max():,}; use --codec open")
        if labels.target_ranks.max(initial=1) > MAX_VOCAB_SIZE:
            raise ValueError(f"a target's rank can be {MAX_VOCAB_SIZE:,}, got {labels.target_ranks.max():,}")
        if labels.draw_counts is not None and labels.draw_counts.max(initial=0) >= 1 << NUMBER_BITS:
            raise ValueError(
                f"a candidate can be drawn {(1 << NUMBER_BITS) - 1:,} times, got {labels.draw_counts.max():,}; "
                f"use --codec open"
            )
        if (labels.draw_counts is not None, labels.entropy is not None) != (
            self.model.has_draws,
            self.model.has_entropy,
        ):
            raise ValueError("draws and entropy must be there for all records of a shard or for none")


def costs_of_bits(bits: NDArray[np.float32]) -> Costs:
    """Arrange costs by context and symbol so that the choices lie side by side."""
    values = bits[VALUE : VALUE + NUM_SHAPES * NUM_VALUE_PLACES].reshape(NUM_SHAPES, NUM_VALUE_PLACES, NUM_SYMBOLS)
    gaps = bits[GAP : GAP + NUM_FITS * NUM_PLACES].reshape(NUM_FITS, NUM_PLACES, NUM_SYMBOLS)
    return Costs(
        values=np.ascontiguousarray(values.transpose(1, 2, 0)),
        shapes=np.ascontiguousarray(bits[SHAPE, :NUM_SHAPES]),
        gaps=np.ascontiguousarray(gaps.transpose(1, 2, 0)),
        fits=np.ascontiguousarray(bits[FIT : FIT + NUM_SHAPES, :NUM_FITS]),
    )


def _hashes_of(model: Model) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the hash tables that find an id's place in a cluster's list by its rank; see fill_hashes."""
    sizes = np.diff(model.list_offsets).astype(np.float64)
    num_slots = 2 ** np.ceil(np.log2(2 * sizes + 2)).astype(np.int64)
    slot_offsets = np.concatenate([[0], np.cumsum(num_slots)])
    slots = np.full(slot_offsets[-1], EMPTY_SLOT, dtype=np.uint64)
    fill_hashes(model.list_offsets, model.list_ranks, slot_offsets, slots)
    return slot_offsets, slots


def _scores_of(model: Model) -> tuple[NDArray[np.int8], NDArray[np.int16]]:
    """Return how much each seen id speaks for each cluster [S, Z], and each cluster's frequency [Z], in 1/4 bits."""
    num_clusters = len(model.list_class_sizes)
    classes = np.repeat(np.arange(FREQUENCY_CLASSES), model.frequency_class_sizes)
    log_count = (FREQUENCY_CLASSES - 1 - classes) / FREQUENCY_STEPS
    log_frequency = log_count - np.log2(max(model.num_training_labels, 1))  # of each rank
    scores = np.full((len(model.seen_ids), num_clusters), scores_of(np.float64(_UNLISTED_BITS)), dtype=np.int8)
    clusters = np.repeat(np.arange(num_clusters), np.diff(model.list_offsets))
    log_odds = class_log_odds(model.list_classes.astype(np.float64))
    log_listed = -np.log2(1 + 2.0**-log_odds)
    scores[model.list_ranks, clusters] = scores_of(log_listed - log_frequency[model.list_ranks])
    probabilities = model.frequencies.astype(np.float64) / (1 << TABLE_BITS)
    high = probabilities[CLUSTER_HIGH]
    low = probabilities[CLUSTER_LOW : CLUSTER_LOW + STREAMS["cluster_low"]]
    z = np.arange(num_clusters)
    frequency = high[z >> CLUSTER_LOW_BITS] * low[z >> CLUSTER_LOW_BITS, z & ((1 << CLUSTER_LOW_BITS) - 1)]
    frequency = np.maximum(frequency, 2.0**-20)
    return scores, priors_of(np.log2(frequency))


def scores_of(bits: NDArray[np.float64]) -> NDArray[np.int8]:
    """Return log2 odds in the steps in which ids speak for clusters."""
    return np.clip(np.rint(bits * _SCORES_PER_BIT), -127, 127).astype(np.int8)


def priors_of(bits: NDArray[np.float64]) -> NDArray[np.int16]:
    """Return the clusters' log2 frequencies in the same steps."""
    return np.rint(bits * _SCORES_PER_BIT).astype(np.int16)


def class_log_odds(classes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log2 odds of an id in the middle of a class of likely ids."""
    return 2.0 - classes / 2


def list_class_of(log_odds: NDArray[np.float64]) -> NDArray[np.int64]:
    """The inverse of class_log_odds, clipped to the classes that there are."""
    return np.clip(np.rint((2.0 - log_odds) * 2), 0, LIST_CLASSES - 1).astype(np.int64)
