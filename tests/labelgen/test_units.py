"""Numbers with units, as people read them."""

from __future__ import annotations

import pytest

from labelgen.cli.units import bytes_text, duration_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (125, "2 min 5 s"), (7260, "2 h 1 min"), (200_000, "2 d 7 h")],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(999, "999 B"), (1000, "1.0 kB"), (2_500_000, "2.5 MB")])
def test_bytes_have_decimal_units(count: int, text: str) -> None:
    assert bytes_text(count) == text
