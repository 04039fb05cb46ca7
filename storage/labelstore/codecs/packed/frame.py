"""The frame around one record's packed labels: a checksum, sizes, and the lanes' words.

Layout: FORMAT.md, "A packed record".
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.layout import LABELS_PER_LANE, MAX_LANES

__all__ = ["Frame", "lanes_of", "read_frame", "write_frame"]

_CRC_BYTES = 4
READ_AHEAD = 8  # words that a decoder may look at behind a lane's last one


def lanes_of(num_labels: int) -> int:
    """Return how many coders a record of so many labels has."""
    return min(MAX_LANES, max(1, num_labels // LABELS_PER_LANE))


class Frame(NamedTuple):
    """One record's packed labels, opened."""

    words: NDArray[np.uint32]  # and READ_AHEAD zeros
    lane_starts: NDArray[np.int64]  # [lanes + 1], in words
    num_candidates: int | None
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


def read_frame(data: memoryview, *, num_labels: int, has_sizes: bool, has_unit: bool) -> Frame:
    """Open a record's bytes.

    Raises:
        ValueError: they are damaged.
    """
    if len(data) < _CRC_BYTES or zlib.crc32(data[_CRC_BYTES:]) != int.from_bytes(data[:_CRC_BYTES], "little"):
        raise ValueError("the packed labels do not have their checksum")
    place = _CRC_BYTES
    num_candidates: int | None = None
    if has_sizes:
        num_candidates, place = _take_varint(data, place)
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
    if len(data) - place != 4 * starts[-1] or (np.diff(starts) < 2).any():
        raise ValueError("the packed labels are not as long as they say")
    words = np.zeros(starts[-1] + READ_AHEAD, dtype=np.uint32)
    words[: starts[-1]] = np.frombuffer(data[place:], dtype="<u4")
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
