"""Records for tests of the packed codecs: labels of all selections, sizes and values, and what must come back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs import CODECS
from labelstore.codecs.packed.decoder import LabelDecoder
from labelstore.codecs.packed.encoder import LabelEncoder
from labelstore.codecs.packed.model import Model
from labelstore.labels import Labels, tail_mass_of
from labelstore.record import LabelRecord
from labelstore.schema import offsets_of

__all__ = [
    "PACKED_CODECS",
    "Kind",
    "assert_same_arrays",
    "check_round_trip",
    "decode_both_ways",
    "kl_bound",
    "kl_of_kept",
    "packed_records",
    "train",
    "trained",
]

PACKED_CODECS = ("exact", "standard", "small")
VOCAB_SIZE = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What labels to make."""

    vocab_size: int = VOCAB_SIZE
    has_draws: bool = False
    num_head: int = 0  # exact candidates beside draws
    has_entropy: bool = False
    has_ties: bool = False
    id_shift: int = 0  # which ids are likely
    spread: float = 2.0  # of the log-probabilities, in nats
    kept_mass: float | None = None


def packed_records(sizes: Sequence[Sequence[int]], kind: Kind, *, seed: int = 0) -> list[LabelRecord]:
    """Return records whose labels have so many candidates each."""
    return [_record(number, part, kind, seed=seed + 1000 * number) for number, part in enumerate(sizes)]


@lru_cache(maxsize=64)
def trained(codec: str, kind: Kind, size: int | None) -> bytes:
    """Return a model of 300 labels of a kind, of one size or (None) of 0 to 20 candidates."""
    rng = np.random.default_rng(5)
    sizes = [[size] * 60 if size is not None else rng.integers(0, 20, 60).tolist() for _ in range(5)]
    return train(codec, packed_records(sizes, kind, seed=77), kind.vocab_size, is_constant_size=size is not None)


def train(codec: str, records: Sequence[LabelRecord], vocab_size: int, *, is_constant_size: bool) -> bytes:
    return CODECS[codec].train(
        records,
        vocab_size=vocab_size,
        num_labels_expected=sum(len(record.labels) for record in records),
        is_constant_size=is_constant_size,
    )


def check_round_trip(model: bytes, records: Sequence[LabelRecord]) -> list[bytes]:
    """Encode records, decode them in both ways, and compare; return their bytes."""
    opened = Model.from_bytes(model)
    encoder = LabelEncoder(opened)
    data = [encoder.encode(record) for record in records]
    decoder = LabelDecoder(opened, is_compiled=True)
    for record, got in zip(records, decode_both_ways(opened, data, [r.target_ids for r in records]), strict=True):
        assert isinstance(got, Labels), got
        _check_labels(got, record.labels, opened, decoder.tolerance(got))
    return data


def decode_both_ways(
    model: Model, data: Sequence[bytes], target_ids: Sequence[NDArray[np.int32]]
) -> list[Labels | ValueError]:
    """Decode records with numba and with numpy, and check that both say the same."""
    views = [memoryview(part) for part in data]
    compiled = list(LabelDecoder(model, is_compiled=True).decode_each(views, target_ids))
    plain = list(LabelDecoder(model, is_compiled=False).decode_each(views, target_ids))
    for left, right in zip(compiled, plain, strict=True):
        if isinstance(left, ValueError) or isinstance(right, ValueError):
            assert str(left) == str(right)
        else:
            assert_same_arrays(left, right)
    return compiled


def assert_same_arrays(got: Labels, wanted: Labels) -> None:
    for name in Labels.__slots__:
        left, right = getattr(got, name), getattr(wanted, name)
        assert (left is None) == (right is None), name
        if right is not None:
            assert left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes(), name


def kl_of_kept(labels: Labels, decoded: Labels) -> NDArray[np.float64]:
    """Return the KL of each label's candidates [N], both distributions scaled to sum to 1."""
    result = np.zeros(len(labels))
    for n in range(len(labels)):
        first, stop = labels.candidate_offsets[n], labels.candidate_offsets[n + 1]
        if first == stop:
            continue
        logs = labels.logprobs.reshape(-1)[first:stop].astype(np.float64)
        there = decoded.logprobs.reshape(-1)[first:stop].astype(np.float64)
        logs = logs[np.argsort(labels.token_ids.reshape(-1)[first:stop])]
        there = there[np.argsort(decoded.token_ids.reshape(-1)[first:stop])]
        logs -= np.logaddexp.reduce(logs)
        there -= np.logaddexp.reduce(there)
        result[n] = float((np.exp(logs) * (logs - there)).sum())
    return result


def kl_bound(labels: Labels, model: Model) -> NDArray[np.float64]:
    """Return what PackedCodec promises of each label [N], with room for float32."""
    sizes = np.diff(labels.candidate_offsets)
    kept = np.maximum(labels.kept_mass, 1e-30)
    bound: NDArray[np.float64] = (sizes + 8) / (2 * model.inverse_step**2 * kept) + 4e-6
    return bound


def _record(number: int, sizes: Sequence[int], kind: Kind, *, seed: int) -> LabelRecord:
    rng = np.random.default_rng(seed)
    draw = random.Random(seed)
    num_labels, offsets = len(sizes), offsets_of(sizes)
    ids, logprobs, counts = [], [], []
    target_ids, targets, ranks = [], [], []
    for size in sizes:
        own = np.array(draw.sample(range(kind.vocab_size), size), dtype=np.int32)
        if size and kind.vocab_size > 8 * size and draw.random() < 0.8:  # ids that come often
            own = (np.array(draw.sample(range(4 * size), size)) + kind.id_shift).astype(np.int32) % kind.vocab_size
        values = np.sort(-kind.spread * rng.exponential(1, size))[::-1]
        if kind.has_ties:
            values = np.round(values * 2) / 2
        mass = 1 - 10.0 ** -rng.uniform(0.02, 6) if draw.random() < 0.9 else 1.0
        mass = mass if kind.kept_mass is None else kind.kept_mass
        values = values - np.logaddexp.reduce(values) + np.log(mass) if size else values
        values = np.minimum(values, 0.0).astype(np.float32)
        if size and draw.random() < 0.6:
            place = draw.randrange(size)
            target_ids.append(int(own[place]))
            targets.append(values[place])
            ranks.append(int((values >= values[place]).sum()))
        else:
            target_ids.append(draw.randrange(kind.vocab_size))
            is_inside = target_ids[-1] in own.tolist()
            targets.append(
                values[own.tolist().index(target_ids[-1])] if is_inside else np.float32(-rng.exponential(9) - 1)
            )
            ranks.append(draw.choice([size + 1, draw.randrange(1, 2**24)]))
        ids.append(own)
        logprobs.append(values)
        part = rng.geometric(0.5, size) if draw.random() < 0.9 else rng.integers(1, 10_000, size)
        part[: min(kind.num_head, size)] = 0
        counts.append(part.astype(np.int32))
    flat = np.concatenate([np.zeros(0, np.float32), *logprobs]).astype(np.float32)
    flat_counts = np.concatenate([np.zeros(0, np.int32), *counts]).astype(np.int32)
    tail_mass = tail_mass_of(flat, offsets)
    if kind.has_draws and kind.num_head:
        heads = [part[: kind.num_head] for part in logprobs]
        tail_mass = tail_mass_of(
            np.concatenate([np.zeros(0, np.float32), *heads]), offsets_of([len(part) for part in heads])
        )
    fields: dict[str, Any] = {
        "token_ids": np.concatenate([np.zeros(0, np.int32), *ids]).astype(np.int32),
        "logprobs": flat,
        "candidate_offsets": offsets,
        "target_logprobs": np.array(targets, dtype=np.float32),
        "target_ranks": np.array(ranks, dtype=np.int32),
        "tail_mass": tail_mass,
        "draw_counts": flat_counts if kind.has_draws else None,
        "entropy": rng.exponential(2, num_labels).astype(np.float32) if kind.has_entropy else None,
    }
    return LabelRecord(
        prompt_id=f"prompt-{number}",
        input_ids=np.array([0, *target_ids], dtype=np.int32),
        spans=np.array([[1, 1 + num_labels]] if num_labels else [], dtype=np.int32).reshape(-1, 2),
        span_kinds=("text",) if num_labels else (),
        labels=Labels(**fields),
    )


def _check_labels(got: Labels, wanted: Labels, model: Model, tolerance: NDArray[np.float64] | None) -> None:
    np.testing.assert_array_equal(got.candidate_offsets, wanted.candidate_offsets)
    np.testing.assert_array_equal(got.target_ranks, wanted.target_ranks)
    position = wanted.candidate_positions()
    left = np.lexsort((got.token_ids.reshape(-1), position))
    right = np.lexsort((wanted.token_ids.reshape(-1), position))
    np.testing.assert_array_equal(got.token_ids.reshape(-1)[left], wanted.token_ids.reshape(-1)[right])
    assert (got.draw_counts is None) == (wanted.draw_counts is None)
    if got.draw_counts is not None and wanted.draw_counts is not None:
        np.testing.assert_array_equal(got.draw_counts[left], wanted.draw_counts[right])
    firsts = wanted.candidate_offsets[:-1][np.diff(wanted.candidate_offsets) > 0]
    np.testing.assert_array_equal(got.token_ids.reshape(-1)[firsts], wanted.token_ids.reshape(-1)[firsts])
    values, expected = got.logprobs.reshape(-1)[left], wanted.logprobs.reshape(-1)[right]
    assert (got.entropy is None) == (wanted.entropy is None)
    if tolerance is None:
        for own, other in ((values, expected), *_pairs(got, wanted)):
            assert own.tobytes() == (other + np.float32(0)).tobytes()  # zero has no sign
        return
    assert (np.abs(np.exp(values / 2.0) - np.exp(expected / 2.0)) <= tolerance[position]).all()
    (targets, tails, *entropies) = _pairs(got, wanted)
    assert (np.abs(targets[0] - targets[1]) <= 1 / 64 + 1e-6 * np.abs(targets[1])).all()
    assert (np.abs(np.sqrt(tails[0]) - np.sqrt(tails[1])) <= (1 + (tails[0] > 0.9999)) / 512 + 1e-6).all()
    for own, other in entropies:
        assert (np.abs(own - np.minimum(other, 0xFFFF / 2048)) <= 1 / 4096 + 1e-6).all()
    assert (kl_of_kept(wanted, got) <= kl_bound(wanted, model)).all()


def _pairs(got: Labels, wanted: Labels) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    pairs = [(got.target_logprobs, wanted.target_logprobs), (got.tail_mass, wanted.tail_mass)]
    if got.entropy is not None and wanted.entropy is not None:
        pairs.append((got.entropy, wanted.entropy))
    return pairs
