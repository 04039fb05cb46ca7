"""Filters select by what a record is, and read no more than the question needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelstore import LabelRecord, RecordFilter, open_dataset
from labelstore.codecs import DEFAULT_CODEC
from labelstore.dataset import LabelDataset
from labelstore.record_filter import select_records
from labelstore.shard_reader import ShardReader
from make_records import make_record
from make_student import make_training_dataset

REASONS = ("stop", "length", None)


@pytest.fixture(scope="module", params=["open", DEFAULT_CODEC])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LabelDataset:
    records = [make_record(n, num_labels=3 * (n % 7), finish_reason=REASONS[n % 3]) for n in range(25)]
    return make_training_dataset(tmp_path_factory.mktemp("labels") / "a", records, codec=request.param)


@pytest.mark.parametrize(
    ("record_filter", "passes"),
    [
        (RecordFilter(), lambda record: True),
        (RecordFilter(finish_reasons=frozenset({"stop"})), lambda record: record.finish_reason == "stop"),
        (RecordFilter(min_tokens=10, max_tokens=16), lambda record: 10 <= len(record.input_ids) <= 16),
        (RecordFilter(max_tokens=0), lambda record: False),
        (RecordFilter(min_labels=9), lambda record: len(record.labels) >= 9),
        (
            RecordFilter(min_mean_logprob=-11.0, finish_reasons=frozenset({"stop", "length"})),
            lambda record: record.finish_reason and len(record.labels) and record.target_logprobs.mean() >= -11.0,
        ),
        (
            RecordFilter(min_mean_kept_mass=0.4),
            lambda record: len(record.labels) and record.labels.kept_mass.mean() >= 0.4,
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, RecordFilter) else "",
)
def test_a_filter_selects_as_python_would(
    dataset: LabelDataset, record_filter: RecordFilter, passes: Callable[[LabelRecord], object]
) -> None:
    selected = np.concatenate(select_records(dataset, record_filter)).tolist()
    wanted = [index for index, record in enumerate(dataset) if passes(record)]
    assert selected == wanted
    assert record_filter.passes_all or len(wanted) < len(dataset)
    assert record_filter.passes_all or record_filter.max_tokens == 0 or wanted


def test_lengths_and_reasons_are_answered_without_soft_labels(
    dataset: LabelDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: ShardReader, index: int) -> None:
        raise AssertionError("soft labels were read")

    monkeypatch.setattr(ShardReader, "row_group", refuse)
    assert np.concatenate(select_records(dataset, RecordFilter(min_labels=9))).size
    with pytest.raises(AssertionError, match="soft labels were read"):
        select_records(dataset, RecordFilter(min_mean_logprob=-9.0))


def test_a_filter_that_nothing_passes_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens 3 is below min_tokens 5"):
        RecordFilter(min_tokens=5, max_tokens=3)
    with pytest.raises(ValueError, match="min_mean_logprob is in nats, at most 0, got 1"):
        RecordFilter(min_mean_logprob=1)
    with pytest.raises(ValueError, match=r"min_mean_kept_mass is a probability mass in \[0, 1\], got 1.5"):
        RecordFilter(min_mean_kept_mass=1.5)


def test_a_dataset_can_be_read_by_row_groups(dataset: LabelDataset, tmp_path: Path) -> None:
    starts = dataset.row_group_starts.tolist()
    assert starts[0] == 0 and starts[-1] == len(dataset) == 25 and len(starts) == 4
    for place, start in enumerate(starts[:-1]):
        group = dataset.read_row_group(place)
        assert [record.record_id for record in group] == [
            record.record_id for record in dataset[start : starts[place + 1]]
        ]
    record = replace(
        make_record(1),
        spans=np.array([[4, 6], [7, 9]], dtype=np.int32),
        span_kinds=("reasoning", "answer"),
        labels=make_record(2, num_labels=4).labels,
    )
    spans = make_training_dataset(tmp_path / "a", [record])
    assert select_records(open_dataset(tmp_path / "a"), RecordFilter(min_labels=4))[0].tolist() == [0]
    assert select_records(spans, RecordFilter(min_labels=5))[0].tolist() == []
