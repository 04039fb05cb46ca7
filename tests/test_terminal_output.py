"""Summary, progress and errors are as they were reviewed: a change of them is a change of tests/golden/."""

from __future__ import annotations

from pathlib import Path

import pytest

from terminal_output import GOLDEN_DIR, terminal_output


def test_what_people_see_is_what_was_reviewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = terminal_output()
    assert {path.name for path in GOLDEN_DIR.iterdir()} == set(shown)
    for name, text in shown.items():
        assert text == (GOLDEN_DIR / name).read_text(), f"{name}: see tests/terminal_output.py"
