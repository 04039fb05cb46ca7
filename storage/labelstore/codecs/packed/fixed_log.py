"""Natural logarithms in integers, so that every decoder gives the same bits."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.layout import KEPT_BITS, TAIL_CODES

__all__ = [
    "FRACTION_BITS",
    "LN2_FIXED",
    "LN_BITS",
    "LN_TABLE_BITS",
    "kept_of_tail",
    "ln_fixed",
    "ln_table",
    "log_of_kept",
]

LN_BITS = 24  # a logarithm is an integer of 2^-24 nats
LN_TABLE_BITS = 11
_LN2 = 0xB17217F7D1CF79AB  # ln 2 in units of 2^-64
LN2_FIXED = (_LN2 + (1 << 39)) >> 40  # in units of 2^-24
FRACTION_BITS = 16


@lru_cache(maxsize=1)
def ln_table() -> NDArray[np.int64]:
    """Return ln(1 + i / 2048) for i = 0 to 2048, in units of 2^-24 nats, by repeated squaring of integers."""
    table = []
    for step in range((1 << LN_TABLE_BITS) + 1):
        x = ((1 << LN_TABLE_BITS) + step) << (62 - LN_TABLE_BITS)  # 1 <= x / 2^62 <= 2
        log2 = 0  # in units of 2^-32
        for _ in range(32):
            x = (x * x) >> 62
            log2 <<= 1
            if x >= 1 << 63:
                log2 |= 1
                x >>= 1
        if step == 1 << LN_TABLE_BITS:
            log2 = 1 << 32
        table.append((log2 * _LN2 + (1 << 71)) >> 72)
    return np.array(table, dtype=np.int64)


def ln_fixed(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the logarithm of positive integers below 2^53 in units of 2^-24 nats, off by less than 2^-23."""
    _, exponents = np.frexp(values.astype(np.float64))  # exact below 2^53
    exponents = exponents.astype(np.int64) - 1
    scaled = values << (62 - exponents)  # the leading one stands at bit 62
    index = (scaled >> (62 - LN_TABLE_BITS)) & ((1 << LN_TABLE_BITS) - 1)
    fraction = (scaled >> (62 - LN_TABLE_BITS - FRACTION_BITS)) & ((1 << FRACTION_BITS) - 1)
    table = ln_table()
    low = table[index]
    logs: NDArray[np.int64] = exponents * LN2_FIXED + low + (((table[index + 1] - low) * fraction) >> FRACTION_BITS)
    return logs


@lru_cache(maxsize=1)
def kept_of_tail() -> NDArray[np.int64]:
    """Return the kept mass by code of the tail mass [513], in units of 2^-KEPT_BITS.

    Even steps of the root of the smaller one of the two: up to 256 of the tail mass, from there of the kept mass.
    """
    codes = np.arange(TAIL_CODES + 1, dtype=np.int64)
    kept = np.where(codes <= TAIL_CODES // 2, (1 << KEPT_BITS) - 2 * codes**2, 2 * (TAIL_CODES - codes) ** 2)
    masses: NDArray[np.int64] = np.maximum(kept, 1)
    return masses


@lru_cache(maxsize=1)
def log_of_kept() -> NDArray[np.int64]:
    """Return the logarithm of the kept mass by code of the tail mass [513], in units of 2^-24 nats."""
    logs: NDArray[np.int64] = ln_fixed(kept_of_tail()) - ln_fixed(np.array([1 << KEPT_BITS]))
    return logs
