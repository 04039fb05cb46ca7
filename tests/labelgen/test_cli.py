"""The command line as people meet it; with the fake teacher where one is needed."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from labelgen.cli import main
from labelgen.job.spec import RunSpec
from labelgen.teachers.fake import FakeTeacher
from make_records import make_dataset

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def _fake_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(spec: RunSpec) -> FakeTeacher:
        return FakeTeacher(selection=spec.selection, max_model_len=spec.engine.max_model_len or 128)

    monkeypatch.setattr("labelgen.job.runner.load_teacher", load)


def call(*arguments: object, **options: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], **options)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [{"id": i, "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_generate_inspect_and_verify_fit_together(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = call("generate", prompts, "-o", out, "--teacher", "fake", "--max-tokens", 9, "--json")
    assert made.exit_code == 0, made.output
    events = [json.loads(line) for line in made.stdout.splitlines()]
    assert [event["event"] for event in events] == ["stage", "note", "stage", "progress", "summary"]
    assert events[0]["detail"] == "5 rows, 5 new" and "engine.log" in events[1]["message"]
    summary = events[-1]
    assert summary["records"] == summary["new_records"] == 5
    shown = json.loads(call("inspect", out, "--json").stdout)
    assert shown["teacher"] == "fake" and shown["selection"] == {"top_k": 64}
    assert (shown["records"], shown["labels"]) == (5, summary["labels"])
    num_bytes = sum(path.stat().st_size for path in (out / "data").iterdir())
    assert shown["bytes_per_label"] == num_bytes / shown["labels"]
    assert 0 < shown["kept_mass"] <= 1 and len(shown["fingerprint"]) == 64
    assert call("verify", out).exit_code == 0
    verified = json.loads(call("verify", out, "--json").stdout)
    assert verified == {"sound": True, "shards": 1, "records": 5, "labels": summary["labels"], "findings": []}
    again = call("generate", prompts, "-o", out, "--teacher", "fake", "--max-tokens", 9)
    assert again.exit_code == 0 and "nothing to do" in again.stderr and "(0 new)" in again.stdout


def test_score_reads_documents(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    return 1\n")
    result = call("score", tmp_path / "a.py", "-o", tmp_path / "out", "--teacher", "fake", "--top-k", 5)
    assert result.exit_code == 0, result.output
    record = json.loads(call("inspect", tmp_path / "out", "--record", 0, "--json").stdout)
    assert record["document_offset"] == 1 and len(record["labels"][0]["token_ids"]) == 5


def test_a_dry_run_shows_the_job_and_writes_nothing(prompts: Path, tmp_path: Path) -> None:
    with prompts.open("a") as file:
        file.write("no JSON\n")
    arguments = ["generate", prompts, "-o", tmp_path / "out", "--teacher", "fake", "--max-tokens", 9, "--dry-run"]
    shown = call(*arguments, "--system", "Be brief.")
    assert shown.exit_code == 0, shown.output
    assert "system: Be brief.\nuser: question 1\nassistant: " in shown.stdout and "question 3" not in shown.stdout
    assert "45 at most (--max-tokens)" in shown.stdout and "1 of the rows read" in shown.stdout
    assert "1,000 in its output layer" in shown.stdout and "temperature 1.0" in shown.stdout
    assert not (tmp_path / "out").exists()
    preview = json.loads(call(*arguments, "--json").stdout)
    assert preview["num_prompts"] == 5 and preview["is_counted_whole"] and preview["max_labels"] == 45
    assert [prompt["problem"] for prompt in preview["rendered"]] == [None] * 3
    assert call(*arguments[:-1], "--yaml").exit_code == 2


def test_a_dry_run_writes_the_job_file_that_a_dataset_keeps_too(prompts: Path, tmp_path: Path) -> None:
    options = ["--teacher", "fake", "--max-tokens", 9, "--top-k", 5, "--column", "id"]
    written = call("generate", prompts, "-o", tmp_path / "out", *options, "--dry-run", "--yaml")
    assert written.exit_code == 0 and "# Tokens in a response at most." in written.stdout
    (tmp_path / "job.yaml").write_text(written.stdout)
    assert call("generate", "-c", tmp_path / "job.yaml").exit_code == 0
    kept = tmp_path / "out/.labelgen/job.yaml"
    again = call("generate", "-c", kept)
    assert again.exit_code == 0 and "nothing to do" in again.stderr
    assert yaml.safe_load(kept.read_text()) == yaml.safe_load(written.stdout)


def test_a_record_is_shown_by_number_and_by_id(tmp_path: Path) -> None:
    root = make_dataset(tmp_path)
    by_number, by_id = call("inspect", root, "--record", 4), call("inspect", root, "--record", "prompt-4#0")
    assert by_number.exit_code == 0 and by_number.stdout == by_id.stdout
    assert "user: question 4" in by_number.stdout and "→" in by_number.stdout and "all others" in by_number.stdout
    assert "has 6 records, numbered from 0" in call("inspect", root, "--record", 6).stderr
    assert "has no record of this id" in call("inspect", root, "--record", "nobody").stderr


def test_verify_exits_1_and_names_file_and_record(tmp_path: Path) -> None:
    root = make_dataset(tmp_path)
    path = sorted((root / "data").iterdir())[1]
    path.write_bytes(path.read_bytes()[:-1])
    result = call("verify", root)
    assert result.exit_code == 1 and f"✗ data/{path.name}: has" in result.stdout
    report = json.loads(call("verify", root, "--json").stdout)
    assert not report["sound"] and report["findings"][0]["file"] == f"data/{path.name}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top-k", "0"], "--top-k must be at least 1, got 0"),
        (["--top-k", "-3"], "--top-k must be at least 1, got -3"),
        (["--top-k", "1001"], "--top-k must be between 1 and the teacher's 1000 rows, got 1001"),
        (["--temperature", "-1"], "--temperature must be at least 0"),
        (["--codec", "zip"], "--codec must be one of open, exact, standard, small, got 'zip'"),
        (["--dtype", "int3"], "--dtype must be one of"),
    ],
)
def test_a_bad_option_is_one_line_and_leaves_no_folder(
    prompts: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = call("generate", prompts, "-o", tmp_path / "out", "--teacher", "fake", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") and message in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_bad_sources_and_folders_are_one_line(prompts: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("precious")
    (tmp_path / "empty.jsonl").write_text("")
    for arguments, message in [
        ([tmp_path / "missing.jsonl", "-o", tmp_path / "out"], "missing.jsonl: no such file"),
        ([tmp_path / "empty.jsonl", "-o", tmp_path / "out"], "empty.jsonl: the file is empty"),
        ([prompts, "-o", tmp_path / "full"], "holds thesis.tex, and is no label dataset"),
        ([prompts, "-o", prompts], "is a file; give -o a folder"),
        ([prompts, "-o", prompts / "below"], "the folder cannot be made (Not a directory)"),
        ([prompts, "-o", "/proc/nobody/out"], "the folder cannot be made (No such file or directory)"),
    ]:
        result = call("generate", *arguments, "--teacher", "fake")
        assert result.exit_code == 1, (message, result.output)
        assert result.stderr.startswith("Error: ") and message in result.stderr


def test_a_full_disk_is_one_line_and_loses_nothing(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["generate", prompts, "-o", tmp_path / "out", "--teacher", "fake", "--block-size", 2]

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("labelstore.shard_writer.pq.ParquetWriter.write_table", full)
        result = call(*arguments)
    assert result.exit_code == 1 and "No space left on device" in result.stderr
    assert "run the same command again" in result.stderr
    assert call(*arguments).exit_code == 0
    assert json.loads(call("verify", tmp_path / "out", "--json").stdout)["records"] == 5


def test_wrong_usage_exits_2(tmp_path: Path) -> None:
    assert call("generate").exit_code == 2
    assert call("inspect").exit_code == 2
    assert call("nonsense").exit_code == 2


def test_no_dataset_is_one_line(tmp_path: Path) -> None:
    for command in ("inspect", "verify", "finish", "status"):
        result = call(command, tmp_path)
        assert result.exit_code == 1 and result.stderr.startswith("Error: "), command


def test_convert_warns_on_stderr_and_goes_on(tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "source", codec="standard")
    out = tmp_path / "out"
    made = call("convert", source, "-o", out, "--codec", "small", "--top-k", 4, "--json")
    assert made.exit_code == 0, made.output
    summary = json.loads(made.stdout)
    assert (summary["blocks"], summary["new_blocks"], summary["copied_blocks"]) == (2, 2, 0)
    assert summary["warnings"] and "warning: the values have been through the codec standard" in made.stderr
    shown = json.loads(call("inspect", out, "--json").stdout)
    assert shown["selection"] == {"top_k": 4} and shown["codecs"] == ["small"]
    assert shown["lossy_codecs"] == ["standard", "small"]
    assert [step["location"] for step in shown["converted_from"]] == [str(source)]
    assert sum(shown["stream_bytes"].values()) == shown["bytes"] == summary["bytes"]
    assert shown["codec_kl_nats"] > json.loads(call("inspect", source, "--json").stdout)["codec_kl_nats"] > 0
    again = call("convert", source, "-o", out, "--codec", "small", "--top-k", 4)
    assert again.exit_code == 0 and "nothing to do" in again.stderr and "2 (0 new)" in again.stdout
    assert call("verify", out).exit_code == 0


def test_convert_joins_by_copying(tmp_path: Path) -> None:
    sources = [make_dataset(tmp_path / name, first_record=first) for name, first in (("a", 0), ("b", 50))]
    joined = call("convert", *sources, "-o", tmp_path / "out", "--quiet")
    assert joined.exit_code == 0 and "4 (4 new, 4 of them copied as they are)" in joined.stdout
    assert joined.stderr == ""
    assert json.loads(call("verify", tmp_path / "out", "--json").stdout)["records"] == 12


def test_what_convert_cannot_do_is_one_line(tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "source")
    for arguments, message in [
        ([tmp_path / "nothing", "-o", tmp_path / "out"], "no such folder"),
        ([source, "-o", tmp_path / "out", "--codec", "zip"], "--codec must be one of open, exact, standard, small"),
        ([source, "-o", tmp_path / "out", "--top-k", 8], "--top-k 8 must be smaller than the 8 candidates"),
        ([source, source, "-o", tmp_path / "out"], "a dataset holds each record once"),
        ([source, "-o", "/proc/nobody/out"], "the folder cannot be made"),
        ([source, "-o", source], "is source and output at once"),
    ]:
        result = call("convert", *arguments)
        assert result.exit_code == 1, (message, result.output)
        assert result.stderr.startswith("Error: ") and message in result.stderr and result.stderr.count("\n") == 1
        assert not (tmp_path / "out").exists()
    assert call("convert", source).exit_code == 2


def test_inspect_shows_where_the_bytes_go_and_both_losses(tmp_path: Path) -> None:
    packed = call("inspect", make_dataset(tmp_path / "packed", codec="standard")).stdout
    for text in ("bytes by stream", "hard labels and texts", "codec's model", "in all", "truncation KL", "codec KL"):
        assert text in packed
    exact = call("inspect", make_dataset(tmp_path / "exact", codec="exact")).stdout
    assert "0: the values are the teacher's, bit for bit" in exact


def test_a_bug_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("labelstore.verify.verify_dataset", broken)
    assert isinstance(call("verify", tmp_path).exception, KeyError)


def test_finish_folds_what_is_complete(tmp_path: Path) -> None:
    root = make_dataset(tmp_path)
    (root / "manifest.json").unlink()
    assert "2 blocks in manifest.json" in call("finish", root).stdout
    assert (root / "manifest.json").exists()


def test_status_of_a_dataset_that_nobody_works_on(tmp_path: Path) -> None:
    shown = json.loads(call("status", make_dataset(tmp_path), "--json").stdout)
    assert (shown["state"], shown["running"], shown["jobs"]) == ("finished", False, [])
    assert (shown["published_blocks"], shown["records"], shown["labels_per_second"]) == (2, 6, None)


def test_every_option_has_help_and_is_in_the_docs() -> None:
    docs = "\n".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    for name, command in main.commands.items():
        assert command.help, name
        assert f"labelgen {name}" in docs
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, parameter.name
                assert parameter.opts[-1] in docs, f"{name} {parameter.opts[-1]}"


def test_export_says_what_was_written_and_what_has_no_place_in_it(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "labels")
    arguments = ["export", str(root), "--to", "axolotl-kd", "-o", str(tmp_path / "kd.parquet")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "records    6" in result.stdout and "the tail mass" in result.stdout
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 1 and "is there already" in again.stderr
    arguments = ["export", str(root), "--to", "chat-jsonl", "-o", str(tmp_path / "rows.jsonl"), "--json"]
    values = json.loads(CliRunner().invoke(main, arguments).stdout)
    assert values["records"] == 6 and values["left_out"] == {} and len(values["losses"]) == 2
