"""Every command of the guides runs, in their order: with the fake teacher, and with the files that they speak of."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from labelgen.cli import main
from labelgen.job.spec import RunSpec
from labelgen.teachers.fake import FakeTeacher

DOCS = Path(__file__).resolve().parent.parent / "docs"
GUIDES = ["first-dataset.md", "prompts.md", "choosing-k.md", "score.md", "second-teacher.md"]
_HEREDOC = re.compile(r"cat > .*?<<'EOF'\n.*?\nEOF", flags=re.DOTALL)


def commands(page: str) -> list[str]:
    """Return the commands in a page's sh blocks, one each; a here-document is one command."""
    found: list[str] = []
    for block in re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL):
        documents = _HEREDOC.findall(block)
        rest = _HEREDOC.sub("", block).replace("\\\n", " ")
        found += documents + [line for line in rest.splitlines() if line.strip()]
    return found


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the guides speak of; every teacher is the fake one."""

    def load(spec: RunSpec) -> FakeTeacher:
        return FakeTeacher(selection=spec.selection, max_model_len=256)

    monkeypatch.setattr("labelgen.job.runner.load_teacher", load)
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"p{i}", "prompt": f"question {i}"} for i in range(40)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "prompts.jsonl").write_text(lines)
    (tmp_path / "qa.csv").write_text("key,question,context\n1,Why?,The sea.\n2,How?,The sky.\n")
    (tmp_path / "ask.txt").write_text("Answer from this text alone: {context}\n\nQuestion: {question}\n")
    (tmp_path / "texts.jsonl").write_text('{"text": "A text."}\n{"prompt": "Two and", "completion": " two."}\n')
    (tmp_path / "pairs.csv").write_text("question,answer\nWhy?, Because.\n")
    chat = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": chat}) + "\n")
    for folder in ("more", "my-dataset"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.jsonl").write_text('{"prompt": "another", "question": "another"}\n')
    return tmp_path


@pytest.mark.parametrize("page", GUIDES)
def test_the_commands_of_a_guide_run(page: str, desk: Path) -> None:
    if page == "choosing-k.md":  # it speaks of the dataset that is there by then
        arguments = "generate prompts.jsonl -o labels --teacher MODEL --max-tokens 20 --top-k 8"
        assert CliRunner().invoke(main, shlex.split(arguments)).exit_code == 0
    if page == "prompts.md":  # its job file, as it is shown
        (job,) = re.findall(r"^    (prompts: .*?\n)\n", (DOCS / page).read_text(), flags=re.DOTALL | re.MULTILINE)
        (desk / "job.yaml").write_text(re.sub("^    ", "", job, flags=re.MULTILINE).replace("labels", "job-labels"))
    run = commands(page)
    assert len(run) >= 2
    for command in run:
        if not command.startswith("labelgen "):
            subprocess.run(command, shell=True, check=True)
            continue
        line, _, target = command.partition(" > ")
        result = CliRunner().invoke(main, shlex.split(line)[1:])
        is_verdict = line.startswith("labelgen doctor")  # it may say no: the machine is what it is
        assert result.exit_code == 0 or is_verdict, f"{command}\n{result.output}"
        if target:
            (desk / target).write_text(result.stdout)
