from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelstore.codecs.packed.decoder import LabelDecoder
from labelstore.codecs.packed.encoder import LabelEncoder
from labelstore.codecs.packed.model import Model
from labelstore.labels import Labels
from make_packed_records import (
    PACKED_CODECS,
    VOCAB_SIZE,
    Kind,
    check_round_trip,
    decode_both_ways,
    packed_records,
    train,
    trained,
)

KINDS = {
    "plain": Kind(),
    "ties": Kind(has_ties=True),
    "entropy": Kind(has_entropy=True),
    "draws": Kind(has_draws=True),
    "head and draws": Kind(has_draws=True, num_head=4, has_entropy=True),
}


@pytest.mark.parametrize("codec", PACKED_CODECS)
@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    sizes=st.lists(st.lists(st.integers(0, 40), max_size=30), min_size=1, max_size=6),
    spread=st.sampled_from([0.02, 1.0, 3.0, 30.0]),
    seed=st.integers(0, 10_000),
)
def test_labels_of_any_size_come_back(codec: str, kind: str, sizes: list[list[int]], spread: float, seed: int) -> None:
    made = KINDS[kind]
    foreign = Kind(
        has_draws=made.has_draws,
        num_head=made.num_head,
        has_entropy=made.has_entropy,
        has_ties=made.has_ties,
        id_shift=1700,  # ids that training never saw
        spread=spread,
    )
    check_round_trip(trained(codec, made, None), packed_records(sizes, foreign, seed=seed))


@pytest.mark.parametrize("codec", PACKED_CODECS)
@settings(max_examples=8, deadline=None)
@given(
    size=st.sampled_from([1, 2, 8]),
    lengths=st.lists(st.sampled_from([0, 1, 2, 17, 31, 32, 33, 200, 500]), min_size=1, max_size=4),
    has_ties=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_labels_of_one_size_come_back(codec: str, size: int, lengths: list[int], has_ties: bool, seed: int) -> None:
    records = packed_records([[size] * length for length in lengths], Kind(has_ties=has_ties), seed=seed)
    check_round_trip(trained(codec, Kind(), size), records)


@pytest.mark.parametrize(
    ("codec", "sizes", "kind"),
    [
        ("exact", [[64] * 1000], Kind()),
        ("standard", [[64] * 1000], Kind()),
        ("exact", [[4096] * 3, [1]], Kind(vocab_size=5000)),
        ("small", [[4096] * 2], Kind(vocab_size=5000, has_draws=True)),
        ("standard", [[5, 0, 30], [], [1] * 50], Kind(vocab_size=1 << 24)),
        ("exact", [[0, 0, 0], [], [0]], Kind()),
        ("standard", [[0, 0, 0], [], [0]], Kind()),
        ("small", [[1]], Kind(vocab_size=1)),
    ],
)
def test_models_of_the_same_labels_bring_them_back(codec: str, sizes: list[list[int]], kind: Kind) -> None:
    records = packed_records(sizes, kind)
    is_constant = len({size for part in sizes for size in part}) == 1
    check_round_trip(train(codec, records, kind.vocab_size, is_constant_size=is_constant), records)


@pytest.mark.parametrize("codec", PACKED_CODECS)
def test_a_model_of_other_labels_brings_any_back(codec: str) -> None:
    """Symbols, ids, sizes and values that training never saw: each costs more, none is lost."""
    model = trained(codec, Kind(), None)
    odd = Kind(spread=300.0, id_shift=2000)
    check_round_trip(model, packed_records([[4096 % VOCAB_SIZE, 2999, 0, 1], [300] * 60], odd, seed=3))


@pytest.mark.parametrize("codec", PACKED_CODECS)
def test_a_model_of_no_labels_brings_any_back(codec: str) -> None:
    model = train(codec, packed_records([[], []], Kind()), VOCAB_SIZE, is_constant_size=True)
    check_round_trip(model, packed_records([[4, 0, 7], [], [30] * 120], Kind()))


@pytest.mark.parametrize("kept_mass", [1e-9, 1e-4, 0.003, 0.0041, 0.02, 0.9999999])
def test_the_bound_holds_where_little_or_all_is_kept(kept_mass: float) -> None:
    kind = Kind(kept_mass=kept_mass)
    for codec in ("standard", "small"):
        check_round_trip(trained(codec, Kind(), None), packed_records([[1, 2, 12] * 20], kind))


@pytest.mark.parametrize("value", [-0.0, -1.4e-45, -1e-40, -1.1754944e-38, -3e38])
def test_the_ends_of_float32_come_back_exactly_and_zero_without_a_sign(value: float) -> None:
    (record,) = packed_records([[1]], Kind())
    fields = {name: getattr(record.labels, name) for name in Labels.__slots__}
    given = np.array([value], dtype=np.float32)
    fields |= {"logprobs": given, "target_logprobs": given, "tail_mass": np.zeros(1, np.float32)}
    object.__setattr__(record, "labels", Labels(**fields))
    model = Model.from_bytes(trained("exact", Kind(), None))
    (got,) = decode_both_ways(model, [LabelEncoder(model).encode(record)], [record.target_ids])
    assert isinstance(got, Labels)
    wanted = np.where(given == 0, np.float32(0), given)
    assert got.logprobs.tobytes() == got.target_logprobs.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("codec", PACKED_CODECS)
def test_one_record_alone_decodes_as_among_others(codec: str) -> None:
    records = packed_records([[9] * 100, [], [3, 0, 12], [5] * 30], Kind())
    model = Model.from_bytes(trained(codec, Kind(), None))
    data = [LabelEncoder(model).encode(record) for record in records]
    together = decode_both_ways(model, data, [record.target_ids for record in records])
    for record, part, wanted in zip(records, data, together, strict=True):
        for is_compiled in (False, True):
            got = LabelDecoder(model, is_compiled=is_compiled).decode(memoryview(part), record.target_ids)
            assert isinstance(wanted, Labels)
            np.testing.assert_array_equal(got.token_ids, wanted.token_ids)
            np.testing.assert_array_equal(got.logprobs, wanted.logprobs)


def test_many_candidates_are_decoded_in_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelstore.codecs.packed.decoder.MAX_BATCH_CANDIDATES", 100)
    monkeypatch.setattr("labelstore.codecs.packed.decoder.MAX_BATCH_RECORDS", 3)
    records = packed_records([[9] * 30, [], *[[2]] * 8, [9] * 10, [9] * 10], Kind())
    check_round_trip(trained("standard", Kind(), None), records)


def test_labels_that_do_not_fit_the_model_are_refused() -> None:
    encoder = LabelEncoder(Model.from_bytes(trained("standard", Kind(), 8)))
    (ragged,) = packed_records([[8, 7]], Kind())
    with pytest.raises(ValueError, match="every label must have 8 candidates, as those that the model is for, got 7"):
        encoder.encode(ragged)
    (beyond,) = packed_records([[8] * 20], Kind(vocab_size=9000))
    with pytest.raises(ValueError, match="candidates' ids must be below 3,000, as the model is for"):
        encoder.encode(beyond)
    (drawn,) = packed_records([[8]], Kind(has_draws=True))
    with pytest.raises(ValueError, match="draws and entropy must be there for all records of a shard or for none"):
        encoder.encode(drawn)
    (twice,) = packed_records([[8, 8]], Kind())
    twice.labels.token_ids[1, 3] = twice.labels.token_ids[1, 5]
    with pytest.raises(ValueError, match="label 1 has a candidate's id twice"):
        encoder.encode(twice)
    (large,) = packed_records([[4097]], Kind(vocab_size=6000))
    with pytest.raises(ValueError, match="a label can have 4,096 candidates, got 4,097; use --codec open"):
        LabelEncoder(Model.from_bytes(trained("standard", Kind(vocab_size=6000), None))).encode(large)


def test_numbers_that_have_no_symbol_are_refused() -> None:
    encoder = LabelEncoder(Model.from_bytes(trained("standard", Kind(), 8)))
    (record,) = packed_records([[8] * 3], Kind())
    record.labels.target_ranks[1] = (1 << 24) + 1
    with pytest.raises(ValueError, match="a target's rank can be 16,777,216, got 16,777,217"):
        encoder.encode(record)
    encoder = LabelEncoder(Model.from_bytes(trained("standard", Kind(has_draws=True), 8)))
    (record,) = packed_records([[8] * 3], Kind(has_draws=True))
    assert record.labels.draw_counts is not None
    record.labels.draw_counts[5] = 1 << 25
    with pytest.raises(ValueError, match="a candidate can be drawn 33,554,431 times, got 33,554,432; use --codec open"):
        encoder.encode(record)


def test_minus_infinity_is_refused() -> None:
    (record,) = packed_records([[3]], Kind())
    fields = {name: getattr(record.labels, name) for name in Labels.__slots__}
    with pytest.raises(ValueError, match="logprobs must be finite and <= 0, got -inf in label 0"):
        Labels(**{**fields, "logprobs": np.array([[-1, -2, -np.inf]], np.float32)})
