"""Whole jobs on a real S3 server behind a proxy that breaks requests: labels are those of a job on a folder."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import labelgen
import labelstore
from labelgen.cli import main
from labelgen.job.progress import RunSummary
from labelgen.job.status import read_status
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.teacher import Answer, EngineError, Refusal, Request
from labelstore.errors import NotADatasetError
from labelstore.object_store import ObjectStore
from labelstore.reject_log import read_rejects
from labelstore.selection import Selection
from s3_server import FAULTS, KEY, SECRET, S3Proxy

URL = "s3://bucket/labels"
SELECTION = Selection(top_k=4)
NUM_JOBS = 2 * int(os.environ.get("LABELGEN_FAULTS", "1"))


class DyingTeacher(FakeTeacher):
    """Dies after two answers, which go into the journal then."""

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        for number, answer in enumerate(super().label(requests)):
            if number == 2:
                raise EngineError("the engine is gone")
            yield answer


class UntouchedTeacher(FakeTeacher):
    """Must not be asked anything."""

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        raise AssertionError("the engine was started")


def run(output: str | Path, source: str | Path, kind: type[FakeTeacher] = FakeTeacher) -> RunSummary:
    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(source),),
        output_dir=output,
        teacher="fake",
        selection=SELECTION,
        codec="open",
        block_size=3,
        max_tokens=4,
        flush_seconds=0.05,
        rescore_at_end=2,
    )
    return labelgen.run(spec, teacher=kind(selection=SELECTION, vocab_size=300, max_model_len=64))


def contents(location: str | Path) -> list[Any]:
    return [
        (record.record_id, record.input_ids.tolist(), record.token_ids.tolist(), record.logprobs.tolist())
        for record in labelstore.open_dataset(location)
    ]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows: list[dict[str, Any]] = [{"id": f"p{i}", "prompt": f"question {i}"} for i in range(5)]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"id": "bad"}]))  # the last one is rejected
    return path


@pytest.fixture
def wanted(tmp_path: Path, source: Path) -> list[Any]:
    run(tmp_path / "local", source)
    return contents(tmp_path / "local")


def test_a_job_on_an_object_store_dies_goes_on_and_is_looked_at_by_url(
    s3_proxy: S3Proxy, source: Path, wanted: list[Any], tmp_path: Path
) -> None:
    store = ObjectStore(URL)
    ObjectStore("s3://bucket/sources").replace("prompts.jsonl", source.read_bytes())
    prompts = "s3://bucket/sources/prompts.jsonl"
    with pytest.raises(EngineError):
        run(URL, prompts, DyingTeacher)
    assert len(store.names(".labelgen/journal")) >= 1 and read_status(URL).state == "failed"
    assert run(URL, prompts).num_new_records < len(wanted), "the journal is there again"
    assert contents(URL) == wanted and labelstore.verify_dataset(URL).findings == []
    assert len(read_rejects(store)) == 1 and read_status(URL).state == "finished"
    assert not store.names(".labelgen/journal")
    run(URL, prompts, UntouchedTeacher)

    invoke = CliRunner().invoke
    for command in (
        ["status", URL],
        ["finish", URL],
        ["inspect", URL],
        ["inspect", f"{URL}/", "--json"],
        ["verify", URL],
    ):
        shown = invoke(main, command)
        assert shown.exit_code == 0 and shown.output, (command, shown.output)
    converted = invoke(main, ["convert", URL, "-o", "s3://bucket/exact", "--codec", "exact", "--quiet"])
    assert converted.exit_code == 0, converted.output
    assert contents("s3://bucket/exact") == wanted and labelstore.verify_dataset("s3://bucket/exact").is_sound

    shard = store.names("data")[0]
    store.replace(shard, store.read(shard)[:-1])
    repaired = invoke(main, ["verify", URL, "--repair"])
    assert repaired.exit_code == 0 and "withdrawn: 000000" in repaired.output, repaired.output
    run(URL, prompts)
    assert contents(URL) == wanted and labelstore.verify_dataset(URL).findings == []


@pytest.mark.timeout(600)
def test_no_fault_of_the_store_loses_doubles_or_changes_a_label(
    s3_proxy: S3Proxy, source: Path, wanted: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    counts = dict.fromkeys(FAULTS, 0)
    for number in range(NUM_JOBS):
        rng = random.Random(number)

        def fault(method: str, path: str, rng: random.Random = rng) -> str | None:
            if rng.random() > 0.15:
                return None
            kind = rng.choice(FAULTS)
            counts[kind] += 1
            return kind

        url = f"s3://bucket/faults-{number}"
        s3_proxy.fault = fault
        run(url, source)
        s3_proxy.forget()
        assert contents(url) == wanted, number
        assert labelstore.verify_dataset(url).findings == [], number
        assert len(read_rejects(ObjectStore(url))) == 1
    with capsys.disabled():
        print(f"\nrequests broken in {NUM_JOBS} jobs: {counts}; 0 labels lost, doubled or changed")
    assert min(counts.values()) > 0


def test_a_store_that_goes_away_for_good_ends_the_job_and_the_same_command_goes_on(
    s3_proxy: S3Proxy, source: Path, wanted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelstore.object_store._PATIENCE_SECONDS", 0.1)
    with pytest.raises(NotADatasetError):
        run("s3://nobucket/labels", source, UntouchedTeacher)
    run(URL, source)
    total = len(s3_proxy.requests)
    for number in range(5, total, max(total // (NUM_JOBS + 1), 1)):
        url = f"s3://bucket/away-{number}"
        left = [number]

        def fault(method: str, path: str, left: list[int] = left) -> str | None:
            left[0] -= 1
            return "500" if left[0] < 0 else None

        s3_proxy.fault = fault
        with pytest.raises(labelstore.StorageError, match=r"did not|cannot be written"):
            run(url, source)
        s3_proxy.forget()
        run(url, source)
        assert contents(url) == wanted, number
        assert labelstore.verify_dataset(url).findings == [], number


def test_wrong_keys_end_the_job_before_the_engine_starts(s3_proxy: S3Proxy, source: Path) -> None:
    for verbs in (("GET", "HEAD", "PUT"), ("PUT",)):

        def refused(method: str, path: str, verbs: tuple[str, ...] = verbs) -> str | None:
            return "403" if method in verbs else None

        s3_proxy.fault = refused
        with pytest.raises(labelstore.StorageError, match=r"refuses to (read|list|write) it.*AWS_ACCESS_KEY_ID"):
            run(URL, source, UntouchedTeacher)


def test_a_key_stands_in_no_file_and_no_line_that_is_shown(
    s3_proxy: S3Proxy, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = [KEY, SECRET, "hf_plantedtokenofthehub", "hunter2"]
    monkeypatch.setenv("HF_TOKEN", planted[2])
    monkeypatch.setattr("labelstore.object_store._FIRST_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(
        "labelgen.job.runner.load_teacher", lambda spec: FakeTeacher(selection=spec.selection, max_model_len=64)
    )
    base = ["generate", str(source), "--teacher", "fake", "--max-tokens", "4"]
    commands = [
        [*base, "-o", URL],
        [*base, "-o", str(tmp_path / "local")],
        [*base, "-o", URL, "--dry-run"],
        [*base, "-o", URL, "--dry-run", "--yaml"],
        ["inspect", URL, "--json"],
        ["status", URL, "--json"],
        ["verify", URL],
        ["convert", URL, "-o", str(tmp_path / "converted"), "--codec", "exact"],
        [*base, "-o", f"s3://{KEY}:hunter2@bucket/labels"],
        ["inspect", "https://user:hunter2@host/labels"],
        ["generate", "https://user:hunter2@host/prompts.jsonl", "-o", str(tmp_path / "other"), "--teacher", "fake"],
        ["convert", "https://host/labels?token=hunter2", "-o", str(tmp_path / "other")],
    ]
    output = []
    for fault in (None, "403", "500"):
        for command in commands:
            s3_proxy.fault = lambda method, path, fault=fault: fault  # type: ignore[misc]
            result = CliRunner().invoke(main, command)
            assert (result.exit_code == 0) == (fault is None and "hunter2" not in str(command)) or fault, result.output
            assert result.exception is None or isinstance(result.exception, SystemExit), (command, result.exception)
            output.append(result.output)
    s3_proxy.forget()
    fs = ObjectStore(URL)._fs
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    files += [fs.cat_file(name) for name in fs.find("bucket")]
    assert len(files) > 20 and len(output) == 3 * len(commands)
    for secret in planted:
        assert not [text for text in output if secret in text], secret
        assert not [content for content in files if secret.encode() in content], secret
