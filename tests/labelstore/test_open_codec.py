from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelstore.codecs import codec_named
from labelstore.codecs.open import OpenCodec
from labelstore.labels import Labels
from labelstore.record import LabelRecord


def random_labels(counts: list[int], *, with_draws: bool, seed: int) -> Labels:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
    num_candidates, num_labels = int(offsets[-1]), len(counts)
    falling = [np.sort(-rng.exponential(3, count))[::-1] for count in counts]
    return Labels(
        token_ids=rng.integers(0, 2**24, num_candidates).astype(np.int32),
        logprobs=np.concatenate([*falling, np.zeros(0)]).astype(np.float32),
        candidate_offsets=offsets,
        target_logprobs=(-rng.exponential(3, num_labels)).astype(np.float32),
        target_ranks=rng.integers(1, 2**24, num_labels).astype(np.int32),
        tail_mass=rng.random(num_labels).astype(np.float32),
        draw_counts=rng.integers(1, 9, num_candidates).astype(np.int32) if with_draws else None,
        entropy=rng.random(num_labels).astype(np.float32) if with_draws else None,
    )


def assert_same(got: Labels, wanted: Labels) -> None:
    for name in Labels.__slots__:
        left, right = getattr(got, name), getattr(wanted, name)
        assert (left is None) == (right is None), name
        if right is not None:
            assert left.dtype == right.dtype and left.shape == right.shape, name
            np.testing.assert_array_equal(left, right)


def record_of(labels: Labels) -> LabelRecord:
    spans = np.array([[1, 1 + len(labels)]] if len(labels) else [], dtype=np.int32).reshape(-1, 2)
    return LabelRecord(
        prompt_id="a",
        input_ids=np.zeros(1 + len(labels), np.int32),
        spans=spans,
        span_kinds=("text",) if len(labels) else (),
        labels=labels,
    )


def table_of(labels: list[Labels]) -> pa.Table:
    columns = OpenCodec.encode([record_of(part) for part in labels])
    return pa.Table.from_arrays(columns, schema=pa.schema(list(OpenCodec.fields)))


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=5),
    with_draws=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_round_trip_changes_nothing(counts: list[list[int]], with_draws: bool, seed: int) -> None:
    labels = [random_labels(part, with_draws=with_draws, seed=seed + i) for i, part in enumerate(counts)]
    table = pa.Table.from_arrays(
        OpenCodec.encode([record_of(part) for part in labels]), schema=pa.schema(list(OpenCodec.fields))
    )
    decoded = OpenCodec.decode(table)
    for row, wanted in enumerate(labels):
        assert_same(decoded.row(row), wanted)


def test_mixed_draws_in_one_row_group_are_refused() -> None:
    with pytest.raises(ValueError, match="entropy must be there for all records"):
        OpenCodec.encode([record_of(random_labels([2], with_draws=flag, seed=0)) for flag in (True, False)])


def column(table: pa.Table, name: str, values: Any) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def test_columns_that_disagree_are_refused() -> None:
    labels = [random_labels([2, 2], with_draws=False, seed=0)]
    table = pa.Table.from_arrays(
        OpenCodec.encode([record_of(part) for part in labels]), schema=pa.schema(list(OpenCodec.fields))
    )
    with pytest.raises(ValueError, match="'tail_mass' and 'target_logprobs' hold different numbers of labels"):
        OpenCodec.decode(column(table, "tail_mass", [[0.5]]))
    with pytest.raises(ValueError, match="'logprobs' and 'token_ids' hold different numbers of candidates"):
        OpenCodec.decode(column(table, "logprobs", [[[-1.0], [-1.0]]]))
    with pytest.raises(ValueError, match="column 'token_ids' must be there"):
        OpenCodec.decode(table.drop_columns(["token_ids"]))


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--codec must be one of open, exact, standard, small, got 'zip'"):
        codec_named("zip")
