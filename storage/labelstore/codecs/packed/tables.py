"""Static frequency tables: from counts of symbols to integers that add up to 2^TABLE_BITS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.layout import (
    DIRECT,
    DIRECT_BITS,
    ESCAPE,
    FIRST_CONTEXT,
    LAST_NUMBER,
    NUM_CONTEXTS,
    NUM_SYMBOLS,
    STREAMS,
    SYMBOL_BITS,
    TABLE_BITS,
)

__all__ = [
    "check_frequencies",
    "coding_entries",
    "costs_of",
    "frequencies_of",
    "number_fields",
    "symbol_bits",
    "symbol_slots",
]

_TOTAL = 1 << TABLE_BITS
_PRIOR = 2.0  # labels' worth of the stream's average that a context starts from


def _smoothed(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return probabilities [contexts, symbols]: each context's counts, drawn to the average of its stream."""
    probabilities = np.zeros(counts.shape)
    for name, first in FIRST_CONTEXT.items():
        own = counts[first : first + STREAMS[name]].astype(np.float64)
        average = own.sum(axis=0)
        if average.sum() == 0:
            continue
        own += _PRIOR * average / average.sum()
        probabilities[first : first + STREAMS[name]] = own / own.sum(axis=1, keepdims=True)
    return probabilities


def costs_of(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return what each symbol costs in bits [contexts, symbols], symbols that were not seen included."""
    floor = 2.0 ** -(TABLE_BITS + SYMBOL_BITS)
    costs: NDArray[np.float32] = -np.log2(np.maximum(_smoothed(counts), floor)).astype(np.float32)
    return costs


def symbol_bits(frequencies: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return what coding a symbol takes in bits [contexts, symbols]; one without a frequency takes an escape."""
    known = np.maximum(frequencies.astype(np.float32), 0.5)
    escaped = TABLE_BITS + SYMBOL_BITS - np.log2(known[:, ESCAPE : ESCAPE + 1])
    bits: NDArray[np.float32] = np.where(frequencies > 0, TABLE_BITS - np.log2(known), escaped).astype(np.float32)
    return bits


def frequencies_of(counts: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Return the tables [contexts, symbols] of symbol counts; ESCAPE has a frequency in each."""
    wanted = _smoothed(counts) * (_TOTAL - 1)
    frequencies = np.floor(wanted).astype(np.int64)
    frequencies[(frequencies == 0) & (counts > 0)] = 1
    frequencies[:, ESCAPE] = 1
    frequencies[frequencies.sum(axis=1) == 1, 0] = 1  # contexts that nothing was counted in
    for context in range(NUM_CONTEXTS):  # what rounding left goes to the most frequent
        missing = _TOTAL - int(frequencies[context].sum())
        while missing < 0:
            largest = int(frequencies[context].argmax())
            step = min(-missing, max(1, int(frequencies[context, largest]) // 2))
            frequencies[context, largest] -= step
            missing += step
        frequencies[context, int(frequencies[context, :ESCAPE].argmax())] += missing
    return frequencies.astype(np.uint16)


def check_frequencies(frequencies: NDArray[np.uint16]) -> None:
    """Check tables that were read.

    Raises:
        ValueError: they are not tables.
    """
    if frequencies.shape != (NUM_CONTEXTS, NUM_SYMBOLS):
        raise ValueError(f"tables must be {(NUM_CONTEXTS, NUM_SYMBOLS)}, got {frequencies.shape}")
    if (frequencies.astype(np.int64).sum(axis=1) != _TOTAL).any():
        raise ValueError(f"the frequencies of a table do not add up to {_TOTAL}")


def number_fields() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the base and the width of the numbers that each symbol stands for [symbols]: `width` bits follow it.

    Behind ESCAPE stands a symbol; a symbol that no number has is taken as 0.
    """
    symbols = np.arange(NUM_SYMBOLS, dtype=np.int64)
    widths = np.where(symbols < DIRECT, 0, DIRECT_BITS - 2 + ((symbols - DIRECT) >> 2))
    bases = np.where(symbols < DIRECT, symbols, (4 + (symbols & 3)) << widths)
    bases[LAST_NUMBER + 1 :] = 0
    widths[LAST_NUMBER + 1 :] = 0
    widths[ESCAPE] = SYMBOL_BITS
    return bases, widths


def coding_entries(frequencies: NDArray[np.uint16]) -> NDArray[np.uint32]:
    """Return frequency << 16 | start of each symbol [contexts, symbols]; 0 where a symbol has none."""
    wide = frequencies.astype(np.uint32)
    starts = np.cumsum(wide, axis=1, dtype=np.uint32) - wide
    return np.where(wide > 0, (wide << 16) | starts, 0).astype(np.uint32)


def symbol_slots(frequencies: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return the symbol that each of a table's 2^TABLE_BITS slots belongs to [contexts, slots]."""
    symbols = np.tile(np.arange(NUM_SYMBOLS, dtype=np.uint8), NUM_CONTEXTS)
    slots: NDArray[np.uint8] = np.repeat(symbols, frequencies.reshape(-1)).reshape(NUM_CONTEXTS, _TOTAL)
    return slots
