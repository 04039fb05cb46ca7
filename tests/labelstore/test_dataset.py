from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from pathlib import Path

import fsspec
import numpy as np
import pytest

import labelstore
from labelstore.codecs import codec_named
from labelstore.dataset_writer import DatasetWriter, finish_dataset
from labelstore.shard_reader import _KnownBytes
from labelstore.shard_writer import ShardWriter
from make_records import make_dataset, make_header, make_record


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    dataset = labelstore.open_dataset(make_dataset(tmp_path))
    assert len(dataset) == 6
    for number, got in enumerate(dataset):
        wanted = make_record(number, num_labels=10 + number % 3)
        for name in ("prompt_id", "response_index", "document_offset", "messages", "text", "finish_reason", "kept"):
            assert getattr(got, name) == getattr(wanted, name), name
        for name in ("input_ids", "spans", "token_ids", "logprobs", "candidate_offsets", "target_logprobs"):
            np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
            assert getattr(got, name).dtype == getattr(wanted, name).dtype
        np.testing.assert_array_equal(got.target_ranks, wanted.target_ranks)
        np.testing.assert_array_equal(got.tail_mass, wanted.tail_mass)
        assert got.draw_counts is None and got.entropy is None and got.span_kinds == wanted.span_kinds


def test_messages_with_tools_and_parts_come_back_whole(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
        {"role": "tool", "content": "4", "name": "f"},
    ]
    writer = DatasetWriter(tmp_path, make_header(), codec=codec_named("open"))
    records = [make_record(0, messages=messages), make_record(1, messages=None, prompt="text", span_kinds=("answer",))]
    writer.publish_block("000000", records, num_prompts=2, num_rejected=0, recorded={})
    dataset = labelstore.open_dataset(tmp_path)
    assert dataset[0].messages == messages
    assert dataset[1].messages is None and dataset[1].prompt == "text" and dataset[1].span_kinds == ("answer",)


def test_a_lone_shard_says_what_it_is(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    root = make_dataset(tmp_path)
    metadata = pq.read_metadata(sorted((root / "data").iterdir())[0]).metadata
    assert metadata[b"labelstore.codec"] == b"open" and metadata[b"labelstore.vocab_size"] == b"500"
    fingerprint = labelstore.open_dataset(root).header.fingerprint
    assert metadata[b"labelstore.fingerprint"] == fingerprint.encode()


def test_a_damaged_manifest_does_not_keep_the_entries_from_being_read(tmp_path: Path) -> None:
    root = make_dataset(tmp_path)
    (root / "manifest.json").write_text("{")
    assert len(labelstore.open_dataset(root)) == 6
    assert "'labelgen finish' makes it again" in str(labelstore.verify_dataset(root).findings[0])
    finish_dataset(root)
    assert labelstore.verify_dataset(root).is_sound


def test_an_index_gives_what_iteration_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelstore.shard_writer.MAX_RECORDS_PER_ROW_GROUP", 2)  # several row groups a shard
    monkeypatch.setattr("labelstore.dataset_writer.MAX_SHARD_BYTES", 1500)  # several shards a block
    dataset = labelstore.open_dataset(make_dataset(tmp_path, num_blocks=3, records_per_block=7))
    assert len([shard for entry in dataset.entries for shard in entry.shards]) > 3
    by_iteration = [record.record_id for record in dataset]
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    assert [dataset[i].record_id for i in order] == [by_iteration[i] for i in order]
    assert dataset[-1].record_id == by_iteration[-1]
    assert [record.record_id for record in dataset[2:5]] == by_iteration[2:5]
    with pytest.raises(IndexError, match="record 21 of a dataset with 21 records"):
        dataset[21]
    copy = pickle.loads(pickle.dumps(dataset))  # as a data loader's worker gets it
    assert copy[3].record_id == by_iteration[3]


def test_a_copy_without_labelgen_folder_reads_the_same(tmp_path: Path) -> None:
    make_dataset(tmp_path / "made")
    copy = tmp_path / "copy"
    (copy / "data").mkdir(parents=True)
    (copy / "manifest.json").write_bytes((tmp_path / "made/manifest.json").read_bytes())
    for path in (tmp_path / "made/data").iterdir():
        (copy / "data" / path.name).write_bytes(path.read_bytes())
    assert [record.record_id for record in labelstore.open_dataset(copy)] == [f"prompt-{i}#0" for i in range(6)]
    assert labelstore.verify_dataset(copy).is_sound


def test_a_dataset_behind_a_url_reads_the_same(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/bucket/labels", recursive=True)
    dataset = labelstore.open_dataset("memory://bucket/labels")
    assert len(dataset) == 6 and dataset[4].prompt_id == "prompt-4"
    assert labelstore.verify_dataset("memory://bucket/labels").is_sound


def test_threads_can_share_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A shard has one parser for all its row groups: while it reads one, another thread must not give it another.
    monkeypatch.setattr("labelstore.shard_writer.MAX_RECORDS_PER_ROW_GROUP", 2)
    dataset = labelstore.open_dataset(make_dataset(tmp_path, num_blocks=1, records_per_block=4))
    ids = [record.record_id for record in dataset]
    found: list[str] = []
    other = threading.Thread(target=lambda: found.extend(record.record_id for record in dataset.read_row_group(1)))
    read = _KnownBytes.read

    def read_as_another_begins(source: _KnownBytes, size: int | None = -1) -> memoryview:
        if other.ident is None:
            other.start()
            other.join(0.2)  # it would be done by now
        return read(source, size)

    monkeypatch.setattr(_KnownBytes, "read", read_as_another_begins)
    assert [record.record_id for record in dataset.read_row_group(0)] == ids[:2]
    other.join()
    assert found == ids[2:]


def test_empty_records_and_a_block_without_records_are_kept(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path, make_header(), codec=codec_named("open"))
    writer.publish_block("000000", [], num_prompts=2, num_rejected=2, recorded={})
    records = [make_record(0, num_labels=0), make_record(1), make_record(2, num_labels=0)]
    writer.publish_block("000001", records, num_prompts=3, num_rejected=0, recorded={})
    writer.finish()
    dataset = labelstore.open_dataset(tmp_path)
    assert [len(record.labels) for record in dataset] == [0, 12, 0]
    assert labelstore.verify_dataset(tmp_path).is_sound


def test_a_record_that_contradicts_itself_is_not_written(tmp_path: Path) -> None:
    record = make_record()
    tail_mass = record.tail_mass.copy()
    tail_mass[0] = 1.0
    labels = labelstore.Labels(
        **{name: getattr(record.labels, name) for name in labelstore.Labels.__slots__ if name != "tail_mass"},
        tail_mass=tail_mass,
    )
    path = tmp_path / "shard"
    with (
        pytest.raises(ValueError, match=r"record 'prompt-0#0': position 4: kept mass"),
        ShardWriter(path, codec=codec_named("open"), model=b"", vocab_size=500, fingerprint="f") as shard,
    ):
        shard.write(make_record(labels=labels))
    assert not path.exists()  # a failed body must not leave a shard that looks finished


def test_no_dataset_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(labelstore.NotADatasetError, match="no such folder"):
        labelstore.open_dataset(tmp_path / "missing")
    with pytest.raises(labelstore.NotADatasetError, match="is no label dataset"):
        labelstore.open_dataset(tmp_path)


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".labelgen").mkdir()
    (tmp_path / ".labelgen/header.json").write_bytes(make_header(format_version=7).to_bytes())
    with pytest.raises(labelstore.FormatVersionError, match="has format version 7, this labelgen reads version 0"):
        labelstore.open_dataset(tmp_path)


def test_reading_needs_no_engine_and_no_torch(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    code = (
        "import sys, labelstore\n"
        f"dataset = labelstore.open_dataset({str(tmp_path)!r}); dataset[0]\n"
        "print([name for name in ('torch', 'vllm', 'transformers', 'click', 'labelgen') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
