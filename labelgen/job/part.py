"""The share of a dataset's blocks that one of several jobs takes, by number alone: no job has to know of another."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Part"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Part `number` of `count`, counted from 1. Every block is in exactly one part, the parts differ by one block.

    Raises:
        ValueError: there is no such part.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(
                f"--part {self}: parts are counted from 1, so I of I/N is in 1 to N; an index that begins at 0 needs 1 "
                f"more"
            )

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read `3/8`.

        Raises:
            ValueError: it is not that.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None:
            raise ValueError(f"--part must be I/N, such as 3/8, got {text!r}")
        return cls(number=int(match[1]), count=int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, block: str) -> bool:
        """Is a block in this part?"""
        return int(block) % self.count == self.number - 1
