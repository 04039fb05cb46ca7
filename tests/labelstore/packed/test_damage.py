"""Damaged bytes give an error or sound labels, and both decoders agree; never a crash.

LABELGEN_FUZZ_CASES sets how many; `make test-fuzz` also has numba check every index.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from labelstore.codecs.packed.decoder import LabelDecoder
from labelstore.codecs.packed.encoder import LabelEncoder
from labelstore.codecs.packed.layout import NUM_SYMBOLS
from labelstore.codecs.packed.model import Model
from labelstore.labels import Labels
from make_packed_records import Kind, decode_both_ways, packed_records, trained

NUM_CASES = int(os.environ.get("LABELGEN_FUZZ_CASES", "2000"))

# (codec, kind, K or None, sizes of the records)
_RAGGED = [[3, 0, 12, 20, 7] * 4, [5] * 100, [1], [40, 2] * 10]
SUBJECTS = {
    "standard": ("standard", Kind(), 8, [[8] * 20, [8] * 100, [8], [8] * 3]),
    "small, ragged": ("small", Kind(has_ties=True), None, _RAGGED),
    "standard, draws": ("standard", Kind(has_draws=True, num_head=2, has_entropy=True), None, _RAGGED),
    "exact": ("exact", Kind(), 8, [[8] * 20, [8] * 100, [8], [8] * 3]),
    "exact, draws": ("exact", Kind(has_draws=True, has_entropy=True, has_ties=True), None, _RAGGED),
}
Subject = tuple[Model, list[bytes], list[NDArray[np.int32]]]


@pytest.fixture(scope="module", params=list(SUBJECTS))
def subject(request: pytest.FixtureRequest) -> Subject:
    codec, kind, size, sizes = SUBJECTS[request.param]
    model = Model.from_bytes(trained(codec, kind, size))
    encoder = LabelEncoder(model)
    records = packed_records(sizes, kind, seed=11)
    return model, [encoder.encode(record) for record in records], [record.target_ids for record in records]


def with_checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "little") + content


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    content = bytearray(data[4:])
    for _ in range(int(rng.choice([1, 1, 1, 2, 8]))):
        content[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
    return with_checksum(bytes(content))


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return with_checksum(data[4 : int(rng.integers(4, len(data)))])


def extended(data: bytes, rng: np.random.Generator) -> bytes:
    return with_checksum(data[4:] + rng.bytes(int(rng.integers(1, 9))))


def shuffled_words(data: bytes, rng: np.random.Generator) -> bytes:
    """Keep the header with its sizes, so that the coder itself reads garbage."""
    place = int(rng.integers(4, max(5, len(data) - 3)))
    return with_checksum(data[4:place] + rng.bytes(len(data) - place))


def constant_words(data: bytes, rng: np.random.Generator) -> bytes:
    """States of zeros or ones: a decoder that reads at every step, or never."""
    start = min(len(data) - 1, 4 + int(rng.integers(0, 20)))
    return with_checksum(data[4:start] + bytes([int(rng.choice([0, 1, 255]))]) * (len(data) - start))


def garbage(data: bytes, rng: np.random.Generator) -> bytes:
    return with_checksum(rng.bytes(int(rng.integers(0, 2 * len(data)))))


DAMAGES: list[Callable[[bytes, np.random.Generator], bytes]] = [
    flipped,
    flipped,
    truncated,
    extended,
    shuffled_words,
    constant_words,
    garbage,
]


def test_damaged_records_give_an_error_or_sound_labels(subject: Subject) -> None:
    model, data, target_ids = subject
    rng = np.random.default_rng(1)
    num_cases = NUM_CASES // len(SUBJECTS)
    chosen = rng.integers(len(data), size=num_cases)
    damaged = [DAMAGES[i % len(DAMAGES)](data[row], rng) for i, row in enumerate(chosen)]
    results = decode_both_ways(model, damaged, [target_ids[row] for row in chosen])
    for row, result in zip(chosen, results, strict=True):
        assert isinstance(result, ValueError) or len(result) == len(target_ids[row])
    assert sum(isinstance(result, ValueError) for result in results) > 0.9 * num_cases


def test_records_about_other_tokens_give_an_error_or_sound_labels(subject: Subject) -> None:
    model, data, target_ids = subject
    rows = np.array([(i, j) for i in range(len(data)) for j in range(len(data)) if i != j])
    results = decode_both_ways(model, [data[i] for i in rows[:, 0]], [target_ids[j] for j in rows[:, 1]])
    assert all(isinstance(result, ValueError) for result in results)


def test_foreign_models_give_an_error_or_sound_labels(subject: Subject) -> None:
    _, data, target_ids = subject
    for codec, kind, size, _ in SUBJECTS.values():
        decode_both_ways(Model.from_bytes(trained(codec, kind, size)), data, target_ids)


def shuffled_tables(model: Model, rng: np.random.Generator) -> Model:
    return replace(model, frequencies=model.frequencies[rng.permutation(len(model.frequencies))])


def certain_tables(model: Model, rng: np.random.Generator) -> Model:
    """Tables of one symbol each, which costs nothing: the decoder reads no word."""
    frequencies = np.zeros_like(model.frequencies)
    frequencies[np.arange(len(frequencies)), rng.integers(NUM_SYMBOLS, size=len(frequencies))] = 1024
    return replace(model, frequencies=frequencies)


def large_tables(model: Model, rng: np.random.Generator) -> Model:
    """Tables of large numbers and escapes."""
    frequencies = np.zeros_like(model.frequencies)
    frequencies[:, -16:] = 64
    return replace(model, frequencies=frequencies)


def shuffled_lists(model: Model, rng: np.random.Generator) -> Model:
    order = rng.permutation(len(model.list_class_sizes))
    return replace(model, list_class_sizes=model.list_class_sizes[order])


def other_sizes(model: Model, rng: np.random.Generator) -> Model:
    return replace(
        model,
        size=int(rng.choice([0, 1, 8, 4096])),
        inverse_step=int(rng.choice([0, 1, 2, 300, (1 << 15) - 2])),
        exact_base=int(rng.choice([0, 1, 0x400, 0x7FF])),
        has_draws=bool(rng.integers(2)),
        has_entropy=bool(rng.integers(2)),
    )


@pytest.mark.parametrize("damage", [shuffled_tables, certain_tables, large_tables, shuffled_lists, other_sizes])
def test_damaged_models_give_an_error_or_sound_labels(
    subject: Subject, damage: Callable[[Model, np.random.Generator], Model]
) -> None:
    model, data, target_ids = subject
    rng = np.random.default_rng(2)
    for _ in range(max(1, NUM_CASES // 2000)):
        try:
            other = Model.from_bytes(damage(model, rng).to_bytes())
        except ValueError:
            continue
        noise = [constant_words(part, rng) for part in data] + [shuffled_words(part, rng) for part in data]
        decode_both_ways(other, data + noise, 3 * target_ids)


def test_damaged_model_bytes_give_an_error(subject: Subject) -> None:
    content = subject[0].to_bytes()
    rng = np.random.default_rng(3)
    for _ in range(NUM_CASES // 50):
        damaged = bytearray(content)
        place = int(rng.choice([rng.integers(40), rng.integers(len(content))]))
        damaged[place] ^= int(rng.integers(1, 256))
        try:
            Model.from_bytes(bytes(damaged))
        except ValueError:
            continue
    with pytest.raises(ValueError, match="the shard's model does not begin as a model does"):
        Model.from_bytes(b"garbage")
    with pytest.raises(ValueError, match="the shard's model"):
        Model.from_bytes(content[: len(content) // 2])


def test_a_wrong_checksum_is_named(subject: Subject) -> None:
    model, data, target_ids = subject
    damaged = data[1][:-1] + bytes([data[1][-1] ^ 1])
    results = decode_both_ways(model, [data[0], damaged, data[2]], target_ids[:3])
    assert isinstance(results[0], Labels) and isinstance(results[2], Labels)  # the others are read all the same
    assert str(results[1]) == "the packed labels do not have their checksum"


def test_candidates_beyond_all_bounds_are_refused_before_there_is_room_for_them() -> None:
    kind = Kind()
    model = Model.from_bytes(trained("standard", kind, None))
    claim = with_checksum(b"\xff\xff\xff\xff\x0f" + 40 * b"\x02")
    with pytest.raises(ValueError, match="3 labels cannot have 4294967295 candidates"):
        LabelDecoder(model, is_compiled=False).decode(memoryview(claim), np.zeros(3, np.int32))
