"""The frame around one record's packed labels: a checksum, sizes, and the lanes' words.

Layout: FORMAT.md, "A packed record".
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.layout import MAX_SIZE, MIN_LABELS_IN_LANES, NUM_LANES, STATE_LOW

__all__ = ["Frame", "lanes_of", "read_frame", "write_frame"]

_CRC_BYTES = 4


def lanes_of(num_labels: int) -> int:
    """Return how many coders a record of so many labels has."""
    return NUM_LANES if num_labels >= MIN_LABELS_IN_LANES else 1


class Frame(NamedTuple):
    """One record's packed labels, opened."""

    words: NDArray[np.uint32]
    lane_starts: NDArray[np.int64]  # [lanes + 1], in words
    num_candidates: int
    unit: int


def write_frame(
    words: NDArray[np.uint32], lane_words: NDArray[np.int64], *, num_candidates: int | None, unit: int | None
) -> bytes:
    """Return the bytes of a record: crc32, [candidates], [unit], words of each lane, the words."""
    parts = bytearray()
    if num_candidates is not None:
        _put_varint(parts, num_candidates)
    if unit is not None:
        parts.append(unit)
    for count in lane_words:
        _put_varint(parts, int(count))
    parts += words.astype("<u4").tobytes()
    return zlib.crc32(parts).to_bytes(_CRC_BYTES, "little") + bytes(parts)


def read_frame(data: memoryview, *, num_labels: int, size: int, has_unit: bool) -> Frame:
    """Open a record's bytes; `size` is K of every label, 0 where it differs.

    Raises:
        ValueError: they are damaged.
    """
    if num_labels == 0 and len(data) == 0:
        words = np.array([STATE_LOW & 0xFFFFFFFF, STATE_LOW >> 32], dtype=np.uint32)
        return Frame(words, np.array([0, 2]), 0, 0)
    if len(data) < _CRC_BYTES or zlib.crc32(data[_CRC_BYTES:]) != int.from_bytes(data[:_CRC_BYTES], "little"):
        raise ValueError("the packed labels do not have their checksum")
    place = _CRC_BYTES
    num_candidates = num_labels * size
    if size == 0:
        num_candidates, place = _take_varint(data, place)
        if num_candidates > num_labels * MAX_SIZE:
            raise ValueError(f"{num_labels} labels cannot have {num_candidates} candidates")
    unit = 0
    if has_unit:
        if place >= len(data):
            raise ValueError("the packed labels end too early")
        unit, place = data[place], place + 1
    num_lanes = lanes_of(num_labels)
    starts = np.zeros(num_lanes + 1, dtype=np.int64)
    for lane in range(num_lanes):
        count, place = _take_varint(data, place)
        starts[lane + 1] = starts[lane] + count
    num_words = int(starts[-1])
    if len(data) - place != 4 * num_words or (np.diff(starts) < 2).any():
        raise ValueError("the packed labels are not as long as they say")
    words = np.frombuffer(data[place:], dtype="<u4")
    return Frame(words, starts, num_candidates, unit)


def _put_varint(parts: bytearray, number: int) -> None:
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)


def _take_varint(data: memoryview, place: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 35, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise ValueError("the packed labels hold no number where one must be")
