"""Parts of a job, and the claim by which one of several jobs does what only one should do."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

import labelgen.job.claim
from labelgen.job.claim import Claim
from labelgen.job.heartbeat import ProcessName
from labelgen.job.part import Part
from labelstore.local_store import LocalStore


def leave_claim(root: Path, *, host: str, pid: int, beats: int = 0) -> None:
    process = {"host": host, "pid": pid, "started_ticks": 1}
    folder = root / ".labelgen/claims"
    folder.mkdir(parents=True, exist_ok=True)
    claim = {"process": process, "nonce": "n", "beats": beats}
    (folder / "it.7.json").write_text(json.dumps(claim))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_block_is_in_one_part_and_parts_differ_by_one_block(count: int) -> None:
    blocks = [f"{i:06d}" for i in range(50)]
    parts = [Part(number=number, count=count) for number in range(1, count + 1)]
    shares = [[block for block in blocks if part.holds(block)] for part in parts]
    assert sorted(block for share in shares for block in share) == blocks
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0"])
def test_a_part_that_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"--part {text}: parts are counted from 1"):
        Part.parse(text)


def test_a_part_is_written_as_two_numbers() -> None:
    assert str(Part.parse("3/8")) == "3/8"
    with pytest.raises(ValueError, match=r"--part must be I/N, such as 3/8, got '3 of 8'"):
        Part.parse("3 of 8")


def test_one_holds_a_claim_at_a_time_and_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    done: list[int] = []
    at_once: list[int] = []

    def work(number: int) -> None:
        with Claim(LocalStore(tmp_path), "it").held(while_needed=lambda: not done) as is_held:
            if is_held:
                at_once.append(number)
                assert len(at_once) == 1
                done.append(at_once.pop())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(done) == 1


def test_a_claim_of_a_dead_process_is_taken_over_at_once(tmp_path: Path) -> None:
    leave_claim(tmp_path, host=ProcessName.of_this().host, pid=2**22 + 1)
    with Claim(LocalStore(tmp_path), "it").held(while_needed=lambda: True) as is_held:
        assert is_held
        assert [path.name for path in (tmp_path / ".labelgen/claims").iterdir()] == ["it.8.json"]


def test_a_claim_of_another_machine_is_waited_for_while_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelgen.job.claim, "_DEAD_AFTER_SECONDS", 0.2)
    monkeypatch.setattr(labelgen.job.claim, "_POLL_SECONDS", 0.05)
    leave_claim(tmp_path, host="elsewhere", pid=1)
    waited: list[str] = []

    def waiting(who: str) -> None:
        waited.append(who)
        if len(waited) < 10:  # the other one is alive for half a second
            leave_claim(tmp_path, host="elsewhere", pid=1, beats=len(waited))

    with Claim(LocalStore(tmp_path), "it").held(while_needed=lambda: True, waiting=waiting) as is_held:
        assert is_held
    assert len(waited) > 10 and set(waited) == {"process 1 on elsewhere"}


def test_a_claim_that_is_given_back_is_free(tmp_path: Path) -> None:
    for _ in range(3):
        with Claim(LocalStore(tmp_path), "it").held(while_needed=lambda: True) as is_held:
            assert is_held and len(list((tmp_path / ".labelgen/claims").iterdir())) == 1
        assert not list((tmp_path / ".labelgen/claims").iterdir())


def test_a_claim_that_could_not_be_deleted_holds_up_nobody_of_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: LocalStore, name: str) -> None:
        raise OSError(f"{name}: input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(LocalStore, "delete", fail)
        with (
            pytest.raises(OSError, match="input/output error"),
            Claim(LocalStore(tmp_path), "it").held(while_needed=lambda: True),
        ):
            pass
    assert list((tmp_path / ".labelgen/claims").iterdir())
    waited: list[str] = []
    with Claim(LocalStore(tmp_path), "it").held(while_needed=lambda: True, waiting=waited.append) as is_held:
        assert is_held and waited == []
