"""What a dataset's log of rejects says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from labelstore.local_store import LocalStore
from labelstore.reject_log import find_reject_damage, read_rejects

__all__ = ["rejected_rows"]


def rejected_rows(root: Path) -> list[dict[str, Any]]:
    """Return the rows of the log in their order; it must be whole, and hold each row once."""
    store = LocalStore(root)
    assert not list(find_reject_damage(store))
    lines = [
        line for path in sorted((root / ".labelgen/rejected").glob("*")) for line in path.read_bytes().splitlines()
    ]
    assert lines == read_rejects(store), "a row stands there twice"
    return [json.loads(line) for line in lines]
