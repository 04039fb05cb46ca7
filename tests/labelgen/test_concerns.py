from __future__ import annotations

import numpy as np
import pytest

from labelgen.job.concerns import ends_in_loop, find_concerns
from labelstore.entry import LabelCounts


@pytest.mark.parametrize("period", [1, 2, 7, 16])
def test_a_response_that_repeats_itself_to_its_end_is_a_loop(period: int) -> None:
    start = np.arange(100, 140, dtype=np.int32)
    loop = np.tile(np.arange(period, dtype=np.int32), 100)[:64]
    assert ends_in_loop(np.concatenate([start, loop]))
    assert not ends_in_loop(np.concatenate([start, loop[:-1], start[:1]]))
    assert not ends_in_loop(loop[:-1])  # too short to tell
    assert not ends_in_loop(np.concatenate([loop, start, start + 40]))  # it came out of it


def test_longer_repetitions_are_no_loops() -> None:
    assert not ends_in_loop(np.tile(np.arange(17, dtype=np.int32), 10))


def concerns(
    *, stop: int = 100, length: int = 0, kept: float = 0.9, num_looping: int = 0, asks_plain: bool = False
) -> list[str]:
    reasons = {"stop": stop, "length": length}
    counts = LabelCounts(num_labels=1_000, kept_mass_sum=1_000 * kept, finish_reasons=reasons)
    return find_concerns(counts, num_new_records=100, num_looping=num_looping, asks_plain=asks_plain)


def test_only_what_matters_is_said() -> None:
    assert concerns(length=5, num_looping=1) == []
    assert concerns(length=100) == ["100 of 200 responses (50%) were cut at --max-tokens"]
    assert "no response came to an end by itself" in concerns(stop=0, length=7)[1]
    assert concerns(num_looping=2) == ["2 of 100 new responses (2%) end by repeating themselves"]
    assert "keep little of the teacher's distribution" in concerns(kept=0.7)[0]
    assert "--chat asks them as chats" in concerns(asks_plain=True)[0]


def test_scored_texts_come_to_no_end() -> None:
    assert find_concerns(LabelCounts(num_records=3), num_new_records=3, num_looping=0, asks_plain=False) == []
