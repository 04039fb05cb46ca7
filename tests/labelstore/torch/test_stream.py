"""Streams of batches: each record once, the same steps on all ranks, and a state that goes on to the exact record."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from labelstore.dataset import LabelDataset, open_dataset
from labelstore.record_filter import RecordFilter
from labelstore.shard_reader import RowGroup
from labelstore.torch import Batch, BatchLoader, BatchStream, PaddingCollator
from make_records import VOCAB_SIZE
from make_student import make_tokenizer, make_training_dataset

NUM_RECORDS = 53


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> LabelDataset:
    return make_training_dataset(tmp_path_factory.mktemp("labels") / "a", num_records=NUM_RECORDS, block_records=6)


def stream(dataset: LabelDataset, **options: Any) -> BatchStream:
    defaults: dict[str, Any] = {"batch_size": 4, "pool_row_groups": 2}
    collate = PaddingCollator(dataset, tokenizer=make_tokenizer(), model=VOCAB_SIZE, max_length=64)
    return BatchStream(dataset, collate, **{**defaults, **options})


def ids_of(batches: Iterable[Batch]) -> list[tuple[str, ...]]:
    return [batch.record_ids for batch in batches]


def all_ids(dataset: LabelDataset) -> list[str]:
    return sorted(record.record_id for record in dataset)


def test_an_epoch_has_each_record_once_and_the_next_one_another_order(dataset: LabelDataset) -> None:
    batches = stream(dataset)
    first, second = ids_of(batches), ids_of(batches)
    assert batches.epoch == 2
    for epoch in (first, second):
        assert sorted(itertools.chain(*epoch)) == all_ids(dataset)
    assert first != second
    again = stream(dataset)
    again.set_epoch(1)
    assert ids_of(again) == second != ids_of(stream(dataset, seed=1))
    assert list(itertools.chain(*ids_of(stream(dataset, seed=None)))) == [record.record_id for record in dataset]


@pytest.mark.parametrize(("num_ranks", "batch_size"), [(2, 4), (3, 5), (8, 7)])
def test_ranks_have_equal_steps_and_each_record_goes_to_one(
    dataset: LabelDataset, num_ranks: int, batch_size: int
) -> None:
    ranks = [stream(dataset, rank=rank, num_ranks=num_ranks, batch_size=batch_size) for rank in range(num_ranks)]
    taken = [ids_of(rank) for rank in ranks]
    assert (
        len({len(part) for part in taken}) == 1
        and len(taken[0]) == stream(dataset, num_ranks=num_ranks, batch_size=batch_size).num_steps_left
    )
    had = [record_id for part in taken for batch in part for record_id in batch]
    assert sorted(set(had)) == all_ids(dataset) and len(had) - NUM_RECORDS < num_ranks


def test_a_row_group_is_read_once_by_each_worker_whose_run_meets_its_pool(
    dataset: LabelDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    whole = LabelDataset.read_row_group

    def read_row_group(self: LabelDataset, place: int) -> RowGroup:
        read.append(place)
        return whole(self, place)

    monkeypatch.setattr(LabelDataset, "read_row_group", read_row_group)
    num_groups = len(dataset.row_group_starts) - 1

    def times_read(*, num_ranks: int, pool_row_groups: int) -> list[int]:
        read.clear()
        for rank in range(num_ranks):
            ids_of(stream(dataset, rank=rank, num_ranks=num_ranks, pool_row_groups=pool_row_groups))
        return sorted(Counter(read).values())

    assert times_read(num_ranks=1, pool_row_groups=2) == [1] * num_groups
    assert sum(times_read(num_ranks=2, pool_row_groups=1)) <= num_groups + 1
    shared = times_read(num_ranks=2, pool_row_groups=num_groups)
    assert shared[-1] == 2 and sum(shared) > num_groups + 1


def test_more_lanes_than_records_repeat_records(dataset: LabelDataset) -> None:
    one = RecordFilter(min_tokens=max(len(record.input_ids) for record in dataset))
    ranks = [stream(dataset, record_filter=one, rank=rank, num_ranks=3) for rank in range(3)]
    taken = [ids_of(rank) for rank in ranks]
    assert taken[0] == taken[1] == taken[2] and len(taken[0]) == 1


def test_workers_give_the_batches_in_the_order_of_their_turns(dataset: LabelDataset) -> None:
    batches = stream(dataset, num_workers=2)
    loader = BatchLoader(batches)
    expected = batches.num_steps_left
    first = ids_of(loader)
    assert len(first) == expected and sorted(itertools.chain(*first)) == all_ids(dataset)
    assert batches.epoch == 1 and len(loader) == expected
    plain: DataLoader[Batch] = DataLoader(stream(dataset, num_workers=2), batch_size=None, num_workers=2)
    assert ids_of(plain) == first
    with pytest.raises(ValueError, match="the stream has num_workers=2, the DataLoader 1: give both one"):
        list(DataLoader(stream(dataset, num_workers=2), batch_size=None))


@pytest.mark.parametrize(("num_workers", "num_had"), [(0, 0), (0, 1), (0, 5), (0, 14), (2, 5)])
def test_the_same_loader_goes_on_as_if_it_had_never_stopped(
    dataset: LabelDataset, num_workers: int, num_had: int
) -> None:
    whole = ids_of(BatchLoader(stream(dataset, num_workers=num_workers)))
    whole += ids_of(BatchLoader(_at_epoch(stream(dataset, num_workers=num_workers), 1)))
    stopped = BatchLoader(stream(dataset, num_workers=num_workers))
    had = ids_of(itertools.islice(stopped, num_had))
    state = json.loads(json.dumps(stopped.state_dict()))
    resumed = BatchLoader(stream(dataset, num_workers=num_workers))
    resumed.load_state_dict(state)
    assert had + ids_of(resumed) + ids_of(resumed) == whole


def _at_epoch(batches: BatchStream, epoch: int) -> BatchStream:
    batches.set_epoch(epoch)
    return batches


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11 calls it, torch 2.13 warns
def test_a_stateful_data_loader_goes_on_to_the_record(dataset: LabelDataset) -> None:
    for num_workers in (0, 2):

        def loader(num_workers: int = num_workers) -> Any:
            batches = stream(dataset, num_workers=num_workers)
            return StatefulDataLoader(batches, batch_size=None, num_workers=num_workers)

        whole = ids_of(loader())
        stopped = loader()
        had = ids_of(itertools.islice(stopped, 5))
        resumed = loader()
        resumed.load_state_dict(stopped.state_dict())
        assert had + ids_of(resumed) == whole


def test_other_ranks_workers_and_batches_go_on_with_what_is_left(dataset: LabelDataset) -> None:
    had, state = [], {}
    for rank in range(3):
        loader = BatchLoader(stream(dataset, rank=rank, num_ranks=3, batch_size=2))
        had += ids_of(itertools.islice(loader, 4))
        state = loader.state_dict()
    for rank in range(2):  # two ranks of two workers: six steps more
        resumed = BatchLoader(stream(dataset, rank=rank, num_ranks=2, num_workers=2, batch_size=3))
        resumed.load_state_dict(state)
        had += ids_of(itertools.islice(resumed, 4))
        later = resumed.state_dict()
    last = BatchLoader(stream(dataset, batch_size=5))
    last.load_state_dict(later)
    had += ids_of(last)
    assert sorted(itertools.chain(*had)) == all_ids(dataset)
    assert sorted(itertools.chain(*ids_of(last))) == all_ids(dataset), "the next epoch is whole again"


def test_a_dataset_behind_a_url_streams_to_workers(dataset: LabelDataset, tmp_path: Path) -> None:
    make_training_dataset(tmp_path / "a", num_records=NUM_RECORDS, block_records=6)
    shutil.rmtree(tmp_path / "a" / ".labelgen")  # a pushed dataset has none
    behind_url = open_dataset(f"file://{tmp_path / 'a'}")
    assert ids_of(stream(behind_url)) == ids_of(stream(dataset))
    loader = BatchLoader(stream(behind_url, num_workers=2))
    assert sorted(itertools.chain(*ids_of(loader))) == all_ids(dataset)


def test_a_state_of_other_records_or_another_order_is_refused(dataset: LabelDataset) -> None:
    state = stream(dataset).state_dict()
    with pytest.raises(ValueError, match="the state is of a stream with seed 0, this one has 3"):
        stream(dataset, seed=3).load_state_dict(state)
    with pytest.raises(ValueError, match=r"with num_records 53, this one has \d+"):
        stream(dataset, record_filter=RecordFilter(min_tokens=20)).load_state_dict(state)
    with pytest.raises(ValueError, match="with pool_row_groups 2, this one has 3"):
        stream(dataset, pool_row_groups=3).load_state_dict(state)


def test_bad_arguments_are_refused_before_anything_starts(dataset: LabelDataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rank must be in \[0, 2\), got 2"):
        stream(dataset, rank=2, num_ranks=2)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        stream(dataset, batch_size=0)
    with pytest.raises(ValueError, match="has no record that passes RecordFilter"):
        stream(dataset, record_filter=RecordFilter(min_tokens=1000))
