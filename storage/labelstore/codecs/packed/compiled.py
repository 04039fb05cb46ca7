"""Compiling with numba, and the small integer functions that encoder and decoder share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from labelstore.codecs.packed.fixed_log import FRACTION_BITS, LN2_FIXED, LN_TABLE_BITS, ln_table
from labelstore.codecs.packed.layout import DIRECT, DIRECT_BITS, KEPT_BITS, LIST_CLASSES, RANK_CLASSES, TAIL_CODES

try:
    import numba
    import numba.core.cgutils
    import numba.extending
except ImportError as error:
    raise ImportError(
        "the codecs exact, standard and small need numba to write labels (they are read without it): "
        "run pip install 'labelgen[fast]', or write with --codec open"
    ) from error

__all__ = [
    "allocating",
    "bit_length",
    "compiled",
    "expected_tail",
    "inlined",
    "int_sqrt",
    "ln_fixed_one",
    "number_symbol",
    "rank_class",
    "target_code",
    "value_place",
]

_HALF_UNITS = 1 << (KEPT_BITS - 1)
_LN_TABLE = ln_table()  # a constant of the compiled code

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function to machine code at its first call, and keep it on disk; it runs without the GIL.

    It can make no arrays, and counts no references to those it is given: at each call of a small function that would
    cost more than the work.
    """
    jitted: F = numba.njit(cache=True, nogil=True, _nrt=False)(function)
    return jitted


def allocating(function: F) -> F:
    """Compile a function that makes arrays."""
    jitted: F = numba.njit(cache=True, nogil=True)(function)
    return jitted


def inlined(function: F) -> F:
    """Compile a function into each place where it is called."""
    jitted: F = numba.njit(inline="always", _nrt=False)(function)
    return jitted


@numba.extending.intrinsic  # type: ignore[untyped-decorator]
def _leading_zeros(typing_context: Any, n: Any) -> Any:
    """Count the zeros above the highest bit of a uint64; it becomes one instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], numba.core.cgutils.false_bit)

    return numba.uint64(numba.uint64), generate


@compiled
def bit_length(n: int) -> int:
    """Return how many bits 0 <= n < 2^63 has."""
    return 64 - np.int64(_leading_zeros(np.uint64(n)))


@compiled
def number_symbol(n: int) -> tuple[int, int]:
    """Return a number's symbol, and how many of its low bits follow."""
    if n < DIRECT:
        return n, 0
    exponent = bit_length(n) - 1
    return DIRECT + 4 * (exponent - DIRECT_BITS) + ((n >> (exponent - 2)) & 3), exponent - 2


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
def expected_tail(weight: int, weight_of_one: int) -> int:
    """Return the code of the tail mass that the candidates' weights leave; see fixed_log.kept_of_tail."""
    if weight >= weight_of_one:
        return 0
    if 2 * weight >= weight_of_one:
        return int_sqrt((weight_of_one - weight) * _HALF_UNITS // weight_of_one)
    return TAIL_CODES - int_sqrt(weight * _HALF_UNITS // weight_of_one)


@compiled
def ln_fixed_one(n: int) -> int:
    """Return the logarithm of 1 <= n < 2^53 in units of 2^-24 nats: fixed_log.ln_fixed for one number."""
    exponent = bit_length(n) - 1
    scaled = n << (62 - exponent)
    index = (scaled >> (62 - LN_TABLE_BITS)) & ((1 << LN_TABLE_BITS) - 1)
    fraction = (scaled >> (62 - LN_TABLE_BITS - FRACTION_BITS)) & ((1 << FRACTION_BITS) - 1)
    low = _LN_TABLE[index]
    return exponent * LN2_FIXED + low + (((_LN_TABLE[index + 1] - low) * fraction) >> FRACTION_BITS)


@compiled
def target_code(log: int) -> int:
    """Return a logarithm in units of 2^-24 nats as a target's code: in units of -1/32 nat, rounded."""
    return (-log + (1 << 18)) >> 19
