"""Numbers with units, for people."""

from __future__ import annotations

__all__ = ["bytes_text"]


def bytes_text(count: int) -> str:
    """Return a number of bytes with a decimal unit: 12.3 MB."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
