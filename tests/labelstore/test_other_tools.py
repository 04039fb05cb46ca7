"""The folder's shards open in the tools that people have, as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def test_trls_collator_takes_hard_labels_as_they_are(root: Path, tmp_path: Path) -> None:
    sft_trainer = pytest.importorskip("trl.trainer.sft_trainer", reason="trl is not needed for anything else here")
    from datasets import load_dataset

    def to_hard_labels(row: dict[str, Any]) -> dict[str, list[int]]:  # as in docs/sharing.md
        ids, labels = row["input_ids"], [-100] * len(row["input_ids"])
        for span in row["spans"]:
            labels[span["start"] : span["stop"]] = ids[span["start"] : span["stop"]]
        return {"input_ids": ids, "labels": labels}

    rows = load_dataset(str(root), split="train", cache_dir=str(tmp_path / "cache"))
    rows = rows.map(to_hard_labels, remove_columns=rows.column_names)
    batch = sft_trainer.DataCollatorForLanguageModeling(pad_token_id=0)([dict(rows[0])])
    record = make_record(0, num_labels=10)
    assert batch["input_ids"][0].tolist() == record.input_ids.tolist()
    assert batch["labels"][0].tolist() == [-100] * 4 + record.input_ids[4:].tolist()
