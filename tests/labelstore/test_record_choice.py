"""Records that a conversion leaves out, and records that are held out."""

from __future__ import annotations

from pathlib import Path

import pytest

import labelstore
from labelstore.convert import ConversionSummary, SilentWatcher, convert_datasets
from labelstore.errors import NotADatasetError
from labelstore.holdout import is_held_out
from labelstore.record_choice import RecordChoice
from labelstore.record_filter import RecordFilter, select_records
from make_records import make_dataset


def convert(source: Path, output: Path, choice: RecordChoice, *, codec: str | None = None) -> ConversionSummary:
    return convert_datasets(
        [str(source)], output, codec=codec, choice=choice, labelgen_version="0.1.0", watcher=SilentWatcher()
    )


def ids_of(root: Path) -> list[str]:
    assert labelstore.verify_dataset(root).findings == []
    return [record.record_id for record in labelstore.open_dataset(root)]


@pytest.mark.parametrize("codec", ["open", "standard"])
def test_nothing_of_a_dropped_record_is_in_the_new_dataset(tmp_path: Path, codec: str) -> None:
    source = make_dataset(tmp_path / "source", codec=codec)
    all_ids = ids_of(source)
    by_prompt, by_record = all_ids[0].rsplit("#", 1)[0], all_ids[3]
    summary = convert(source, tmp_path / "new", RecordChoice(dropped_ids=frozenset({by_prompt, by_record, "nobody"})))
    assert ids_of(tmp_path / "new") == [i for i in all_ids if i not in (all_ids[0], by_record)]
    assert summary.num_copied_blocks == 0
    assert "1 of the ids in --drop-ids are in no record" in summary.warnings
    counts = [
        sum(entry.num_prompts for entry in labelstore.open_dataset(root).entries) for root in (source, tmp_path / "new")
    ]
    assert counts[1] == counts[0] - 2
    everything = b"".join(path.read_bytes() for path in (tmp_path / "new").rglob("*") if path.is_file())
    assert b"nobody" not in everything and by_record.encode() not in everything


def test_a_conversion_with_other_ids_is_another_one(tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "source")
    ids = ids_of(source)
    convert(source, tmp_path / "new", RecordChoice(dropped_ids=frozenset(ids[:1])))
    convert(source, tmp_path / "new", RecordChoice(dropped_ids=frozenset(ids[:1])))  # goes on: nothing to do
    with pytest.raises(NotADatasetError, match=r"the hash of --drop-ids was .*, is "):
        convert(source, tmp_path / "new", RecordChoice(dropped_ids=frozenset(ids[:2])))
    with pytest.raises(ValueError, match="no record would be left"):
        convert(source, tmp_path / "none", RecordChoice(dropped_ids=frozenset(ids)))
    assert not (tmp_path / "none").exists()


def test_held_out_records_are_the_same_ones_everywhere(tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "source")
    ids = ids_of(source)
    convert(source, tmp_path / "train", RecordChoice(holdout=0.5))
    convert(source, tmp_path / "evaluation", RecordChoice(holdout=0.5, only_holdout=True))
    train, evaluation = ids_of(tmp_path / "train"), ids_of(tmp_path / "evaluation")
    assert sorted(train + evaluation) == sorted(ids) and train and evaluation
    dataset = labelstore.open_dataset(source)
    for only_holdout, wanted in ((False, train), (True, evaluation)):
        groups = select_records(dataset, RecordFilter(holdout=0.5, only_holdout=only_holdout))
        assert [dataset[int(index)].record_id for group in groups for index in group] == wanted


def test_a_larger_share_holds_out_the_same_prompts_and_more() -> None:
    names = [f"prompt {i}" for i in range(20_000)]
    one, two = ({name for name in names if is_held_out(name, share)} for share in (0.01, 0.02))
    assert one < two and 150 < len(one) < 260 and 330 < len(two) < 480
    # The rule is for ever: what was held out when labels were made is held out when they are read.
    held_out = [number for number in range(400) if is_held_out(f"p{number}", 0.01)]
    assert held_out == [90, 98, 220, 349, 374, 378]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="a holdout must be a share of the prompts between 0 and 1"):
        RecordChoice(holdout=share)
    with pytest.raises(ValueError, match="a holdout must be a share"):
        RecordFilter(holdout=share)


def test_only_the_holdout_needs_a_share() -> None:
    with pytest.raises(ValueError, match="--only-holdout takes what --holdout leaves out"):
        RecordChoice(only_holdout=True)
    with pytest.raises(ValueError, match="only_holdout takes what holdout leaves out"):
        RecordFilter(only_holdout=True)
