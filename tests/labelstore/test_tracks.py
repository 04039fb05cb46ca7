"""Every record is read once in an epoch, by any number of ranks and workers, stopped and resumed anywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelstore.reading_order import ReadingOrder
from labelstore.tracks import Tracks

counts = st.integers(1, 5)


def ordinals(tracks: Tracks, *, from_step: int = 0, to_step: int | None = None) -> list[int]:
    """Return what all tracks hold between two steps, as their batches say."""
    found = []
    for rank in range(tracks.num_ranks):
        for worker in range(tracks.num_workers):
            left = [n for start, stop in tracks.track(rank, worker, from_step=from_step) for n in range(start, stop)]
            for step, size in tracks.batch_sizes(rank, worker, from_step=from_step):
                if to_step is None or step < to_step:
                    found += left[:size]
                left = left[size:]
            assert not left
    return found


@given(records=st.integers(0, 200), first=st.tuples(counts, counts, counts), later=st.tuples(counts, counts, counts))
def test_what_one_run_had_and_what_another_goes_on_with_is_each_record_once(
    records: int, first: tuple[int, int, int], later: tuple[int, int, int]
) -> None:
    names = ("num_ranks", "num_workers", "batch_size")
    whole = ((0, records),) if records else ()
    tracks = Tracks(intervals=whole, **dict(zip(names, first, strict=True)))
    for step in {0, 1, tracks.num_steps // 2, tracks.num_steps}:
        had = ordinals(tracks, to_step=step)
        assert sorted(had + ordinals(tracks, from_step=step)) == list(range(records))
        rest = Tracks(intervals=tracks.left_after(step), **dict(zip(names, later, strict=True)))
        middle = rest.num_steps // 2
        last = Tracks(intervals=rest.left_after(middle), **dict(zip(names, first, strict=True)))
        assert sorted([*had, *ordinals(rest, to_step=middle), *ordinals(last)]) == list(range(records))
        assert Tracks.from_json(last.to_json()) == last


@given(records=st.integers(1, 200), numbers=st.tuples(counts, counts, counts))
def test_all_ranks_have_equal_steps_and_workers_take_turns(records: int, numbers: tuple[int, int, int]) -> None:
    num_ranks, num_workers, batch_size = numbers
    tracks = Tracks(intervals=((0, records),), num_ranks=num_ranks, num_workers=num_workers, batch_size=batch_size)
    for rank in range(num_ranks):
        steps = [[step for step, _ in tracks.batch_sizes(rank, worker, from_step=0)] for worker in range(num_workers)]
        assert sorted(step for part in steps for step in part) == list(range(tracks.num_steps))
        assert all(step % num_workers == worker for worker, part in enumerate(steps) for step in part)
    assert tracks.num_steps * num_ranks * batch_size < records + num_ranks * num_workers * (batch_size + 1)


@pytest.mark.parametrize("seed", [None, 3])
@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=12), pool=st.integers(1, 5))
def test_an_order_is_each_record_once_and_can_be_entered_anywhere(
    seed: int | None, sizes: list[int], pool: int
) -> None:
    edges = np.cumsum([0, *sizes])
    groups = [np.arange(edges[i], edges[i + 1]) for i in range(len(sizes))]
    order = ReadingOrder(group_records=groups, seed=seed, epoch=2, pool_row_groups=pool)
    whole = [n for part in order.pools([(0, len(order))]) for n in part.tolist()]
    assert sorted(whole) == list(range(sum(sizes)))
    assert seed is not None or whole == sorted(whole)
    for start in range(len(whole)):
        stop = min(start + 7, len(whole))
        assert [n for part in order.pools([(start, stop)]) for n in part.tolist()] == whole[start:stop]


def test_an_epoch_is_shuffled_far_beyond_a_pool_and_differs_from_the_next() -> None:
    groups = [np.arange(10 * i, 10 * i + 10) for i in range(100)]

    def epoch(number: int, seed: int = 0) -> list[int]:
        order = ReadingOrder(group_records=groups, seed=seed, epoch=number, pool_row_groups=8)
        return [n for part in order.pools([(0, 1000)]) for n in part.tolist()]

    assert epoch(0) == epoch(0) != epoch(1) != epoch(0, seed=1)
    # Independent of the place in the dataset: the correlation of 1,000 random pairs is 0 within 0.03.
    assert abs(np.corrcoef(epoch(0), np.arange(1000))[0, 1]) < 0.15
    same_group = np.diff(np.array(epoch(0)) // 10) == 0
    assert same_group.mean() < 0.2, "records of a row group stand beside each other"


def test_bad_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Tracks(intervals=((0, 3),), num_ranks=1, num_workers=1, batch_size=0)
    with pytest.raises(ValueError, match="pool_row_groups must be at least 1, got 0"):
        ReadingOrder(group_records=[], seed=0, epoch=0, pool_row_groups=0)
