"""Compiling with numba, and the small integer functions that encoder and decoder share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from labelstore.codecs.packed.fixed_log import FRACTION_BITS, LN2_FIXED, LN_TABLE_BITS, ln_table
from labelstore.codecs.packed.layout import DIRECT, LIST_CLASSES, RANK_CLASSES

try:
    import numba
except ImportError as error:
    raise ImportError(
        "the codecs exact, standard and small need numba to write labels (they are read without it): "
        "run pip install 'labelgen[fast]', or write with --codec open"
    ) from error

__all__ = [
    "bit_length",
    "compiled",
    "int_sqrt",
    "ln_fixed_one",
    "number_symbol",
    "rank_class",
    "target_code",
    "value_place",
]

_LN_TABLE = ln_table()  # a constant of the compiled code

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function to machine code at its first call, and keep it on disk; it runs without the GIL."""
    jitted: F = numba.njit(cache=True, nogil=True)(function)
    return jitted


@compiled
def bit_length(n: int) -> int:
    """Return how many bits 0 <= n < 2^32 has."""
    length = 0
    if n >= 1 << 16:
        length += 16
        n >>= 16
    if n >= 1 << 8:
        length += 8
        n >>= 8
    if n >= 1 << 4:
        length += 4
        n >>= 4
    if n >= 1 << 2:
        length += 2
        n >>= 2
    return length + min(n, 2)


@compiled
def number_symbol(n: int) -> tuple[int, int]:
    """Return a number's symbol, and how many of its low bits follow."""
    if n < DIRECT:
        return n, 0
    exponent = bit_length(n) - 1
    return DIRECT + 4 * (exponent - 4) + ((n >> (exponent - 2)) & 3), exponent - 2


@compiled
def rank_class(rank: int) -> int:
    """Return the place class of an id that is not in its cluster's list."""
    return LIST_CLASSES + min(RANK_CLASSES - 1, bit_length(rank) >> 1)


@compiled
def value_place(place: int) -> int:
    """Return the coarser class that is the context of a value."""
    wide = np.int64(place)  # numba makes a float of uint8 and int64
    if wide < LIST_CLASSES:
        return wide >> 1
    return (LIST_CLASSES >> 1) + (wide - LIST_CLASSES) // 3


@compiled
def int_sqrt(n: int) -> int:
    """Return the largest integer whose square is at most 0 <= n < 2^52."""
    root = int(n**0.5)
    while root * root > n:
        root -= 1
    while (root + 1) * (root + 1) <= n:
        root += 1
    return root


@compiled
def ln_fixed_one(n: int) -> int:
    """Return the logarithm of 1 <= n < 2^53 in units of 2^-24 nats: fixed_log.ln_fixed for one number."""
    exponent = bit_length(n) - 1 if n < 1 << 32 else bit_length(n >> 32) + 31
    scaled = n << (62 - exponent)
    index = (scaled >> (62 - LN_TABLE_BITS)) & ((1 << LN_TABLE_BITS) - 1)
    fraction = (scaled >> (62 - LN_TABLE_BITS - FRACTION_BITS)) & ((1 << FRACTION_BITS) - 1)
    low = _LN_TABLE[index]
    return exponent * LN2_FIXED + low + (((_LN_TABLE[index + 1] - low) * fraction) >> FRACTION_BITS)


@compiled
def target_code(log: int) -> int:
    """Return a logarithm in units of 2^-24 nats as a target's code: in units of -1/32 nat, rounded."""
    return (-log + (1 << 18)) >> 19
