"""Which names of files a dataset may state: below its folder, and nothing that a file system reads otherwise."""

from __future__ import annotations

import re

__all__ = ["block_of_shard", "is_inside", "shard_name"]

_SHARD = re.compile(r"data/(\d{6,})-(\d+)-([0-9a-f]{8})\.parquet")


def is_inside(name: str) -> bool:
    """Return whether a name with forward slashes stays below the folder: no `..`, no root, no backslash, no NUL."""
    parts = name.split("/")
    return not any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts)


def shard_name(block: str, number: int, sha256: str) -> str:
    """Return the name of a block's shard."""
    return f"data/{block}-{number}-{sha256[:8]}.parquet"


def block_of_shard(name: str) -> str | None:
    """Return the block whose shard a name is; None where it is none."""
    match = _SHARD.fullmatch(name)
    return None if match is None else match[1]
