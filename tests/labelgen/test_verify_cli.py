"""`generate`, `verify --rescore` and `verify --repair` as people meet them, with the fake teacher."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from labelgen.cli import main
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.teacher import Answer, Refusal, Request, ScoreRequest
from labelstore.selection import Selection

SELECTION = Selection(top_k=8)


class ReadingOtherwise(FakeTeacher):
    """Reads text otherwise than it generates."""

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        other = FakeTeacher(selection=SELECTION, max_model_len=128, seed=1)
        for request in requests:
            yield from other.label([request]) if isinstance(request, ScoreRequest) else super().label([request])


class Teachers:
    """The teachers that the commands find."""

    of_job: FakeTeacher = FakeTeacher(selection=SELECTION, max_model_len=128)
    of_verify: FakeTeacher = FakeTeacher(selection=SELECTION, max_model_len=128)


@pytest.fixture
def teachers(monkeypatch: pytest.MonkeyPatch) -> Teachers:
    found = Teachers()
    monkeypatch.setattr("labelgen.job.runner.load_teacher", lambda _: found.of_job)
    monkeypatch.setattr("labelgen.cli.verify_rescored.load_own_teacher", lambda *_, **__: found.of_verify)
    return found


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def generate(tmp_path: Path, *options: object) -> Result:
    source = tmp_path / "prompts.jsonl"
    rows = [{"id": f"p{i}", "prompt": f"question {i}"} for i in range(6)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments: list[Any] = ["--teacher", "fake", "--top-k", 8, "--max-tokens", 9, "--block-size", 3, "--codec", "open"]
    return call("generate", source, "-o", tmp_path / "out", *arguments, *options)


def test_what_the_end_of_a_job_finds_is_shown_and_kept(tmp_path: Path, teachers: Teachers) -> None:
    made = generate(tmp_path, "--rescore-at-end", 4, "--json")
    assert made.exit_code == 0, made.output
    rescored = json.loads(made.stdout.splitlines()[-1])["rescored"]
    assert rescored["agrees"] and rescored["records"] == 4 and rescored["problems"] == []
    assert json.loads(call("inspect", tmp_path / "out", "--json").stdout)["rescored"] == rescored
    shown = " ".join(call("inspect", tmp_path / "out").stdout.split())
    assert "rescored ✓ 4 records" in shown and "no difference beyond the codec's rounding" in shown


def test_a_job_whose_labels_are_not_the_teachers_exits_1_and_keeps_them(tmp_path: Path, teachers: Teachers) -> None:
    teachers.of_job = ReadingOtherwise(selection=SELECTION, max_model_len=128)
    made = generate(tmp_path)
    assert made.exit_code == 1
    assert "are not what the teacher says of the same tokens: another model" in made.stderr
    assert "✗ 6 records" in " ".join(made.stdout.split())
    assert call("verify", tmp_path / "out").exit_code == 0  # the files are sound all the same


def test_verify_rescores_when_it_is_asked_to(tmp_path: Path, teachers: Teachers) -> None:
    generate(tmp_path)
    good = call("verify", tmp_path / "out", "--rescore", 5)
    assert good.exit_code == 0 and "✓ sound" in good.stdout and "✓ 5 records" in good.stdout
    assert "3 times the noise that the job measured at its end" in good.stdout
    teachers.of_verify = FakeTeacher(selection=SELECTION, max_model_len=128, seed=1)
    bad = call("verify", tmp_path / "out", "--rescore", 5)
    assert bad.exit_code == 1
    assert "another model: weights is fake-1, the dataset's header says fake-0" in bad.stdout
    assert "✗ 5 records" in bad.stdout and "\n✗ another model, or the labels of other records" in bad.stdout
    values = json.loads(call("verify", tmp_path / "out", "--rescore", 5, "--json").stdout)
    assert values["sound"] and not values["rescored"]["agrees"]


def test_verify_repairs_when_it_is_asked_to(tmp_path: Path, teachers: Teachers) -> None:
    generate(tmp_path)
    shard = min((tmp_path / "out/data").iterdir())
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    found = call("verify", tmp_path / "out")
    assert found.exit_code == 1 and "run 'labelgen verify --repair' and then the command" in " ".join(
        found.stdout.split()
    )
    repaired = call("verify", tmp_path / "out", "--repair")
    assert repaired.exit_code == 0
    assert f"kept aside in .labelgen/orphans/: data/{shard.name}" in repaired.stdout
    assert "withdrawn: 000000. The command that made" in repaired.stdout
    again = generate(tmp_path)
    assert again.exit_code == 0 and "(3 new)" in again.stdout
    values = json.loads(call("verify", tmp_path / "out", "--repair", "--json").stdout)
    assert values["sound"] and values["records"] == 6 and values["withdrawn"] == []
