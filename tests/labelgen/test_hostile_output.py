"""What data says stays text: no command lets it move a cursor, hide a line, or dress itself up as rich's markup."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from labelgen.cli import main
from labelgen.cli.plain_text import plain
from labelgen.job.spec import RunSpec
from labelgen.teachers.fake import FakeTeacher
from labelstore.codecs import codec_named
from labelstore.dataset_writer import DatasetWriter
from make_records import make_header, make_record

# Clear the screen, set the title, go back, ring, turn the direction of writing; and markup that would vanish.
EVIL = "\x1b[2J\x1b]0;title\x07\r\x08\x9b2J\u202e\u2066[bold red]evil[/]"
HARMFUL = re.compile("[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|\x1b(?!\\[[0-9;]*m)")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / f"data{EVIL.replace('/', '|')}"
    header = make_header(teacher=f"teacher{EVIL}", fingerprint_fields={f"field{EVIL}": EVIL})
    writer = DatasetWriter(root, header, codec=codec_named("open"))
    record = make_record(
        0,
        prompt_id=f"id{EVIL}",
        text=f"text{EVIL}",
        finish_reason=f"stop{EVIL}",
        messages=[{"role": f"user{EVIL}", "content": f"question{EVIL}"}],
        kept={f"name{EVIL}": EVIL},
    )
    recorded = {"engine": f"engine{EVIL}", "device": EVIL, "vllm_version": EVIL}
    writer.publish_block("000000", [record], num_prompts=1, num_rejected=0, recorded=recorded)
    writer.finish()
    return root


def shown(arguments: list[str], *, exit_code: int | None = 0) -> str:
    result = CliRunner().invoke(main, arguments, color=True)
    assert exit_code is None or result.exit_code == exit_code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert not (found := HARMFUL.search(result.output)), (arguments[0], found, result.output)
    return result.output


def test_control_characters_are_shown_and_text_is_not() -> None:
    assert plain("a\tb\nü·⏎ 你好 🎉") == "a\tb\nü·⏎ 你好 🎉"
    assert plain("\x1b[2J\x9b\u202e\x00\ud800") == "\\x1b[2J\\x9b\\u202e\\x00\\ud800"


def test_inspect_status_verify_finish_and_convert_show_no_control_character(root: Path, tmp_path: Path) -> None:
    text = "".join(shown(["inspect", str(root)]).split())  # lines are folded
    assert "teacher\\x1b[2J" in text and "[boldred]evil[/]" in text, "shown as it is, not as markup"
    assert "id\\x1b[2J" in shown(["inspect", str(root), "--record", "0"])
    assert "no record of this id" in shown(["inspect", str(root), "--record", f"x{EVIL}"], exit_code=1)
    shown(["status", str(root)])
    shown(["finish", str(root)])
    shown(["verify", str(root)])
    shown(["convert", str(root), "-o", str(tmp_path / "out")])
    shown(["export", str(root), "--to", "chat-jsonl", "-o", str(tmp_path / f"chats{EVIL.replace('/', '|')}")])
    for command in ("inspect", "status", "verify"):
        json.loads(shown([command, str(root), "--json"]))


def test_findings_of_verify_and_names_of_files_show_no_control_character(root: Path) -> None:
    (root / "data" / f"000000-0-00000000.parquet{EVIL.replace('/', '|')}").write_bytes(b"")
    assert "no entry lists this file" in shown(["verify", str(root)], exit_code=1)
    shown(["verify", str(root), "--repair"], exit_code=None)
    (root / "manifest.json").write_bytes(EVIL.encode())
    shown(["verify", str(root)], exit_code=1)


def test_a_job_shows_no_control_character_of_its_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(spec: RunSpec) -> FakeTeacher:
        return FakeTeacher(selection=spec.selection, max_model_len=256)

    monkeypatch.setattr("labelgen.job.runner.load_teacher", load)
    rows: list[dict[str, Any]] = [{"id": f"p{EVIL}", "prompt": f"question{EVIL}"}, {"id": EVIL, "promt": EVIL}]
    source = tmp_path / f"prompts{EVIL.replace('/', '|')}.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = str(tmp_path / f"out{EVIL.replace('/', '|')}")
    base = ["generate", str(source), "-o", output, "--teacher", f"fake{EVIL}", "--max-tokens", "4"]
    assert "question\\x1b" in shown([*base, "--dry-run"])
    shown(base)
    shown([*base, "--top-k", "3"], exit_code=1)
    shown([*base[:2], "-o", output + "2", "--teacher", "fake", "--max-rejects", "0"], exit_code=1)
    shown(["generate", f"missing{EVIL}.jsonl", "-o", output, "--teacher", "fake"], exit_code=1)


def test_export_card_and_push_show_no_control_character(root: Path, tmp_path: Path) -> None:
    shown(["card", str(root), "--no-plots"])
    shown(["export", str(root), "--to", "chat-jsonl", "-o", str(tmp_path / f"rows{EVIL.replace('/', '|')}")])
    shown(["push", str(root), "no-name"], exit_code=1)
    readme = (root / "README.md").read_text()
    assert not HARMFUL.search(readme)
    assert "[bold red]" not in readme.split("---", 2)[2], "nor is it markup in the card"
