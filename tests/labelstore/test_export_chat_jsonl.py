"""Rows for supervised fine-tuning, and what is said of what they leave out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labelstore.codecs import codec_named
from labelstore.dataset import LabelDataset, open_dataset
from labelstore.dataset_writer import DatasetWriter
from labelstore.errors import DamagedDatasetError
from labelstore.export import export_dataset
from make_records import make_dataset, make_header, make_record

TOOL = {"type": "function", "function": {"name": "now"}}
NAMED = {"role": "user", "content": "hi", "name": "Ann"}


def dataset_of(root: Path, *records: Any, task: str = "generate") -> LabelDataset:
    writer = DatasetWriter(root, make_header(task=task), codec=codec_named("open"))
    writer.publish_block("000000", list(records), num_prompts=len(records), num_rejected=0, recorded={})
    writer.finish()
    return open_dataset(root)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_chat_ends_with_the_answer_and_keeps_what_else_its_messages_hold(tmp_path: Path) -> None:
    record = make_record(messages=[NAMED], text="hello \u2028 you", kept={"tools": [TOOL], "source": "x"})
    dataset = dataset_of(tmp_path / "labels", record)
    export_dataset(dataset, tmp_path / "rows.jsonl", target="chat-jsonl")
    assert rows_of(tmp_path / "rows.jsonl") == [
        {
            "id": "prompt-0#0",
            "messages": [NAMED, {"role": "assistant", "content": "hello \u2028 you"}],
            "tools": [TOOL],
            "finish_reason": "stop",
            "kept": {"source": "x"},
        }
    ]


def test_a_prompt_and_its_answer_are_a_completion(tmp_path: Path) -> None:
    record = make_record(messages=None, prompt="once", text=" upon", kept={})
    export_dataset(dataset_of(tmp_path / "labels", record), tmp_path / "rows.jsonl", target="chat-jsonl")
    assert rows_of(tmp_path / "rows.jsonl") == [
        {"id": "prompt-0#0", "prompt": "once", "completion": " upon", "finish_reason": "stop"}
    ]


def test_a_scored_text_is_a_text(tmp_path: Path) -> None:
    record = make_record(messages=None, text="a window", document_offset=7, finish_reason=None, kept={})
    dataset = dataset_of(tmp_path / "labels", record, task="score")
    summary = export_dataset(dataset, tmp_path / "rows.jsonl", target="chat-jsonl")
    assert rows_of(tmp_path / "rows.jsonl") == [{"id": "prompt-0@7", "text": "a window"}]
    assert any("each window is a row" in loss for loss in summary.losses)


def test_what_is_left_out_and_lost_is_said(tmp_path: Path) -> None:
    records = [make_record(0, text=None), make_record(1, finish_reason="length"), make_record(2)]
    seen: list[int] = []
    summary = export_dataset(
        dataset_of(tmp_path / "labels", *records), tmp_path / "rows.jsonl", target="chat-jsonl", on_records=seen.append
    )
    assert summary.left_out == {"have no text": 1}
    assert summary.num_records == len(rows_of(tmp_path / "rows.jsonl")) == 2
    assert summary.num_bytes == (tmp_path / "rows.jsonl").stat().st_size
    assert any("soft labels" in loss for loss in summary.losses)
    assert any("1 of 3 responses, which were cut" in loss for loss in summary.losses)
    assert seen == [1, 2, 3]


def test_datasets_reads_the_rows(tmp_path: Path) -> None:
    from datasets import load_dataset

    dataset = open_dataset(make_dataset(tmp_path / "labels"))
    export_dataset(dataset, tmp_path / "rows.jsonl", target="chat-jsonl")
    loaded = load_dataset(
        "json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded[5]["messages"][1] == {"role": "assistant", "content": "answer 5"}


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "labels"))
    (tmp_path / "rows.jsonl").write_text("mine")
    with pytest.raises(ValueError, match="is there already"):
        export_dataset(dataset, tmp_path / "rows.jsonl", target="chat-jsonl")
    assert (tmp_path / "rows.jsonl").read_text() == "mine"


@pytest.mark.parametrize("target", ["chat-jsonl", "axolotl-kd"])
def test_a_damaged_shard_ends_an_export_without_a_file(target: str, tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "labels")
    shard = sorted((root / "data").iterdir())[-1]
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DamagedDatasetError, match="row group 0"):
        export_dataset(open_dataset(root), tmp_path / "out" / "rows", target=target)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_unknown_target_is_named(tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "labels"))
    with pytest.raises(ValueError, match="--to must be one of chat-jsonl, axolotl-kd, got 'csv'"):
        export_dataset(dataset, tmp_path / "rows", target="csv")
