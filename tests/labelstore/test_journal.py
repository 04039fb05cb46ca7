"""The journal: nothing that was flushed is lost, nothing comes back changed or twice, damage is set aside."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelstore.errors import DamagedDatasetError, FingerprintError
from labelstore.journal import JOURNAL_DIR, Journal, Recovery
from labelstore.journal_segment import RefusedResponse, SegmentReader, segment_bytes, segment_name
from labelstore.labels import Labels
from labelstore.local_store import LocalStore
from labelstore.record import LabelRecord
from labelstore.selection import Selection
from make_records import make_labels, make_record

BLOCK, SHA256, FINGERPRINT = "000003", "b" * 64, "f" * 64


def begin(root: Path, **changes: Any) -> tuple[Journal, Recovery, set[str]]:
    """Open a journal as a job does; return it, what it says of earlier jobs, and whose answers it has."""
    journal = Journal(root, **{"fingerprint": FINGERPRINT, "flush_seconds": 3600.0, **changes})
    recovery = journal.recover({BLOCK: SHA256}, published=())
    return journal, recovery, journal.open_block(BLOCK, sha256=SHA256)


def refused(name: str) -> RefusedResponse:
    return RefusedResponse(prompt_id=name, record_id=f"{name}#1", reason="response 1: poison")


def segments(root: Path) -> list[Path]:
    return sorted(path for path in (root / JOURNAL_DIR).glob("*.parquet"))


def assert_same_bits(got: LabelRecord, wanted: LabelRecord) -> None:
    for name in LabelRecord.__slots__:
        if name not in ("labels", "input_ids", "spans"):
            assert getattr(got, name) == getattr(wanted, name), name
    pairs = [(getattr(got, name), getattr(wanted, name)) for name in ("input_ids", "spans")]
    pairs += [(getattr(got.labels, name), getattr(wanted.labels, name)) for name in Labels.__slots__]
    for left, right in pairs:
        assert (left is None) == (right is None)
        if left is not None:
            assert left.dtype == right.dtype and left.tobytes() == right.tobytes()
            assert left.shape == right.shape or left.size == 0  # of no labels nobody knows K


def odd_records() -> Iterator[LabelRecord]:
    for number, selection in enumerate(
        [
            Selection(top_k=8),
            Selection(top_k=8, entropy=True),
            Selection(keep_mass=0.9, max_k=50),
            Selection(draws=20),
            Selection(top_k=4, draws=9, entropy=True),
        ]
    ):
        yield make_record(number, selection=selection)
    yield make_record(5, num_labels=0, text=None, finish_reason=None, messages=None, prompt="x", kept={})
    yield make_record(6, document_offset=7, span_kinds=("answer",))
    yield make_record(7, messages=[{"role": "user", "content": None, "tool_calls": [{"a": 1}]}], response_index=3)
    tiny = make_labels(make_record(8).input_ids[4:], seed=8)
    values = tiny.logprobs.copy()
    values[:, -1] = np.float32(-1e30)  # a subnormal probability: any rounding would show
    fields = {name: getattr(tiny, name) for name in Labels.__slots__} | {"logprobs": values}
    yield make_record(8, labels=Labels(**fields))


@pytest.mark.parametrize("record", list(odd_records()), ids=lambda record: record.record_id)
def test_a_record_comes_back_bit_for_bit(record: LabelRecord, tmp_path: Path) -> None:
    journal, _, _ = begin(tmp_path)
    journal.add(BLOCK, record)
    journal.flush()
    (back,) = journal.read(BLOCK).records
    assert back is not record, "it was kept in memory"
    assert_same_bits(back, record)


def test_a_killed_job_goes_on_from_what_was_flushed(tmp_path: Path) -> None:
    journal, recovery, answered = begin(tmp_path)
    assert recovery == Recovery(num_records=0, num_refused=0, set_aside=()) and not answered
    journal.add(BLOCK, make_record(0))
    journal.add(BLOCK, refused("p"))
    journal.flush()
    journal.add(BLOCK, make_record(1))
    journal.flush()
    journal.add(BLOCK, make_record(2))  # not flushed: what a crash loses
    journal, recovery, answered = begin(tmp_path)
    assert recovery == Recovery(num_records=2, num_refused=1, set_aside=())
    assert answered == {"prompt-0#0", "prompt-1#0", "p#1"}
    journal.add(BLOCK, make_record(2))
    responses = journal.read(BLOCK)
    assert sorted(record.record_id for record in responses.records) == ["prompt-0#0", "prompt-1#0", "prompt-2#0"]
    assert responses.refused == [refused("p")]
    journal.remove(BLOCK)
    assert segments(tmp_path) == []


def test_a_block_that_is_published_in_time_never_touches_the_disk(tmp_path: Path) -> None:
    journal, _, _ = begin(tmp_path)
    journal.start()
    journal.add(BLOCK, make_record(0))
    assert len(journal.read(BLOCK).records) == 1
    journal.remove(BLOCK)
    journal.close()
    assert not (tmp_path / JOURNAL_DIR).exists()


@pytest.mark.parametrize("changes", [{"flush_seconds": 0.01}, {"max_pending_bytes": 1}], ids=["in time", "much"])
def test_what_is_pending_is_flushed_by_itself(tmp_path: Path, changes: dict[str, Any]) -> None:
    journal, _, _ = begin(tmp_path, **changes)
    journal.start()
    journal.add(BLOCK, make_record(0))
    journal.add(BLOCK, make_record(1))
    with journal._changed:  # memory is given back when it is done
        assert journal._changed.wait_for(lambda: journal._pending_bytes == 0, timeout=30)
    assert begin(tmp_path)[2] == {"prompt-0#0", "prompt-1#0"}
    journal.close()


def test_of_two_answers_to_one_request_the_first_is_kept(tmp_path: Path) -> None:
    journal, _, _ = begin(tmp_path)
    for text in ("first", "second"):
        journal.add(BLOCK, make_record(0, text=text))
    assert [record.text for record in journal.read(BLOCK).records] == ["first"]
    journal.flush()
    assert [record.text for record in journal.read(BLOCK).records] == ["first"]


def test_much_is_written_in_several_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelstore.journal._MAX_SEGMENT_BYTES", 3000)
    journal, _, _ = begin(tmp_path)
    for number in range(10):
        journal.add(BLOCK, make_record(number))
    journal.flush()
    assert len(segments(tmp_path)) == 5
    assert len(journal.read(BLOCK).records) == 10


def test_a_published_blocks_segments_are_deleted(tmp_path: Path) -> None:
    journal, _, _ = begin(tmp_path)
    journal.add(BLOCK, make_record(0))
    journal.flush()
    Journal(tmp_path, fingerprint=FINGERPRINT).recover({}, published={BLOCK})
    assert segments(tmp_path) == []


def test_a_journal_of_another_fingerprint_is_refused_and_left_alone(tmp_path: Path) -> None:
    journal, _, _ = begin(tmp_path)
    journal.add(BLOCK, make_record(0))
    journal.flush()
    with pytest.raises(FingerprintError, match="fingerprint ffffffffffffffff, this job's is eeeeeeeeeeeeeeee"):
        begin(tmp_path, fingerprint="e" * 64)
    assert len(segments(tmp_path)) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other prompts", "no segment"])
def test_a_damaged_segment_is_set_aside_and_reported(tmp_path: Path, damage: str) -> None:
    journal, _, _ = begin(tmp_path)
    for number in range(2):  # a segment each
        journal.add(BLOCK, make_record(number))
        journal.flush()
    path = segments(tmp_path)[0]
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:700] + bytes([content[700] ^ 1]) + content[701:])
    elif damage in ("cut", "empty"):
        path.write_bytes(content[: len(content) - 1 if damage == "cut" else 0])
    else:
        other = (
            b"not Parquet" if damage == "no segment" else segment_bytes([], [], fingerprint="f" * 64, block_sha256="")
        )
        path.unlink()
        path = path.with_name(segment_name(BLOCK, other))
        path.write_bytes(other)
    journal, recovery, answered = begin(tmp_path)
    assert len(answered) == recovery.num_records == 1
    (what,) = recovery.set_aside
    assert path.name in what
    assert path.with_name(path.name + ".damaged").exists() and not path.exists()
    assert len(journal.read(BLOCK).records) == 1
    assert begin(tmp_path)[1].set_aside == ()  # told once


def test_a_segment_that_vanishes_is_an_error_that_names_it(tmp_path: Path) -> None:
    journal, _, _ = begin(tmp_path)
    journal.add(BLOCK, make_record(0))
    journal.flush()
    segments(tmp_path)[0].unlink()
    with pytest.raises(DamagedDatasetError, match=r"000003-[0-9a-f]{16}.parquet: the segment is missing"):
        journal.read(BLOCK)


def test_a_full_disk_is_told_and_what_could_not_be_written_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, _, _ = begin(tmp_path, flush_seconds=0.01)
    with monkeypatch.context() as patch:

        def full(*_: object) -> bool:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(LocalStore, "put_new", full)
        journal.start()
        journal.add(BLOCK, make_record(0))
        assert journal._flusher is not None
        journal._flusher.join(30)
        with pytest.raises(OSError, match="No space left"):
            journal.add(BLOCK, make_record(1))
        with pytest.raises(OSError, match="No space left"):
            journal.close()
    journal.close()  # there is space again
    assert begin(tmp_path)[2] == {"prompt-0#0"}


def test_a_segment_with_refusals_alone_has_no_records() -> None:
    content = segment_bytes([], [refused("p")], fingerprint="f" * 64, block_sha256=SHA256)
    segment = SegmentReader(segment_name(BLOCK, content), content)
    assert segment.records() == [] and segment.record_ids() == [] and segment.refused == [refused("p")]
