"""Many rANS coders side by side, in numpy: each step takes one number or run of bits from each of L lanes.

The words of damaged lanes may run out; then other lanes' words are read, and the place where a lane ends tells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.layout import ESCAPE, NUMBER_BITS, STATE_LOW, SYMBOL_BITS, TABLE_BITS
from labelstore.codecs.packed.tables import number_fields

__all__ = ["Coder", "Lanes", "Steps"]

_Ints = NDArray[np.int64]
_Words = NDArray[np.uint64]

# All that a slot's step needs as one number, from bit 0: slot - start, width, base, is an escape, frequency.
_WIDTH_SHIFT = TABLE_BITS
_BASE_SHIFT = _WIDTH_SHIFT + 5
_ESCAPE_SHIFT = _BASE_SHIFT + NUMBER_BITS
_FREQUENCY_SHIFT = _ESCAPE_SHIFT + 1

# A step is some 30 of these calls on arrays of a few hundred lanes: looking up their names would take a tenth of it.
_add, _multiply, _less, _copy = np.add, np.multiply, np.less, np.copyto
_and, _or, _xor, _or_reduce = np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.bitwise_or.reduce
_shift_left, _shift_right = np.left_shift, np.right_shift


def _constant(number: int) -> _Words:
    return np.array(number, dtype=np.uint64)  # numpy converts a Python int at each call: 0.3 us of 0.7


_LOW = _constant(STATE_LOW)
_SLOT_MASK = _constant((1 << TABLE_BITS) - 1)
_SLOT_WIDTH = _constant(TABLE_BITS)
_WORD_WIDTH = _constant(32)
_FREQUENCY = _constant(_FREQUENCY_SHIFT)
_WIDTH, _WIDTH_MASK = _constant(_WIDTH_SHIFT), _constant(31)
_BASE, _BASE_MASK = _constant(_BASE_SHIFT), _constant((1 << NUMBER_BITS) - 1)
_IS_ESCAPE = 1 << _ESCAPE_SHIFT


class Lanes:
    """Where coders stand: each one's state, and the next of the words that all of them read from."""

    def __init__(self, states: _Words, reads: _Ints, words: _Words, index: _Ints) -> None:
        self.states = states
        self.reads = reads
        self.words = words
        self.index = index  # which lanes of the parent these are

    def __len__(self) -> int:
        return len(self.states)

    def taken(self, chosen: _Ints) -> Lanes:
        """Return a copy of some of these lanes; `put_back` writes back how far it has come."""
        return Lanes(self.states[chosen], self.reads[chosen], self.words, chosen)

    def kept(self, chosen: _Ints) -> Lanes:
        """Return a copy of some of these lanes, which stays a part of the same parent."""
        return Lanes(self.states[chosen], self.reads[chosen], self.words, self.index[chosen])

    def put_back(self, part: Lanes) -> None:
        self.states[part.index] = part.states
        self.reads[part.index] = part.reads


class Coder:
    """A model's tables."""

    def __init__(self, slots: NDArray[np.uint8], entries: NDArray[np.uint32]) -> None:
        """Arrange the tables by context and slot: one look-up for each step (8 bytes a slot, 3.8 MB)."""
        self.bases, self.widths = number_fields()
        places = np.arange(len(slots), dtype=np.int64)
        wide = entries[((places >> TABLE_BITS) << SYMBOL_BITS) | slots].astype(np.int64)
        fields = (self.bases << _BASE_SHIFT) | (self.widths << _WIDTH_SHIFT)
        fields[ESCAPE] |= _IS_ESCAPE
        in_symbol = (places & ((1 << TABLE_BITS) - 1)) - (wide & 0xFFFF)
        self.table: _Words = (((wide >> 16) << _FREQUENCY_SHIFT) | fields[slots] | in_symbol).astype(np.uint64)

    def steps(self, lanes: Lanes, widths: Sequence[int]) -> Steps:
        """Return the stepping of lanes: the i-th step is taken by the first widths[i]; `widths` does not rise."""
        return Steps(self, lanes, widths)

    def numbers(self, lanes: Lanes, contexts: _Ints) -> _Ints:
        """Take a number from each lane."""
        return Steps(self, lanes, [len(lanes)]).numbers(contexts << TABLE_BITS, 0)

    def bits(self, lanes: Lanes, num_bits: _Ints) -> _Ints:
        """Take so many bits from each lane, 32 at most."""
        return Steps(self, lanes, [len(lanes)]).bits(num_bits, 0)


class Steps:
    """Steps of lanes, in place. What a step returns is overwritten by the next one."""

    def __init__(self, coder: Coder, lanes: Lanes, widths: Sequence[int]) -> None:
        self.widths = widths
        self._coder = coder
        self._lanes = lanes
        self._take_table = coder.table.take
        self._take_words = lanes.words.take
        self._width = -1
        self._set_width(widths[0] if widths else 0)

    def numbers(self, contexts: _Ints, step: int) -> _Ints:
        """Take a number from each lane; `contexts` are those of the tables << TABLE_BITS."""
        if self.widths[step] != self._width:
            self._set_width(self.widths[step])
        states, entries, filled, rest, places = self._states, self._entries, self._filled, self._rest, self._places
        _and(states, _SLOT_MASK, self._slots)
        _add(places, contexts, places)
        self._take_table(places, None, entries, "clip")
        _shift_right(states, _SLOT_WIDTH, states)
        _shift_right(entries, _FREQUENCY, filled)
        _multiply(states, filled, states)
        _and(entries, _SLOT_MASK, filled)
        _add(states, filled, states)
        _shift_right(entries, _WIDTH, filled)
        _and(filled, _WIDTH_MASK, filled)
        self._take_rest(filled)
        _shift_right(entries, _BASE, filled)
        _and(filled, _BASE_MASK, filled)
        _add(rest, filled, rest)
        if int(_or_reduce(entries)) & _IS_ESCAPE:
            self._resolve_escapes()
        return self._result

    def bits(self, num_bits: _Ints, step: int) -> _Ints:
        """Take so many bits from each lane, 32 at most."""
        if self.widths[step] != self._width:
            self._set_width(self.widths[step])
        self._take_rest(num_bits.astype(np.uint64))
        return self._result

    def _set_width(self, width: int) -> None:
        self._width = width
        self._states, self._reads = self._lanes.states[:width], self._lanes.reads[:width]
        self._entries, self._words, self._filled, self._shifted, self._rest = (
            np.empty(width, np.uint64) for _ in range(5)
        )
        self._slots = np.empty(width, np.uint64)
        self._places = self._slots.view(np.int64)
        self._result = self._rest.view(np.int64)
        self._is_low = np.empty(width, np.bool_)

    def _take_rest(self, num_bits: _Words) -> None:
        """Take the low bits of each state into `_rest`."""
        states, reads, rest, filled, is_low = self._states, self._reads, self._rest, self._shifted, self._is_low
        _shift_right(states, num_bits, filled)
        _shift_left(filled, num_bits, rest)
        _xor(states, rest, rest)
        _copy(states, filled)
        _less(states, _LOW, is_low)
        self._take_words(reads, None, self._words, "clip")
        _shift_left(states, _WORD_WIDTH, filled)
        _or(filled, self._words, filled)
        _copy(states, filled, "no", is_low)
        _add(reads, is_low, reads)

    def _resolve_escapes(self) -> None:
        """Where a symbol stood behind an escape, go on to its number."""
        escaped = np.flatnonzero(self._entries & np.uint64(_IS_ESCAPE))
        symbols = self._result[escaped]
        part = self._lanes.taken(escaped)
        self._result[escaped] = self._coder.bases[symbols] + self._coder.bits(part, self._coder.widths[symbols])
        self._lanes.put_back(part)
