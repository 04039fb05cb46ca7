"""The log of rows that gave no record: `.labelgen/rejected.jsonl`, one JSON object a line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from labelgen.prompts.prompt import Reject

__all__ = ["RejectLog"]


class RejectLog:
    """Appends rejects; one that is logged already is not logged again, so that a job may be repeated."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: set[bytes] = set()
        if path.exists():
            lines = path.read_bytes().split(b"\n")
            if lines[-1]:  # a kill in the middle of a line: its block or source is read again
                path.write_bytes(b"".join(line + b"\n" for line in lines[:-1]))
            self._seen = {_digest(line) for line in lines[:-1]}

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, reject: Reject) -> None:
        """Log a reject."""
        row = {"source": reject.source, "line": reject.line, "id": reject.prompt_id, "reason": reject.reason}
        line = json.dumps(row, ensure_ascii=True).encode()
        if (digest := _digest(line)) in self._seen:
            return
        self._seen.add(digest)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(line + b"\n")


def _digest(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()
