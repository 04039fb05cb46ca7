"""The docs tell the truth: their Python runs, their links lead somewhere, the command line's reference is current."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from labelgen.cli.reference import cli_reference
from labelstore.codecs import DEFAULT_CODEC
from make_records import make_dataset

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "storage/FORMAT.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
PAGES_WITH_PYTHON = [
    "README.md",
    "docs/what-a-label-means.md",
    "docs/convert.md",
    "docs/is-my-dataset-right.md",
    "docs/reading-labels.md",
    "docs/sharing.md",
]


@pytest.mark.parametrize("codec", [DEFAULT_CODEC, "open"])
@pytest.mark.parametrize("page", PAGES_WITH_PYTHON)
def test_the_python_in_a_page_runs(page: str, codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dataset(tmp_path / "demo-labels", codec=codec)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    assert blocks
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"`[^`]*`|^    .*$", "", page.read_text(), flags=re.MULTILINE)
    for target in re.findall(r"\]\(([^)#]+)", prose):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_command_lines_reference_is_current() -> None:
    assert (ROOT / "docs/cli.md").read_text() == cli_reference(), "run 'make docs'"


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
