"""A long text over a large vocabulary is scored under a memory limit; with the bound switched off, the engine dies."""

from __future__ import annotations

from pathlib import Path

import pytest
from memory_bound import run_limited

from rejected_rows import rejected_rows

pytestmark = [pytest.mark.more_engines, pytest.mark.timeout(2400)]

NUM_TOKENS = 8192
LIMIT_GIB = 8.0


def test_a_long_text_is_scored_in_steps_that_fit(tmp_path: Path) -> None:
    outcome = run_limited(tmp_path, num_tokens=NUM_TOKENS, limit_gib=LIMIT_GIB, is_bounded=True)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.num_labels == NUM_TOKENS - 1
    assert "a step scores at most 341 tokens: their rows of 262,144 log-probabilities take 1.0 GiB" in outcome.bound
    assert outcome.peak_gib < LIMIT_GIB


def test_without_the_bound_the_engine_dies_of_the_text_which_is_rejected(tmp_path: Path) -> None:
    outcome = run_limited(tmp_path, num_tokens=NUM_TOKENS, limit_gib=LIMIT_GIB, is_bounded=False)
    assert outcome.exit_code == 0, outcome.output
    deaths = [line for line in outcome.output.splitlines() if line.startswith("note: the engine died (")]
    assert len(deaths) == 2 and all("allocate memory" in line for line in deaths)
    (reject,) = rejected_rows(tmp_path / "unbounded")
    assert "it kills the engine, also with nothing beside it" in reject["reason"]
    assert outcome.num_labels == 0
