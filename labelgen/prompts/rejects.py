"""The log of rows that gave no record: `.labelgen/rejected.jsonl`, one JSON object a line."""

from __future__ import annotations

import hashlib
import json

from labelgen.prompts.prompt import Reject
from labelstore.store import LocalStore

__all__ = ["REJECTED_NAME", "RejectLog"]

REJECTED_NAME = ".labelgen/rejected.jsonl"


class RejectLog:
    """Appends rejects; one that is logged already is not logged again, so that a job may be repeated."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        try:
            lines = store.read(REJECTED_NAME).split(b"\n")
        except FileNotFoundError:
            lines = [b""]
        if lines[-1]:  # a kill in the middle of a line: its block or source is read again
            store.replace(REJECTED_NAME, b"".join(line + b"\n" for line in lines[:-1]))
        self._seen = {_digest(line) for line in lines[:-1]}

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, reject: Reject) -> None:
        """Log a reject."""
        row = {"source": reject.source, "line": reject.line, "id": reject.prompt_id, "reason": reject.reason}
        line = json.dumps(row, ensure_ascii=True).encode()
        if (digest := _digest(line)) in self._seen:
            return
        self._store.append(REJECTED_NAME, line + b"\n")
        self._seen.add(digest)


def _digest(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()
