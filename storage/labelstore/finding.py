"""What verifying a dataset finds."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    file: str
    message: str
    record: str | None = None
    block: str | None = None  # whose files are not those that were published: making it again mends it

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.record, self.message) if part)
