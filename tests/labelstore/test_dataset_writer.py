"""Kill the writer at every step: a reader sees the dataset as it was, or as it will be, never half of it."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import labelstore
from failing_os import failing_writes
from labelstore.codecs import codec_named
from labelstore.dataset_writer import DatasetWriter, finish_dataset
from labelstore.local_store import LocalStore
from make_records import make_dataset, make_header, make_record


def write_block(root: Path, block: int) -> None:
    writer = DatasetWriter(root, make_header(), codec=codec_named("open"))
    records = [make_record(block * 3 + i) for i in range(3)]
    writer.publish_block(f"{block:06d}", records, num_prompts=3, num_rejected=0, recorded={})
    writer.finish()


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()],
    ids=["full", "eio", "ctrl-c"],
)
def test_a_write_that_fails_at_any_step_leaves_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    before = make_dataset(tmp_path / "before", num_blocks=1)
    shutil.copytree(before, tmp_path / "counted")
    with failing_writes(monkeypatch) as counted:
        write_block(tmp_path / "counted", 1)
    assert len(counted.calls) > 20
    for step in range(1, len(counted.calls) + 1):
        root = Path(shutil.copytree(before, tmp_path / str(step)))
        with failing_writes(monkeypatch, fail_at=step, error=error), pytest.raises(type(error)):
            write_block(root, 1)
        assert len(labelstore.open_dataset(root)) in (3, 6)
        assert all(record.labels for record in labelstore.open_dataset(root))
        with failing_writes(monkeypatch):
            write_block(root, 1)  # space is back: the same command goes on
        report = labelstore.verify_dataset(root)
        assert report.is_sound, (step, report.findings)
        assert report.num_records == 6
        left = list((root / ".labelgen/tmp").iterdir())  # where deleting failed, finish does it a day later
        assert not left or counted.calls[step - 1] == "unlink"


def test_of_two_jobs_the_first_entry_wins_and_nothing_doubles(tmp_path: Path) -> None:
    first = DatasetWriter(tmp_path, make_header(), codec=codec_named("open"))
    second = DatasetWriter(tmp_path, make_header(), codec=codec_named("open"))
    arguments: dict[str, Any] = {"num_prompts": 1, "num_rejected": 0, "recorded": {}}
    assert first.publish_block("000000", [make_record(0)], **arguments)
    assert not second.publish_block("000000", [make_record(0, text="slightly other")], **arguments)
    second.finish()
    assert labelstore.verify_dataset(tmp_path).is_sound
    assert [record.text for record in labelstore.open_dataset(tmp_path)] == ["answer 0"]
    # The same bytes twice: the loser must not delete what the winner lists.
    assert not second.publish_block("000000", [make_record(0)], **arguments)
    assert labelstore.verify_dataset(tmp_path).is_sound


def test_two_jobs_with_other_settings_do_not_mix_their_labels(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"num_prompts": 1, "num_rejected": 0, "recorded": {}}
    other = make_header(fingerprint_fields={"weights": "xyz"})
    first = DatasetWriter(tmp_path, make_header(), codec=codec_named("open"))
    second = DatasetWriter(tmp_path, other, codec=codec_named("open"))  # nothing is published: it may begin anew
    with pytest.raises(labelstore.FingerprintError, match="weights: xyz there, abc now"):
        first.publish_block("000000", [make_record(0)], **arguments)
    assert len(labelstore.open_dataset(tmp_path)) == 0 and not list((tmp_path / "data").iterdir())
    assert second.publish_block("000000", [make_record(1)], **arguments)
    assert labelstore.open_dataset(tmp_path)[0].prompt_id == "prompt-1"
    assert labelstore.verify_dataset(tmp_path).is_sound


def test_a_job_that_publishes_while_another_begins_anew_keeps_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = DatasetWriter(tmp_path, make_header(), codec=codec_named("open"))
    replace = LocalStore.replace

    def after_a_block(store: LocalStore, name: str, content: bytes) -> None:
        monkeypatch.setattr(LocalStore, "replace", replace)
        first.publish_block("000000", [make_record(0)], num_prompts=1, num_rejected=0, recorded={})
        store.replace(name, content)

    monkeypatch.setattr(LocalStore, "replace", after_a_block)
    with pytest.raises(labelstore.FingerprintError, match="weights: abc there, xyz now"):
        DatasetWriter(tmp_path, make_header(fingerprint_fields={"weights": "xyz"}), codec=codec_named("open"))
    assert labelstore.verify_dataset(tmp_path).is_sound and len(labelstore.open_dataset(tmp_path)) == 1


def test_finish_moves_orphans_aside_and_may_be_repeated(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    orphan = tmp_path / "data/000001-5-deadbeef.parquet"
    orphan.write_bytes(b"left by a kill")
    of_a_running_block = tmp_path / "data/000009-0-deadbeef.parquet"
    of_a_running_block.write_bytes(b"its entry is still to come")
    assert finish_dataset(tmp_path)[1] == ["data/000001-5-deadbeef.parquet"]
    assert (tmp_path / ".labelgen/orphans/000001-5-deadbeef.parquet").read_bytes() == b"left by a kill"
    assert of_a_running_block.exists()
    before = (tmp_path / "manifest.json").read_bytes()
    assert finish_dataset(tmp_path)[1] == []
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    other = make_header(fingerprint_fields={"weights": "abc", "dtype": "bfloat16", "adapter": "x"})
    with pytest.raises(labelstore.FingerprintError) as caught:
        DatasetWriter(tmp_path, other, codec=codec_named("open"))
    assert "dtype: float32 there, bfloat16 now" in str(caught.value)
    assert "adapter: None there, x now" in str(caught.value)
    assert "weights" not in str(caught.value)


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(labelstore.NotADatasetError, match=r"holds thesis.tex, and is no label dataset"):
        DatasetWriter(tmp_path, make_header(), codec=codec_named("open"))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(labelstore.NotADatasetError, match="is a file; give -o a folder"):
        DatasetWriter(tmp_path / "thesis.tex", make_header(), codec=codec_named("open"))


def test_a_withdrawn_entry_gives_way_to_the_next_generation(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    (tmp_path / ".labelgen/entries/000001.0.withdrawn").write_bytes(b"")
    assert [record.prompt_id for record in labelstore.open_dataset(tmp_path)] == ["prompt-0", "prompt-1", "prompt-2"]
    writer = DatasetWriter(tmp_path, make_header(), codec=codec_named("open"))
    assert writer.publish_block("000001", [make_record(9)], num_prompts=1, num_rejected=0, recorded={})
    assert (tmp_path / ".labelgen/entries/000001.1.json").exists()
    assert labelstore.open_dataset(tmp_path)[3].prompt_id == "prompt-9"


def test_publishing_costs_the_same_whatever_is_published_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path, num_blocks=5)
    writer = DatasetWriter(tmp_path, make_header(), codec=codec_named("open"))
    (tmp_path / ".labelgen/entries/000003.0.withdrawn").write_bytes(b"")  # by a repair, since the writer began

    def listed(*_: object) -> list[str]:
        raise AssertionError("at 100,000 blocks, a listing of the entries takes a tenth of a second")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "names", listed)
        for block in ("000003", "000005"):
            assert writer.publish_block(block, [make_record(9)], num_prompts=1, num_rejected=0, recorded={})
    assert (tmp_path / ".labelgen/entries/000003.1.json").exists()


def test_finish_is_idempotent_and_leaves_what_a_living_job_may_need(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    for name in ("000001-0-00000000", "000002-0-00000000"):  # of a published block, and of one that is not
        (tmp_path / f"data/{name}.parquet").write_bytes(b"half a shard")
    manifest, orphans = finish_dataset(tmp_path)
    assert orphans == ["data/000001-0-00000000.parquet"] and len(manifest.entries) == 2
    content = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert finish_dataset(tmp_path) == (manifest, [])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == content


@pytest.fixture
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("labelstore.local_files.os.link", no_links)


@pytest.mark.usefixtures("no_hard_links")
def test_a_disk_without_hard_links_keeps_exclusiveness(tmp_path: Path) -> None:
    test_of_two_jobs_the_first_entry_wins_and_nothing_doubles(tmp_path)
    assert not list((tmp_path / ".labelgen/tmp").iterdir())


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_one_of_many_writers_wins_and_no_reader_sees_half_a_file(tmp_path: Path) -> None:
    contents = [bytes([i]) * 100_000 for i in range(8)]
    seen: set[bytes] = set()
    wins: list[bytes] = []
    is_done = threading.Event()

    def write(content: bytes) -> None:
        if LocalStore(tmp_path).put_new("entries/0.json", content):
            wins.append(content)

    def watch() -> None:
        while not is_done.is_set():
            if (tmp_path / "entries/0.json").exists():
                seen.add((tmp_path / "entries/0.json").read_bytes())

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    watcher = threading.Thread(target=watch)
    for thread in [watcher, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    is_done.set()
    watcher.join()
    assert len(wins) == 1
    assert seen <= {wins[0]} and (tmp_path / "entries/0.json").read_bytes() == wins[0]


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_the_claim_of_a_dead_writer_binds_nobody(tmp_path: Path) -> None:
    claim = tmp_path / ".labelgen/tmp/entries_0.json.claim"
    claim.parent.mkdir(parents=True)
    claim.touch()
    os.utime(claim, times=(time.time() - 60,) * 2)
    assert LocalStore(tmp_path).put_new("entries/0.json", b"content")
    assert (tmp_path / "entries/0.json").read_bytes() == b"content"
    assert not claim.exists()
