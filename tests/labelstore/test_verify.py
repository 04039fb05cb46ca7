from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import labelstore
from labelstore.codecs import codec_named
from labelstore.dataset_writer import DatasetWriter, finish_dataset
from labelstore.errors import StorageError
from labelstore.sealed_json import seal
from make_records import make_dataset, make_header, make_record


def messages_of(root: Path) -> str:
    report = labelstore.verify_dataset(root)
    return "\n".join(str(finding) for finding in report.findings)


def read_all(root: Path) -> list[Any]:
    return [
        (record.record_id, record.input_ids.tolist(), record.token_ids.tolist(), record.logprobs.tolist(), record.text)
        for record in labelstore.open_dataset(root)
    ]


def test_every_flipped_byte_of_a_shard_is_found_and_never_read_as_labels(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, num_blocks=1)
    wanted = read_all(root)
    (path,) = (root / "data").iterdir()
    sound = path.read_bytes()
    places = np.random.default_rng(0).permutation(len(sound))[:250].tolist()
    for place in [*places, 0, 3, len(sound) - 1, len(sound) - 6]:
        damaged = bytearray(sound)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        assert "does not have the hash in its entry" in messages_of(root)
        with contextlib.suppress(labelstore.DamagedDatasetError):
            assert read_all(root) == wanted  # a byte that no reader looks at, such as the magic number in front
    path.write_bytes(sound)
    assert messages_of(root) == ""


@pytest.mark.parametrize("name", [".labelgen/header.json", ".labelgen/entries/000000.0.json", "manifest.json"])
def test_every_flipped_byte_of_a_json_file_is_found(tmp_path: Path, name: str) -> None:
    root = make_dataset(tmp_path, num_blocks=1)
    path = root / name
    sound = path.read_bytes()
    wanted = json.loads(sound)
    for place in range(0, len(sound), 7):
        damaged = bytearray(sound)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        try:
            is_same = json.loads(bytes(damaged)) == wanted  # white space: provably harmless
        except ValueError:
            is_same = False
        try:
            assert bool(messages_of(root)) != is_same, place
        except StorageError:
            assert not is_same


def test_a_truncated_missing_foreign_or_swapped_file_is_named(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, num_blocks=2)
    first, second = sorted((root / "data").iterdir())
    one, two = first.read_bytes(), second.read_bytes()

    first.write_bytes(one[:-100])
    assert f"{first.name}: has {len(one) - 100} bytes, its entry says {len(one)}" in messages_of(root)
    first.unlink()
    assert f"data/{first.name}: is listed, but the file is missing" in messages_of(root)
    first.write_bytes(one)
    (root / "data/extra.parquet").write_bytes(one)
    assert "data/extra.parquet: no entry lists this file" in messages_of(root)
    (root / "data/extra.parquet").unlink()
    first.write_bytes(two)
    second.write_bytes(one)
    assert f"{first.name}" in messages_of(root) and f"{second.name}" in messages_of(root)
    with pytest.raises(labelstore.DamagedDatasetError):
        list(labelstore.open_dataset(root))


def test_an_entry_under_another_name_or_of_another_dataset_is_refused(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "a", num_blocks=1)
    entry = root / ".labelgen/entries/000000.0.json"
    entry.rename(entry.with_name("000005.0.json"))
    with pytest.raises(labelstore.DamagedDatasetError, match=r"it was renamed"):
        labelstore.open_dataset(root)
    entry.with_name("000005.0.json").rename(entry)
    other = DatasetWriter(tmp_path / "b", make_header(fingerprint_fields={"weights": "xyz"}), codec=codec_named("open"))
    other.publish_block("000001", [make_record(9)], num_prompts=1, num_rejected=0, recorded={})
    foreign = tmp_path / "b/.labelgen/entries/000001.0.json"
    foreign.rename(entry.with_name(foreign.name))
    with pytest.raises(labelstore.DamagedDatasetError, match="block 000001 has another fingerprint"):
        labelstore.open_dataset(root)


def test_the_same_record_twice_is_found(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path, make_header(), codec=codec_named("open"))
    for block in ("000000", "000001"):
        writer.publish_block(block, [make_record(0)], num_prompts=1, num_rejected=0, recorded={})
    assert "prompt-0#0: another record has the same id" in messages_of(tmp_path)


def test_labels_that_contradict_themselves_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Written by a writer that checks nothing, so that all hashes are right and only the labels are wrong.
    monkeypatch.setattr("labelstore.shard_writer.find_problems", lambda *_, **__: [])
    record = make_record(0, num_labels=50)
    rolled = make_record(0, num_labels=50, input_ids=np.roll(record.input_ids, 1))
    writer = DatasetWriter(tmp_path, make_header(), codec=codec_named("open"))
    writer.publish_block("000000", [make_record(1), rolled], num_prompts=2, num_rejected=0, recorded={})
    assert "prompt-0#0: position" in messages_of(tmp_path)


def test_counts_that_an_entry_makes_up_are_found(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, num_blocks=1)
    path = root / ".labelgen/entries/000000.0.json"
    content = json.loads(path.read_bytes())
    del content["sha256"]
    content["shards"][0]["counts"]["num_labels"] += 1
    path.write_bytes(seal(content))
    assert "num_labels is 33, its entry says 34" in messages_of(root)
    assert "says something else of block 000000 than its entry" in messages_of(root)


def test_a_manifest_that_is_older_than_the_entries_is_no_error(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, num_blocks=1)
    writer = DatasetWriter(root, make_header(), codec=codec_named("open"))
    writer.publish_block("000001", [make_record(7)], num_prompts=1, num_rejected=0, recorded={})
    assert messages_of(root) == ""
    assert len(labelstore.open_dataset(root)) == 4
    finish_dataset(root)
    assert messages_of(root) == ""


def test_a_reader_that_hashes_files_finds_a_byte_that_no_row_group_covers(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, num_blocks=2)
    wanted = read_all(root)
    path = sorted((root / "data").iterdir())[1]
    content = bytearray(path.read_bytes())
    content[0] ^= 1  # of "PAR1", which no reader needs
    path.write_bytes(content)
    assert read_all(root) == wanted
    dataset = labelstore.open_dataset(root, hash_files=True)
    assert dataset[0].prompt_id == "prompt-0"
    for read in (lambda: dataset[3], lambda: list(dataset)):
        with pytest.raises(labelstore.DamagedDatasetError, match=f"{path.name}: does not have the hash in its entry"):
            read()
    path.unlink()
    with pytest.raises(labelstore.DamagedDatasetError, match=f"{path.name}: the file is missing"):
        list(dataset)
