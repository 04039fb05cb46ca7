"""Golden files can be made and read back, and FORMAT.md suffices to read them.

examples/read_packed.py follows its text, with nothing of labelstore.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from make_golden import SELECTIONS, decoded_table, golden_records, main, make_golden

import read_packed
from labelstore.codecs import CODECS
from labelstore.dataset import open_dataset
from labelstore.verify import verify_dataset

DATASETS = [f"{selection}-{codec}" for selection in SELECTIONS for codec in CODECS]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("golden") / "v0"
    make_golden(root)
    return root


@pytest.mark.parametrize("name", DATASETS)
def test_a_golden_dataset_reads_back_as_what_stands_beside_it(name: str, golden: Path) -> None:
    assert not verify_dataset(golden / name).findings
    records = list(open_dataset(golden / name))
    assert decoded_table(records).equals(pq.read_table(golden / f"{name}.parquet"))


def test_no_golden_files_are_kept_while_the_format_is_not_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["make_golden.py"])
    with pytest.raises(SystemExit, match="version 0, not frozen"):
        main()


@pytest.mark.parametrize("name", SELECTIONS)
def test_the_exact_codecs_give_back_what_was_written(name: str, golden: Path) -> None:
    for codec in ("open", "exact"):
        for record, written in zip(
            open_dataset(golden / f"{name}-{codec}"), golden_records(SELECTIONS[name]), strict=True
        ):
            for field in ("logprobs", "target_logprobs", "target_ranks", "tail_mass"):
                np.testing.assert_array_equal(getattr(record.labels, field), getattr(written.labels, field), field)


@pytest.mark.parametrize("codec", ["standard", "small"])
@pytest.mark.parametrize("name", SELECTIONS)
def test_the_codecs_that_round_stay_within_the_bounds_of_the_text(name: str, codec: str, golden: Path) -> None:
    (path,) = (golden / f"{name}-{codec}" / "data").glob("*.parquet")
    step = 1 / read_packed.read_model(path.read_bytes(), pq.read_metadata(path)).inverse_step
    kl_sum, num_labels = 0.0, 0
    for record, written in zip(open_dataset(golden / f"{name}-{codec}"), golden_records(SELECTIONS[name]), strict=True):
        labels, truth = record.labels, written.labels
        np.testing.assert_array_equal(labels.target_ranks, truth.target_ranks)
        np.testing.assert_array_equal(labels.candidate_offsets, truth.candidate_offsets)
        np.testing.assert_allclose(labels.target_logprobs, truth.target_logprobs, rtol=1e-6, atol=1 / 64)
        np.testing.assert_allclose(np.sqrt(labels.tail_mass), np.sqrt(truth.tail_mass), rtol=0, atol=1 / 512 + 1e-6)
        if truth.entropy is not None and labels.entropy is not None:
            np.testing.assert_allclose(labels.entropy, truth.entropy, rtol=0, atol=1 / 4096 + 1e-6)
        for n in range(len(labels)):
            part = slice(truth.candidate_offsets[n], truth.candidate_offsets[n + 1])
            ids, own = labels.token_ids.reshape(-1)[part], truth.token_ids.reshape(-1)[part]
            assert ids[0] == own[0]
            order, own_order = np.argsort(ids), np.argsort(own)
            np.testing.assert_array_equal(ids[order], own[own_order])
            if labels.draw_counts is not None and truth.draw_counts is not None:
                np.testing.assert_array_equal(labels.draw_counts[part][order], truth.draw_counts[part][own_order])
            decoded = np.exp(labels.logprobs.reshape(-1)[part][order].astype(np.float64))
            shares = np.exp(truth.logprobs.reshape(-1)[part][own_order].astype(np.float64))
            kept = shares.sum()
            kl = float((shares * np.log(shares / kept * decoded.sum() / decoded)).sum())
            assert kl <= (1.26 * len(shares) + 8) * step**2 + 1e-6
            kl_sum, num_labels = kl_sum + kl, num_labels + 1
    assert kl_sum / num_labels <= {"standard": 4.5e-4, "small": 1.8e-3}[codec]


@pytest.mark.parametrize("name", [name for name in DATASETS if not name.endswith("-open")])
def test_the_plain_reader_gives_the_same_labels(name: str, golden: Path) -> None:
    (path,) = (golden / name / "data").glob("*.parquet")
    for number, record in enumerate(open_dataset(golden / name)):
        targets, labels = read_packed.read_labels(path, number)
        wanted = record.labels
        assert targets == record.target_ids.tolist()
        assert [label.target_rank for label in labels] == wanted.target_ranks.tolist()
        assert [label.target_logprob for label in labels] == wanted.target_logprobs.tolist()
        assert [label.tail_mass for label in labels] == wanted.tail_mass.tolist()
        if wanted.entropy is not None:
            assert [label.entropy for label in labels] == wanted.entropy.tolist()
        for name_of, values in (("token_ids", wanted.token_ids), ("logprobs", wanted.logprobs)):
            assert [value for label in labels for value in getattr(label, name_of)] == values.reshape(-1).tolist()
        if wanted.draw_counts is not None:
            assert [count for label in labels for count in label.draw_counts] == wanted.draw_counts.tolist()
        assert np.cumsum([0, *(len(label.token_ids) for label in labels)]).tolist() == wanted.candidate_offsets.tolist()


def test_the_plain_reader_prints_a_record(
    golden: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = (golden / "top_k-standard" / "data").glob("*.parquet")
    monkeypatch.setattr("sys.argv", ["read_packed.py", str(path), "2"])
    read_packed.main()
    assert len(capsys.readouterr().out.splitlines()) == 1 + 8
