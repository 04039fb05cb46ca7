"""Every write of a job fails once: the dataset is old or new, never half, and the same command goes on afterwards."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import labelgen
import labelstore
from failing_os import failing_writes
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.teacher import Answer, EngineError, Refusal, Request
from labelstore.errors import NotADatasetError
from labelstore.selection import Selection
from rejected_rows import rejected_rows

SELECTION = Selection(top_k=4)
ERRORS = [errno.ENOSPC, errno.EIO, errno.EACCES]
# In the long suite each write of two blocks fails in each of the three ways, else each of one block in one of them.
IS_LONG = int(os.environ.get("LABELGEN_FAULTS", "1")) > 1


def run(root: Path, source: Path, *, teacher: FakeTeacher | None = None) -> None:
    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(source),),
        output_dir=root,
        teacher="fake",
        selection=SELECTION,
        codec="open",
        block_size=3,
        max_tokens=5,
        rescore_at_end=2,
    )
    labelgen.run(spec, teacher=teacher or FakeTeacher(selection=SELECTION, vocab_size=300, max_model_len=64))


def contents(root: Path) -> list[Any]:
    return [
        (record.record_id, record.input_ids.tolist(), record.token_ids.tolist(), record.logprobs.tolist())
        for record in labelstore.open_dataset(root)
    ]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows: list[dict[str, Any]] = [{"id": f"p{i}", "prompt": f"question {i}"} for i in range(5 if IS_LONG else 2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"id": "bad"}]))  # the last one is rejected
    return path


def test_every_write_that_fails_leaves_old_or_new_and_the_same_command_goes_on(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing_writes(monkeypatch) as counted:
        run(tmp_path / "whole", source)
    wanted = contents(tmp_path / "whole")
    blocks = [wanted[:3], wanted[3:]]
    assert {"write", "fsync", "link", "rename", "mkdir"} <= set(counted.calls)
    num_stopped = 0
    for fail_at in range(1, len(counted.calls) + 1):
        for code in ERRORS if IS_LONG else [ERRORS[fail_at % 3]]:
            root = tmp_path / f"{fail_at}-{code}"
            try:
                error = OSError(code, os.strerror(code))
                with failing_writes(monkeypatch, fail_at=fail_at, error=error) as failing:
                    run(root, source)
            except (OSError, NotADatasetError):  # the latter: the folder itself cannot be made
                num_stopped += 1
            with contextlib.suppress(NotADatasetError):  # it failed before there was one
                assert contents(root) in ([], blocks[0], blocks[1], wanted), (fail_at, code)
            with failing_writes(monkeypatch):
                run(root, source)
            assert contents(root) == wanted, (fail_at, code)
            report = labelstore.verify_dataset(root)
            assert report.findings == [], (fail_at, code)
            assert [row["line"] for row in rejected_rows(root)] == [len(wanted) + 1]
            left = list((root / ".labelgen/tmp").iterdir())  # where deleting failed, finish does it a day later
            assert not left or failing.calls[fail_at - 1] == "unlink", (fail_at, code)
    assert num_stopped >= len(counted.calls) - 1  # none is swallowed


class DyingTeacher(FakeTeacher):
    """Dies after its first answer, which goes into the journal then."""

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        yield next(super().label(requests))
        raise EngineError("the engine is gone")


def test_every_write_of_a_dying_job_may_fail_too(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = DyingTeacher(selection=SELECTION, vocab_size=300, max_model_len=64)
    with failing_writes(monkeypatch) as counted:
        run(tmp_path / "whole", source)
        wanted = contents(tmp_path / "whole")
        counted.calls.clear()
        with pytest.raises(EngineError):
            run(tmp_path / "counted", source, teacher=dying)
    assert list((tmp_path / "counted/.labelgen/journal").iterdir())
    for fail_at in range(1, len(counted.calls) + 1):
        root, code = tmp_path / str(fail_at), ERRORS[fail_at % 3]
        with (
            failing_writes(monkeypatch, fail_at=fail_at, error=OSError(code, os.strerror(code))),
            pytest.raises((OSError, EngineError, NotADatasetError)),
        ):
            run(root, source, teacher=dying)
        with failing_writes(monkeypatch):
            run(root, source)
        assert contents(root) == wanted, (fail_at, code)
        assert labelstore.verify_dataset(root).findings == [], (fail_at, code)
