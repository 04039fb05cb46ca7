"""The names of what stands beside the labels: the snapshot of the prompts and the record of its sources."""

from __future__ import annotations

import re

__all__ = ["PROMPTS_DIR", "SOURCES_NAME", "block_of_prompts", "prompts_name"]

PROMPTS_DIR = ".labelgen/prompts"
SOURCES_NAME = ".labelgen/sources.json"
_BLOCK_NAME = re.compile(r"(\d{6,})\.parquet")


def prompts_name(block: str) -> str:
    """Return the name of a block of the snapshot."""
    return f"{PROMPTS_DIR}/{block}.parquet"


def block_of_prompts(name: str) -> str | None:
    """Return the block whose prompts a file of the snapshot holds; None where its name is none of theirs."""
    match = _BLOCK_NAME.fullmatch(name.rsplit("/", 1)[-1])
    return None if match is None else match[1]
