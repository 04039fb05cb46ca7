"""Every dependency is bounded on both sides, and what is installed, which the tests run on, is within."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

tomllib: Any = pytest.importorskip("tomllib") if sys.version_info >= (3, 11) else pytest.importorskip("tomli")

PROJECT = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
REQUIREMENTS = sorted(
    {
        text
        for group in (PROJECT["project"]["dependencies"], PROJECT["build-system"]["requires"], *EXTRAS.values())
        for text in group
        if not text.startswith("labelgen[")
    }
)


@pytest.mark.parametrize("text", REQUIREMENTS)
def test_a_dependency_is_bounded_and_what_is_installed_is_within(text: str) -> None:
    requirement = Requirement(text)
    operators = {specifier.operator for specifier in requirement.specifier}
    assert operators in ({">=", "<"}, {"=="}), "a lower and an upper bound"
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{requirement.name} is not installed here")
    assert requirement.specifier.contains(version, prereleases=True)


def test_extras_name_extras_that_are_there() -> None:
    named = {name for group in EXTRAS.values() for text in group for name in re.findall(r"labelgen\[(.*)\]", text)}
    assert {name for names in named for name in names.split(",")} <= set(EXTRAS)
