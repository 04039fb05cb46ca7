"""Training a shard's model on a sample of labels. N labels, C candidates, S seen ids, Z clusters.

The clusters are a Bernoulli mixture over the sets of ids, by hard expectation maximization.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.compiled import compiled
from labelstore.codecs.packed.encode_kernels import assign_clusters
from labelstore.codecs.packed.encoder import (
    Costs,
    LabelEncoder,
    class_log_odds,
    costs_of_bits,
    list_class_of,
    priors_of,
    scores_of,
)
from labelstore.codecs.packed.layout import (
    DIRECT,
    DIRECT_BITS,
    EXACT_REST_BITS,
    FREQUENCY_CLASSES,
    FREQUENCY_STEPS,
    GAP,
    LIST_CLASSES,
    MAX_LISTED,
    MAX_SIZE,
    NUM_CONTEXTS,
    NUM_FITS,
    NUM_PLACES,
    NUM_SHAPES,
    NUM_SYMBOLS,
    NUM_VALUE_PLACES,
    VALUE,
)
from labelstore.codecs.packed.model import MAX_INVERSE_STEP, Model
from labelstore.codecs.packed.tables import costs_of, frequencies_of
from labelstore.codecs.packed.values import float_bits, grid_levels
from labelstore.record import LabelRecord

__all__ = ["train_model"]

MAX_TRAINING_LABELS = 200_000
_LABELS_PER_CLUSTER = 150
_MAX_CLUSTERS = 512
_CLUSTER_ROUNDS = 8
_TABLE_ROUNDS = 5
_PSEUDO_LABELS = 8.0  # of the average, in each cluster's id frequencies
_ENTRY_BITS = 12.0  # what an entry of a cluster's list costs in the model
_MIN_ENTRY_BITS = 8.0  # and what it must save at least where many labels share the model
_MAX_SCORED_IDS = 1 << 16
_CHUNK = 4096


def train_model(
    records: Sequence[LabelRecord],
    *,
    vocab_size: int,
    max_kl_nats: float | None,
    num_labels_expected: int,
    is_constant_size: bool,
) -> Model:
    """Train a model for labels like these.

    `max_kl_nats` is the mean KL that the grid of values may cost; None keeps values exact. `num_labels_expected` is
    how many labels will share the model: the more, the larger it may be. `is_constant_size` says that K will be
    the same for all labels that come, as it is for these.

    Raises:
        ValueError: an id is beyond the vocabulary.
    """
    records = _sample(records)
    token_ids = np.concatenate([record.token_ids.reshape(-1) for record in records])
    if token_ids.max(initial=0) >= vocab_size:
        raise ValueError(f"candidates' ids must be below {vocab_size:,}, got {token_ids.max()}")
    offsets = _joined_offsets(records)
    num_labels = len(offsets) - 1
    counts = np.bincount(token_ids, minlength=vocab_size)
    log_counts = np.log2(np.maximum(counts, 1))
    classes = np.where(counts > 0, np.floor(FREQUENCY_STEPS * log_counts).astype(np.int64), -1)
    seen = np.flatnonzero(counts > 0)
    seen = seen[np.lexsort((seen, -classes[seen]))].astype(np.int32)
    class_sizes = np.bincount(FREQUENCY_CLASSES - 1 - classes[seen], minlength=FREQUENCY_CLASSES).astype(np.uint32)
    rank_of_id = np.full(vocab_size, len(seen), dtype=np.int32)
    rank_of_id[seen] = np.arange(len(seen), dtype=np.int32)

    clustering = _Clustering(token_ids, offsets, rank_of_id, counts[seen] / max(num_labels, 1))
    num_clusters = int(np.clip(num_labels // _LABELS_PER_CLUSTER, 1, _MAX_CLUSTERS))
    clustering.run(num_clusters)
    list_class_sizes, list_ranks = clustering.lists(num_labels_expected)
    sizes = np.unique(np.diff(offsets))
    model = Model(
        vocab_size=vocab_size,
        size=int(sizes[0]) if is_constant_size and len(sizes) == 1 else 0,
        inverse_step=0 if max_kl_nats is None else _inverse_step(records, max_kl_nats),
        exact_base=_exact_base(records) if max_kl_nats is None else 0,
        has_draws=any(record.draw_counts is not None for record in records),
        has_entropy=any(record.entropy is not None for record in records),
        num_training_labels=num_labels,
        frequency_class_sizes=class_sizes,
        seen_ids=seen,
        list_class_sizes=list_class_sizes,
        list_ranks=list_ranks,
        frequencies=frequencies_of(np.zeros((NUM_CONTEXTS, NUM_SYMBOLS), dtype=np.int64)),
    )
    return _with_tables(model, records)


class _Clustering:
    """Clusters label sets: a Bernoulli mixture by hard expectation maximization."""

    def __init__(
        self,
        token_ids: NDArray[np.int32],
        offsets: NDArray[np.int64],
        rank_of_id: NDArray[np.int32],
        frequencies: NDArray[np.float64],
    ) -> None:
        # Ids that came once say nothing about which ids go together.
        num_often = int((frequencies * max(len(offsets) - 1, 1) > 1.5).sum())
        self._num_scored = min(num_often, _MAX_SCORED_IDS)
        self._ranks = rank_of_id[token_ids]
        self._offsets = offsets
        self._frequencies = frequencies
        self._counts = np.zeros((0, 0), dtype=np.int32)
        self._sizes = np.zeros(0)

    def run(self, num_clusters: int) -> None:
        """Find the clusters; they begin as single labels, drawn at random."""
        num_labels = len(self._offsets) - 1
        clusters = np.full(num_labels, -1, dtype=np.int32)
        seeds = np.random.default_rng(0).permutation(num_labels)[:num_clusters]
        clusters[seeds] = np.arange(len(seeds), dtype=np.int32)
        for _ in range(_CLUSTER_ROUNDS):
            self._count(clusters, num_clusters)
            priors = np.log2((self._sizes + 1) / (self._sizes.sum() + num_clusters))
            assign_clusters(
                self._ranks,
                self._offsets,
                MAX_SIZE,
                self._scores(),
                priors_of(priors),
                clusters,
            )
        self._count(clusters, num_clusters)

    def lists(self, num_labels_expected: int) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
        """Return the clusters' likely ids: how many in each class [Z, LIST_CLASSES], and their ranks."""
        ranks, clusters = np.nonzero(self._counts >= 2)
        counts, sizes = self._counts[ranks, clusters], self._sizes[clusters]
        saved = counts * np.log2(counts / sizes / self._frequencies[ranks])  # bits
        growth = max(1.0, num_labels_expected / max(len(self._offsets) - 1, 1))
        is_listed = saved > max(_MIN_ENTRY_BITS, _ENTRY_BITS / growth)
        is_listed &= _is_among_best(saved, clusters, MAX_LISTED)
        ranks, clusters = ranks[is_listed], clusters[is_listed]
        share = np.minimum(self._share(counts[is_listed], sizes[is_listed], self._frequencies[ranks]), 0.99)
        classes = list_class_of(np.log2(share / (1 - share)))
        order = np.lexsort((ranks, classes, clusters))
        class_sizes = np.bincount(clusters * LIST_CLASSES + classes, minlength=len(self._sizes) * LIST_CLASSES)
        return class_sizes.reshape(-1, LIST_CLASSES).astype(np.uint16), ranks[order].astype(np.int32)

    def _count(self, clusters: NDArray[np.int32], num_clusters: int) -> None:
        self._counts = np.zeros((self._num_scored, num_clusters), dtype=np.int32)
        _count_ids(self._ranks, self._offsets, clusters, self._counts)
        self._sizes = np.bincount(clusters[clusters >= 0], minlength=num_clusters).astype(np.float64)

    def _scores(self) -> NDArray[np.int8]:
        """Return how much each id speaks for each cluster [S, Z], in 1/4 bits."""
        scores = np.empty(self._counts.shape, dtype=np.int8)
        for start in range(0, len(scores), _CHUNK):  # whole, the floats would be half a gigabyte
            part = slice(start, start + _CHUNK)
            frequencies = self._frequencies[: len(scores)][part, None]
            bits = np.log2(self._share(self._counts[part], self._sizes, frequencies) / frequencies)
            scores[part] = scores_of(bits)
        return scores

    @staticmethod
    def _share(
        counts: NDArray[np.int32], sizes: NDArray[np.float64], frequencies: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return in which share of a cluster's labels an id is, drawn to its share of all labels."""
        shares: NDArray[np.float64] = (counts + _PSEUDO_LABELS * frequencies) / (sizes + _PSEUDO_LABELS)
        return shares


def _is_among_best(saved: NDArray[np.float64], clusters: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Return whether each entry is one of the `count` that save most in its cluster."""
    order = np.lexsort((-saved, clusters))
    starts = np.searchsorted(clusters[order], clusters[order])
    is_best = np.empty(len(saved), dtype=np.bool_)
    is_best[order] = np.arange(len(saved)) - starts < count
    return is_best


@compiled
def _count_ids(
    ranks: NDArray[np.int32], offsets: NDArray[np.int64], clusters: NDArray[np.int32], counts: NDArray[np.int32]
) -> None:
    for n in range(len(offsets) - 1):
        if clusters[n] >= 0:
            for c in range(offsets[n], offsets[n + 1]):
                if ranks[c] < len(counts):
                    counts[ranks[c], clusters[n]] += 1


def _with_tables(model: Model, records: Sequence[LabelRecord]) -> Model:
    """Return the model with tables of what encoding the records counts; shapes and fits find themselves."""
    costs = _first_costs()
    for _ in range(_TABLE_ROUNDS):
        encoder = LabelEncoder(model, costs=costs)
        counts = np.zeros(NUM_CONTEXTS * NUM_SYMBOLS, dtype=np.int64)
        for record in records:
            steps, step_offsets, _ = encoder.steps_of(record)
            symbols = steps[: step_offsets[-1]]
            symbols = symbols[symbols >= 1 << 40]
            places = ((symbols >> 40) - 1) * NUM_SYMBOLS + (symbols & (NUM_SYMBOLS - 1))
            counts += np.bincount(places, minlength=len(counts))
        table = counts.reshape(NUM_CONTEXTS, NUM_SYMBOLS)
        costs = costs_of_bits(costs_of(table))
        model = replace(model, frequencies=frequencies_of(table))
    return model


def _first_costs() -> Costs:
    """Return costs of geometric distributions: shapes by mean level, fits by how dense the places are."""
    symbols = np.arange(NUM_SYMBOLS)
    exponents = (symbols - DIRECT) // 4 + DIRECT_BITS
    numbers = np.where(symbols < DIRECT, symbols, (4 + symbols % 4) * 2.0 ** np.maximum(exponents - 2, 0))
    extra_bits = np.where(symbols < DIRECT, 0, exponents - 2)

    def geometric(mean: float) -> NDArray[np.float64]:
        return np.log2(1 + mean) + numbers * np.log2(1 + 1 / mean) - extra_bits  # type: ignore[no-any-return]

    bits = np.zeros((NUM_CONTEXTS, NUM_SYMBOLS), dtype=np.float32)
    for shape in range(NUM_SHAPES):
        for place in range(NUM_VALUE_PLACES):
            mean = 0.3 * 1.4**shape
            bits[VALUE + shape * NUM_VALUE_PLACES + place] = (
                np.log2(1 + mean) + numbers * np.log2(1 + 1 / mean) - extra_bits
            )
    for fit in range(NUM_FITS):
        for place in range(NUM_PLACES):
            log_odds = (
                float(class_log_odds(np.float64(place))) if place < LIST_CLASSES else -4 - 1.5 * (place - LIST_CLASSES)
            )
            bits[GAP + fit * NUM_PLACES + place] = geometric(2.0 ** (1.5 - fit - log_odds))
    return costs_of_bits(bits)


def _inverse_step(records: Sequence[LabelRecord], max_kl_nats: float) -> int:
    """Return the coarsest grid whose mean KL on these records is at most this."""
    low, high = 2, MAX_INVERSE_STEP
    while low < high:
        middle = (low + high) // 2
        if _mean_grid_kl(records, middle) <= max_kl_nats:
            high = middle
        else:
            low = middle + 1
    return high


def _mean_grid_kl(records: Sequence[LabelRecord], inverse_step: int) -> float:
    total, num_labels = 0.0, 0
    for record in records[:: max(1, len(records) // 64)]:
        labels = record.labels
        levels = grid_levels(labels.logprobs.reshape(-1), labels.candidate_offsets, inverse_step).astype(np.float64)
        weights = 12 * levels**2 + 1
        positions = labels.candidate_positions()
        shares = np.exp(labels.logprobs.reshape(-1).astype(np.float64))
        kept = np.bincount(positions, shares, minlength=len(labels))
        sums = np.bincount(positions, weights, minlength=len(labels))
        decoded = np.log(weights) + (np.log(np.maximum(kept, 1e-300)) - np.log(np.maximum(sums, 1)))[positions]
        total += float((shares * (labels.logprobs.reshape(-1) - decoded)).sum())
        num_labels += len(labels)
    return total / max(num_labels, 1)


def _exact_base(records: Sequence[LabelRecord]) -> int:
    """Return the highest bits of a value that only one in 10,000 is less likely than."""
    bits = np.concatenate([float_bits(record.logprobs.reshape(-1)) for record in records]) >> EXACT_REST_BITS
    return int(np.quantile(bits, 0.9999)) if len(bits) else 0


def _sample(records: Sequence[LabelRecord]) -> list[LabelRecord]:
    chosen: list[LabelRecord] = []
    num_labels = 0
    for i in np.random.default_rng(0).permutation(len(records)):
        chosen.append(records[i])
        num_labels += len(records[i].labels)
        if num_labels >= MAX_TRAINING_LABELS:
            break
    return chosen


def _joined_offsets(records: Sequence[LabelRecord]) -> NDArray[np.int64]:
    sizes = [np.diff(record.candidate_offsets) for record in records]
    return np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64)
