"""Kill the writer at every step: a reader sees the dataset as it was, or as it will be, never half of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import labelstore
from labelstore.codecs import codec_named
from labelstore.dataset_writer import DatasetWriter, finish_dataset
from make_records import make_dataset, make_header, make_record

STEPS = ("fsync", "link")  # every write goes through one of them


def write_block(root: Path, block: int) -> None:
    writer = DatasetWriter(root, make_header(), codec=codec_named("open"))
    records = [make_record(block * 3 + i) for i in range(3)]
    writer.publish_block(f"{block:06d}", records, num_prompts=3, num_rejected=0, recorded={})
    writer.finish()


class FailingOs:
    """Stands in for `os` in the store; the call with the given number fails, and so do all after a kill."""

    def __init__(self, fail_at: int, error: BaseException) -> None:
        self.calls = 0
        self._fail_at = fail_at
        self._error = error

    def __getattr__(self, name: str) -> Any:
        real: Callable[..., Any] = getattr(os, name)
        if name not in STEPS:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self._fail_at:
                raise self._error
            return real(*args, **kwargs)

        return call


def count_steps(root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    counting = FailingOs(-1, OSError())
    with monkeypatch.context() as patch:
        patch.setattr("labelstore.store.os", counting)
        write_block(root, 1)
    return counting.calls


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()],
    ids=["full", "eio", "ctrl-c"],
)
def test_a_write_that_fails_at_any_step_leaves_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    make_dataset(tmp_path / "counted", num_blocks=1)
    num_steps = count_steps(tmp_path / "counted", monkeypatch)
    assert num_steps > 6
    for step in range(1, num_steps + 1):
        root = make_dataset(tmp_path / str(step), num_blocks=1)
        with monkeypatch.context() as patch:
            patch.setattr("labelstore.store.os", FailingOs(step, error))
            with pytest.raises(type(error)):
                write_block(root, 1)
        assert len(labelstore.open_dataset(root)) in (3, 6)
        assert all(record.labels for record in labelstore.open_dataset(root))
        write_block(root, 1)  # space is back: the same command goes on
        report = labelstore.verify_dataset(root)
        assert report.is_sound, (step, report.findings)
        assert report.num_records == 6
        assert not list((root / ".labelgen/tmp").iterdir())


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


def test_a_disk_without_hard_links_keeps_exclusiveness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("labelstore.store.os.link", no_links)
    test_of_two_jobs_the_first_entry_wins_and_nothing_doubles(tmp_path)
