"""The decoder without numba: the same bits as decode_kernels.py, by steps of numpy over the lanes of many records.

Each lane of each record is a stream of its own: the t-th labels of all lanes are decoded at once. L lanes that have a
t-th label, K candidates of the largest of these, C candidates of all L, Z clusters. Arrays by step are [K, L]; those by
candidate [C] have one label after the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.coded import Coded, Lookup
from labelstore.codecs.packed.fixed_log import ln_fixed
from labelstore.codecs.packed.layout import (
    CLUSTER_HIGH,
    CLUSTER_LOW,
    CLUSTER_LOW_BITS,
    COUNT,
    EXACT_REST_BITS,
    FIT,
    GAP,
    KEPT_BITS,
    LIST_CLASSES,
    MAX_CLUSTERS,
    MAX_SIZE,
    NUM_FITS,
    NUM_PLACES,
    NUM_SHAPES,
    NUM_VALUE_PLACES,
    RANK_CLASSES,
    RANK_INSIDE,
    RANK_OUTSIDE,
    SHAPE,
    SIZE,
    TABLE_BITS,
    TAIL,
    TAIL_CODES,
    TARGET_INSIDE,
    TARGET_OUTSIDE,
    VALUE,
)
from labelstore.codecs.packed.numpy_batch import Batch, Round, starts_of
from labelstore.codecs.packed.numpy_lanes import Coder

__all__ = ["NumpyDecoder"]

_Ints = NDArray[np.int64]
_Bools = NDArray[np.bool_]

_MAX_PLACE = 1 << 26  # beyond every list and vocabulary
_NO_BITS = 0xFFFFFFFF  # more than the bits of any value
_VALUE_PLACES = np.array(
    [c >> 1 if c < LIST_CLASSES else (LIST_CLASSES >> 1) + (c - LIST_CLASSES) // 3 for c in range(NUM_PLACES)]
)


class NumpyDecoder:
    """Decodes many records at once with the tables of one model."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._coder = Coder(lookup.slots, lookup.entries)
        num_listed = np.diff(lookup.list_offsets).astype(np.int64)
        num_ranks = len(lookup.id_of_rank)
        # A place is an index into these: behind all lists stands the order of frequency, which follows each list.
        self._ids = np.concatenate([lookup.list_ids, lookup.id_of_rank])
        rank_classes = LIST_CLASSES + np.minimum(RANK_CLASSES - 1, _bit_length(np.arange(num_ranks)) >> 1)
        self._classes = np.concatenate([lookup.list_classes[:-1], rank_classes.astype(np.uint8)])
        self._num_listed = num_listed
        # What takes a place there: where the list begins; behind the list, also all the lists behind it.
        self._list_starts = lookup.list_offsets[:-1].astype(np.int64)
        self._to_ranks = len(lookup.list_ids) - num_listed - self._list_starts

    def decode(self, batch: Batch) -> list[Coded | None]:
        """Return the labels of each record; None where its bytes are not what an encoder writes."""
        for index in range(batch.num_rounds):
            self._decode_round(batch, index)
        return batch.results(self._lookup.log_of_level)

    def _decode_round(self, batch: Batch, index: int) -> None:
        """Decode the label number `index` of each lane that has one."""
        label = self._decode_heads(batch, index)
        if len(label.lanes) == 0:
            return
        size = label.size
        row = np.repeat(np.arange(len(size)), size)
        index_of_place = self._decode_places(batch, label)
        is_beyond = index_of_place >= len(self._ids)
        if is_beyond.any():
            batch.refuse(label.record[row[is_beyond]])
        to = np.repeat(label.first - starts_of(size), size) + np.arange(len(row))
        token_ids = self._ids.take(index_of_place, mode="clip")
        classes = self._classes.take(index_of_place, mode="clip")
        batch.coded.token_ids[to] = token_ids
        levels = self._decode_values(batch, label, classes, row, to)
        self._decode_rest(batch, label, token_ids, levels, row, to)
        batch.lanes.put_back(label.lanes)

    def _decode_heads(self, batch: Batch, index: int) -> Round:
        """Read what stands before the ids; find where the candidates will stand, and the largest label first."""
        coder = self._coder
        chosen = np.flatnonzero((index < batch.lane_rounds) & ~batch.is_bad[batch.lane_records])
        lanes, record = batch.lanes.taken(chosen), batch.lane_records[chosen]
        number = batch.first_labels[record] + index * batch.num_lanes[record] + batch.lane_places[chosen]
        high = coder.numbers(lanes, np.full(len(chosen), CLUSTER_HIGH))
        is_bad = high >= MAX_CLUSTERS >> CLUSTER_LOW_BITS
        high[is_bad] = 0
        cluster = (high << CLUSTER_LOW_BITS) + coder.numbers(lanes, CLUSTER_LOW + high)
        shape = coder.numbers(lanes, np.full(len(chosen), SHAPE))
        is_bad |= (cluster >= len(self._num_listed)) | (shape >= NUM_SHAPES)
        cluster[is_bad], shape[is_bad] = 0, 0
        fit = coder.numbers(lanes, FIT + shape)
        is_bad |= fit >= NUM_FITS
        size = np.full(len(chosen), self._lookup.size, dtype=np.int64)
        if self._lookup.size == 0:
            size = coder.numbers(lanes, SIZE + shape)
        is_bad |= size > MAX_SIZE
        batch.refuse(record[is_bad])
        size[is_bad] = 0
        label = Round(
            lanes=lanes,
            record=record,
            number=number,
            cluster=cluster,
            shape=shape,
            fit=np.minimum(fit, NUM_FITS - 1),
            size=size,
            first=batch.place_labels(record, number, size),
        )
        if batch.is_bad[record].any():
            label.keep(np.flatnonzero(~batch.is_bad[record]))
        if self._lookup.size == 0:
            label.keep(np.argsort(-label.size, kind="stable"))
        return label

    def _decode_places(self, batch: Batch, label: Round) -> _Ints:
        """Read the gaps; return where each candidate stands in `_ids`, by rising place in each label [C]."""
        num_listed, list_start, to_ranks = (
            of_cluster[label.cluster] for of_cluster in (self._num_listed, self._list_starts, self._to_ranks)
        )
        contexts = (GAP + label.fit * NUM_PLACES) << TABLE_BITS
        begin = np.zeros(len(label.size), dtype=np.int64)
        found = np.zeros((int(label.size.max(initial=0)), len(label.size)), dtype=np.int64)
        steps = self._coder.steps(label.lanes, _counts_above(label.size))
        for i, width in enumerate(steps.widths):
            if i == 0 or width != steps.widths[i - 1]:
                contexts, begin, num_listed = contexts[:width], begin[:width], num_listed[:width]
                list_start, to_ranks = list_start[:width], to_ranks[:width]
                index, classes, context = (
                    np.empty(width, np.int64),
                    np.empty(width, np.uint8),
                    np.empty(width, np.int64),
                )
            # From where the last place stood to where the next one can stand.
            np.greater_equal(begin, num_listed, out=index, casting="unsafe")
            np.multiply(index, to_ranks, index)
            np.add(index, list_start, index)
            np.add(index, begin, index)
            self._classes.take(index, None, classes, "clip")
            np.copyto(context, classes)
            np.left_shift(context, TABLE_BITS, context)
            np.add(context, contexts, context)
            np.add(begin, steps.numbers(context, i), begin)
            found[i, :width] = begin
            np.add(begin, 1, begin)
        is_there = np.arange(len(found)) < label.size[:, None]
        places: _Ints = found.T[is_there]
        cluster = np.repeat(label.cluster, label.size)
        is_ranked = places >= self._num_listed[cluster]
        return places + self._list_starts[cluster] + is_ranked * self._to_ranks[cluster]

    def _decode_values(self, batch: Batch, label: Round, classes: NDArray[np.uint8], row: _Ints, to: _Ints) -> _Ints:
        """Read and return the candidates' levels [C]."""
        lookup = self._lookup
        contexts = (VALUE + label.shape[row] * NUM_VALUE_PLACES + _VALUE_PLACES[classes]) << TABLE_BITS
        by_step = np.zeros((len(label.lanes), int(label.size.max(initial=0))), dtype=np.int64)
        is_there = np.arange(by_step.shape[1]) < label.size[:, None]
        by_step[is_there] = contexts
        by_step = np.ascontiguousarray(by_step.T)
        levels = np.zeros_like(by_step)
        steps = self._coder.steps(label.lanes, _counts_above(label.size))
        if lookup.weight_of_one == 0:
            rests = np.zeros_like(by_step)
            units = batch.units[label.record]
            for i, width in enumerate(steps.widths):
                level = steps.numbers(by_step[i, :width], i)
                levels[i, :width] = level
                rests[i, :width] = steps.bits(_rest_bits(level, units[:width], lookup.exact_base)[0], i)
            flat: _Ints = levels.T[is_there]
            batch.refuse(label.record[row[flat > lookup.exact_base + 1]])
            _, zeros, high = _rest_bits(flat, units[row], lookup.exact_base)
            rest = rests.T[is_there]
            batch.coded.exact_bits[to] = np.where(flat == 0, rest, (high << EXACT_REST_BITS) | (rest << zeros))
        else:
            for i, width in enumerate(steps.widths):
                levels[i, :width] = steps.numbers(by_step[i, :width], i)
            flat = levels.T[is_there]
            is_high = flat >= len(lookup.log_of_level)
            if is_high.any():
                batch.refuse(label.record[row[is_high]])
                flat[is_high] = 0
        batch.levels[to] = flat
        return flat

    def _decode_rest(
        self, batch: Batch, label: Round, token_ids: NDArray[np.int32], levels: _Ints, row: _Ints, to: _Ints
    ) -> None:
        """Read what stands behind the values: draw counts, tail mass, target and entropy."""
        coder, lanes, lookup = self._coder, label.lanes, self._lookup
        is_exact, has_draws = lookup.weight_of_one == 0, len(batch.coded.draw_counts) > 0
        weights = 12 * levels * levels + 1
        weight = _sums(weights, label.size)
        if has_draws:
            counts = self._decode_counts(label, levels, row)
            batch.coded.draw_counts[to] = counts
            head = _sums(np.where(counts == 0, weights, 0), label.size)
            weight = np.where(head > 0, head, weight)
        shift = np.zeros(len(lanes), dtype=np.int64)
        if is_exact:
            tail = coder.bits(lanes, np.full(len(lanes), 32))
            bits = batch.coded.exact_bits[to].astype(np.int64)
            highest = _lowest(bits, label.size, default=_NO_BITS)
            num_equal = _sums(bits == highest[row], label.size)
            tied = np.flatnonzero(num_equal > 1)
            if len(tied):
                part = lanes.taken(tied)
                shift[tied] = coder.numbers(part, np.full(len(tied), TAIL))
                lanes.put_back(part)
                batch.refuse(label.record[(num_equal > 1) & (shift >= num_equal)])
        else:
            one = lookup.weight_of_one
            half = np.int64(1 << (KEPT_BITS - 1))
            of_tail = _int_sqrt(np.maximum(one - weight, 0) * half // one)
            expected = np.where(
                2 * weight >= one, of_tail, TAIL_CODES - _int_sqrt(np.minimum(weight, one) * half // one)
            )
            tail = expected + _unzigzag(coder.numbers(lanes, TAIL + _bit_length(expected)))
            is_bad = (tail < 0) | (tail > TAIL_CODES)
            batch.refuse(label.record[is_bad])
            tail[is_bad] = 0
            shift = lookup.log_of_kept[tail] - ln_fixed(np.maximum(weight, 1))

        matches = np.flatnonzero(token_ids == batch.target_ids[label.number][row])
        target = np.full(len(lanes), -1, dtype=np.int64)
        target[row[matches]] = matches
        is_inside = target >= 0
        target_level = np.where(is_inside, levels.take(target, mode="clip") if len(levels) else 0, 0)
        above, context = label.size, RANK_OUTSIDE + label.shape
        # A record without candidates is coded as one without draws.
        is_drawn = has_draws & (batch.num_candidates[label.record] > 0)
        if not is_drawn.all():
            num_above = _sums(levels > target_level[row], label.size)
            num_equal = _sums(levels == target_level[row], label.size)
            is_ranked = is_inside & ~is_drawn
            above = np.where(is_ranked, num_above, above)
            context = np.where(is_ranked, RANK_INSIDE + _bit_length(num_equal), context)
        rank = coder.numbers(lanes, context)
        batch.coded.ranks[label.number] = np.where(is_drawn, rank, above + 1 + _unzigzag(rank))

        if is_exact:
            own = np.zeros(len(lanes), dtype=np.int64)
            is_stored = ~is_inside
            inside = np.flatnonzero(is_inside)
            if len(inside):
                part = lanes.taken(inside)
                is_stored[inside] = coder.numbers(part, np.full(len(inside), TARGET_INSIDE)) > 0
                lanes.put_back(part)
                own[inside] = bits[target[inside]]
            stored = coder.bits(lanes, np.where(is_stored, 32, 0))
            batch.coded.targets[label.number] = np.where(is_stored, stored, own)
        else:
            lowest = np.where(label.size > 0, _lowest(levels, label.size, default=0), 0)
            guess = lookup.log_of_level[np.where(is_inside, target_level, lowest)] + shift
            expected = np.where(label.size > 0, (-guess + (1 << 18)) >> 19, 0)
            context = np.where(is_inside, TARGET_INSIDE + _bit_length(target_level), TARGET_OUTSIDE + label.shape)
            batch.coded.targets[label.number] = expected + _unzigzag(coder.numbers(lanes, context))
        if len(batch.coded.entropies):
            batch.coded.entropies[label.number] = coder.bits(lanes, np.full(len(lanes), 32 if is_exact else 16))
        batch.coded.tails[label.number], batch.shifts[label.number] = tail, shift

    def _decode_counts(self, label: Round, levels: _Ints, row: _Ints) -> _Ints:
        """Read how often each candidate was drawn [C]."""
        by_step = np.zeros((len(label.lanes), int(label.size.max(initial=0))), dtype=np.int64)
        is_there = np.arange(by_step.shape[1]) < label.size[:, None]
        by_step[is_there] = (COUNT + np.minimum(15, levels)) << TABLE_BITS
        by_step = np.ascontiguousarray(by_step.T)
        counts = np.zeros_like(by_step)
        steps = self._coder.steps(label.lanes, _counts_above(label.size))
        for i, width in enumerate(steps.widths):
            counts[i, :width] = steps.numbers(by_step[i, :width], i)
        flat: _Ints = counts.T[is_there]
        return flat


def _counts_above(sizes: _Ints) -> list[int]:
    """Return how many of falling sizes are above 0, 1, 2, ... up to the largest."""
    rising = np.sort(sizes)
    steps = np.arange(int(sizes.max(initial=0)))
    return (len(sizes) - np.searchsorted(rising, steps, side="right")).tolist()  # type: ignore[no-any-return]


def _rest_bits(levels: _Ints, units: _Ints, exact_base: int) -> tuple[_Ints, _Ints, _Ints]:
    """Return how many bits follow levels of exact values, how many zeros those lack, and the bits above."""
    high = exact_base + 1 - levels
    zeros = np.clip(units - (high >> 3), 0, EXACT_REST_BITS)
    return np.where(levels == 0, 32, EXACT_REST_BITS - zeros), zeros, high


def _sums(values: NDArray[np.generic], sizes: _Ints) -> _Ints:
    """Return the sum of each run of values."""
    totals = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, dtype=np.int64, out=totals[1:])
    stops = np.cumsum(sizes)
    sums: _Ints = totals[stops] - totals[stops - sizes]
    return sums


def _lowest(values: _Ints, sizes: _Ints, *, default: int) -> _Ints:
    """Return the least of each run of values; the default where it is empty."""
    lowest = np.full(len(sizes), default, dtype=np.int64)
    is_filled = sizes > 0
    if is_filled.any():
        lowest[is_filled] = np.minimum.reduceat(values, starts_of(sizes)[is_filled])
    return lowest


def _bit_length(numbers: _Ints) -> _Ints:
    lengths: _Ints = np.frexp(numbers.astype(np.float64))[1].astype(np.int64)
    return lengths


def _int_sqrt(squares: _Ints) -> _Ints:
    roots = np.sqrt(squares.astype(np.float64)).astype(np.int64)
    roots -= roots * roots > squares
    roots += (roots + 1) * (roots + 1) <= squares
    return roots


def _unzigzag(numbers: _Ints) -> _Ints:
    signed: _Ints = (numbers >> 1) ^ -(numbers & 1)
    return signed
