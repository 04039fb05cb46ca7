from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from labelgen.prompts.prompt_fields import PromptFields
from labelgen.prompts.rejects import RejectLog
from labelgen.prompts.snapshot import Ingest, PromptSnapshot
from labelgen.prompts.sources import find_sources
from labelstore.errors import DamagedDatasetError
from labelstore.local_store import LocalStore
from rejected_rows import rejected_rows


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ingest(root: Path, *sources: Path | str, block_size: int = 4, **options: Any) -> Ingest:
    return PromptSnapshot(root).ingest(
        find_sources([str(source) for source in sources], task="generate", fields=PromptFields()),
        block_size=block_size,
        rejects=RejectLog(LocalStore(root)),
        **options,
    )


def blocks(root: Path) -> dict[str, list[str]]:
    snapshot = PromptSnapshot(root)
    return {block: [prompt.prompt_id for prompt in snapshot.read_block(block)] for block in snapshot.blocks}


ROWS = [{"id": f"r{i}", "prompt": f"question {i}"} for i in range(6)]


def test_prompts_are_cut_into_blocks_in_their_order(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "p.jsonl", ROWS)
    assert ingest(tmp_path, source).num_new == 6
    assert blocks(tmp_path) == {"000000": ["r0", "r1", "r2", "r3"], "000001": ["r4", "r5"]}
    prompt = PromptSnapshot(tmp_path).read_block("000001")[1]
    assert (prompt.prompt, prompt.source, prompt.line) == ("question 5", str(source), 6)


def test_an_unchanged_source_is_not_read_again(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "p.jsonl", ROWS)
    ingest(tmp_path, source)
    again = ingest(tmp_path, source)
    assert again.num_unchanged_sources == 1 and again.num_new == again.num_duplicates == 0


def test_what_is_appended_or_reordered_changes_no_block(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "p.jsonl", ROWS)
    ingest(tmp_path, source)
    before = blocks(tmp_path)
    write_rows(source, [{"id": "new", "prompt": "q"}, *reversed(ROWS)])
    again = ingest(tmp_path, source)
    assert (again.num_new, again.num_duplicates) == (1, 6)
    assert blocks(tmp_path) == {**before, "000002": ["new"]}


def test_an_id_with_other_content_is_rejected_and_both_rows_are_named(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "p.jsonl", [*ROWS, {"id": "r2", "prompt": "other"}, ROWS[0], {"nothing": 1}])
    result = ingest(tmp_path, source)
    assert (result.num_new, result.num_duplicates, result.num_rejected) == (6, 1, 2)
    rejected = rejected_rows(tmp_path)
    assert rejected[0]["line"] == 7 and rejected[0]["id"] == "r2"
    assert f"is that of {source}:3 too" in rejected[0]["reason"]
    assert rejected[1]["line"] == 9 and rejected[1]["id"] is None


def test_rejects_are_logged_once_however_often_a_job_runs(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "p.jsonl", [{"nothing": 1}])
    ingest(tmp_path, source)
    source.touch()
    ingest(tmp_path, source)
    assert len(rejected_rows(tmp_path)) == 1


def test_rejects_are_on_disk_before_the_block_behind_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_rows(tmp_path / "p.jsonl", [{"nothing": 1}, *ROWS])

    def killed(self: PromptSnapshot, prompts: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PromptSnapshot, "_write_block", killed)
    lengths: list[int] = []
    flush = RejectLog.flush

    def counted(self: RejectLog) -> None:
        flush(self)
        lengths.append(len(rejected_rows(tmp_path)))

    monkeypatch.setattr(RejectLog, "flush", counted)
    with pytest.raises(KeyboardInterrupt):
        ingest(tmp_path, source, limit=3)
    assert lengths[0] == 1


def test_a_limit_may_be_raised_later(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "p.jsonl", ROWS)
    ingest(tmp_path, source, limit=3)
    assert blocks(tmp_path) == {"000000": ["r0", "r1", "r2"]}
    ingest(tmp_path, source, limit=3)
    assert blocks(tmp_path) == {"000000": ["r0", "r1", "r2"]}
    ingest(tmp_path, source)
    assert blocks(tmp_path) == {"000000": ["r0", "r1", "r2"], "000001": ["r3", "r4", "r5"]}


def test_a_reading_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_rows(tmp_path / "p.jsonl", ROWS)
    write_block = PromptSnapshot._write_block

    def killed_at_the_second(self: PromptSnapshot, prompts: Any) -> None:
        if self.blocks:
            raise KeyboardInterrupt
        write_block(self, prompts)

    with monkeypatch.context() as patch:
        patch.setattr(PromptSnapshot, "_write_block", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            ingest(tmp_path, source)
    assert list(blocks(tmp_path)) == ["000000"]
    ingest(tmp_path, source)
    assert blocks(tmp_path) == {"000000": ["r0", "r1", "r2", "r3"], "000001": ["r4", "r5"]}


@pytest.mark.parametrize("is_stdin", [False, True], ids=["file", "stdin"])
def test_of_two_jobs_that_read_at_once_one_reads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_stdin: bool
) -> None:
    source = write_rows(tmp_path / "p.jsonl", ROWS)
    write_block = PromptSnapshot._write_block

    def with_another_job(self: PromptSnapshot, prompts: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(PromptSnapshot, "_write_block", write_block)
            ingest(tmp_path, source)  # reads and writes all of it meanwhile
        write_block(self, prompts)

    monkeypatch.setattr(PromptSnapshot, "_write_block", with_another_job)
    if is_stdin:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
        with pytest.raises(ValueError, match="the standard input cannot be read again; start this job again"):
            ingest(tmp_path, "-")
    else:
        read = ingest(tmp_path, source)
        assert (read.num_new, read.num_unchanged_sources) == (0, 1)
    assert blocks(tmp_path) == {"000000": ["r0", "r1", "r2", "r3"], "000001": ["r4", "r5"]}


def test_stdin_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert ingest(tmp_path, "-").num_new == 6
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert ingest(tmp_path, "-").num_new == 0
    assert len(blocks(tmp_path)) == 2


def test_a_damaged_block_is_an_error_that_names_it(tmp_path: Path) -> None:
    ingest(tmp_path, write_rows(tmp_path / "p.jsonl", ROWS))
    path = tmp_path / ".labelgen/prompts/000001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedDatasetError, match=r"000001.parquet: .* Without its prompts, block 000001"):
        PromptSnapshot(tmp_path).read_block("000001")
