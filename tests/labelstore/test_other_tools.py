"""The folder's shards open in the tools that people have, as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from make_records import make_dataset, make_record


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "labels")


def test_datasets_loads_the_folder(root: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    loaded = load_dataset(str(root), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 6
    assert loaded[4]["prompt_id"] == "prompt-4"
    assert loaded[4]["token_ids"] == make_record(4, num_labels=11).token_ids.tolist()
    assert loaded[4]["messages"] == [{"role": "user", "content": "question 4", "other": None}]


def test_datasets_loads_the_folder_before_the_job_is_finished(root: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    (root / "manifest.json").unlink()
    assert load_dataset(str(root), split="train", cache_dir=str(tmp_path / "cache")).num_rows == 6


def test_pandas_reads_the_shards(root: Path) -> None:
    import pandas

    frame = pandas.read_parquet(root / "data")
    assert frame["prompt_id"].tolist() == [f"prompt-{i}" for i in range(6)]
    assert frame["logprobs"][0][0].tolist() == make_record(0, num_labels=10).logprobs[0].tolist()


def test_polars_reads_the_shards(root: Path) -> None:
    import polars

    frame = polars.read_parquet(root / "data" / "*.parquet")
    assert frame.height == 6
    assert frame["spans"][0].to_list() == [{"start": 4, "stop": 14, "kind": "completion"}]
    assert frame["token_ids"][5].to_list() == make_record(5, num_labels=12).token_ids.tolist()


def test_duckdb_reads_the_shards(root: Path) -> None:
    import duckdb

    query = f"select count(*), sum(len(input_ids)), max(logprobs[1][1]) from '{root}/data/*.parquet'"
    count, tokens, best = duckdb.sql(query).fetchall()[0]
    assert (count, tokens) == (6, 90)
    assert best == max(float(make_record(i, num_labels=10 + i % 3).logprobs[0, 0]) for i in range(6))
