"""Putting sequences of different lengths into rows of one length."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

__all__ = ["pack_sequences"]


def pack_sequences(lengths: Sequence[int], *, row_length: int) -> list[list[int]]:
    """Return the rows that sequences of these lengths go into, each row the places of its sequences, rising.

    First-fit decreasing: longest first, each into the first row that has room. It needs at most 11/9 of the fewest
    possible rows, and one more (Dosa, 2007). Rows come in the order of their first sequence.

    Raises:
        ValueError: a sequence is longer than a row.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    # Sequences of one length go into the same row or later ones: `first` skips rows that a longer one left too full.
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    first, last_length = 0, None
    for place in order:
        length = lengths[place]
        if length > row_length:
            raise ValueError(f"sequence {place} has {length} tokens, a row {row_length}: cut it first")
        first = first if length == last_length else 0
        last_length = length
        while first < len(rows) and room[first] < length:
            first += 1
        if first == len(rows):
            rows.append([])
            room.append(row_length)
        bisect.insort(rows[first], place)
        room[first] -= length
    return sorted(rows)
