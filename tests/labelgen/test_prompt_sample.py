from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_snapshot import blocks, ingest, write_rows

from labelgen.prompts.prompt import Prompt
from labelgen.prompts.prompt_sample import PromptSample, sample_hash

ROWS = [{"id": f"r{i}", "prompt": f"question {i}"} for i in range(200)]


def ids(root: Path) -> set[str]:
    return {prompt_id for block in blocks(root).values() for prompt_id in block}


def smallest(size: int, seed: int = 0) -> set[str]:
    return set(sorted((row["id"] for row in ROWS), key=lambda prompt_id: sample_hash(prompt_id, seed=seed))[:size])


def sampled(tmp_path: Path, name: str, rows: list[dict[str, Any]], size: int, seed: int = 0) -> set[str]:
    source = write_rows(tmp_path / f"{name}.jsonl", rows)
    ingest(tmp_path / name, source, sample=PromptSample(size=size, seed=seed))
    return ids(tmp_path / name)


def test_a_sample_is_the_smallest_hashes_in_any_order_with_duplicates_once(tmp_path: Path) -> None:
    shuffled = [*ROWS, *ROWS[:50]]
    random.Random(0).shuffle(shuffled)
    assert sampled(tmp_path, "a", ROWS, 20) == smallest(20) == sampled(tmp_path, "b", shuffled, 20)
    assert sampled(tmp_path, "c", ROWS, 20, seed=1) == smallest(20, seed=1) != smallest(20)
    assert sampled(tmp_path, "d", ROWS, 500) == {row["id"] for row in ROWS}


def test_samples_nest_and_a_larger_one_goes_on_from_a_smaller(tmp_path: Path) -> None:
    first = sampled(tmp_path, "a", ROWS, 20)
    before = blocks(tmp_path / "a")
    assert ingest(tmp_path / "a", tmp_path / "a.jsonl", sample=PromptSample(size=20)).num_unchanged_sources == 1
    ingest(tmp_path / "a", tmp_path / "a.jsonl", sample=PromptSample(size=50))
    assert first < ids(tmp_path / "a") == smallest(50)
    assert {block: blocks(tmp_path / "a")[block] for block in before} == before


def test_a_sample_is_of_all_sources_together(tmp_path: Path) -> None:
    parts = [write_rows(tmp_path / f"{i}.jsonl", ROWS[i::4]) for i in range(4)]
    ingest(tmp_path / "out", *parts, sample=PromptSample(size=30))
    assert ids(tmp_path / "out") == smallest(30)


def test_a_samples_memory_does_not_grow_with_the_prompt_set() -> None:
    def prompts() -> Iterator[Prompt]:
        for number in range(20_000):
            yield Prompt(prompt_id=str(number), source="s", line=number, content_hash="", prompt="x" * 2_000)

    tracemalloc.start()
    chosen = list(PromptSample(size=10).choose(prompts(), present_ids=()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(chosen) == 10 and json.dumps(chosen[0].prompt) == json.dumps("x" * 2_000)
    assert peak < 2_000_000  # all of them would be 40 MB


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="--sample-prompts must be at least 1, got 0"):
        PromptSample(size=0)
