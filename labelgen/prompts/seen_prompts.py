"""Which prompts the snapshot holds, on disk: its memory does not grow with the prompt set."""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections.abc import Iterable
from pathlib import Path

from labelgen.prompts.prompt import Prompt, Reject

__all__ = ["SeenPrompts"]

_CACHE_KIB = 65_536  # ids are hashes and come in no order: pages that are in memory save reading them again


class SeenPrompts:
    """The ids taken so far, what each stands for and where; use it as a context manager."""

    def __enter__(self) -> SeenPrompts:
        self._dir = tempfile.TemporaryDirectory(prefix="labelgen-")
        self._db = sqlite3.connect(Path(self._dir.name) / "seen.sqlite", isolation_level=None)
        self._db.executescript(
            f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-{_CACHE_KIB};"
            "CREATE TABLE seen (id BLOB PRIMARY KEY, content BLOB, source INTEGER, line INTEGER) WITHOUT ROWID;"
            "CREATE TABLE sources (name TEXT UNIQUE)"
        )
        self._db.execute("BEGIN")
        self._source, self._source_row = "", 0
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._dir.cleanup()

    def add(self, prompts: Iterable[tuple[str, str, str, int]]) -> None:
        """Take in (id, content hash, source, line) of prompts that the snapshot holds."""
        for prompt_id, content_hash, source, line in prompts:
            self._insert(prompt_id, content_hash, source, line)

    def check(self, prompt: Prompt) -> Prompt | Reject | None:
        """Return a prompt that is new, None for one that is there already, or a reject where its id is taken."""
        if self._insert(prompt.prompt_id, prompt.content_hash, prompt.source, prompt.line):
            return prompt
        content, source, line = self._db.execute(
            "SELECT content, name, line FROM seen JOIN sources ON source = sources.rowid WHERE id = ?",
            (_key(prompt.prompt_id),),
        ).fetchone()
        if content == bytes.fromhex(prompt.content_hash):
            return None
        return Reject(
            source=prompt.source,
            line=prompt.line,
            prompt_id=prompt.prompt_id,
            reason=f"the id {prompt.prompt_id!r} is that of {source}:{line} too, whose content differs",
        )

    def _insert(self, prompt_id: str, content_hash: str, source: str, line: int) -> bool:
        if source != self._source:
            self._source, self._source_row = source, self._row_of(source)
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?)",
            (_key(prompt_id), bytes.fromhex(content_hash), self._source_row, line),
        )
        return cursor.rowcount == 1

    def _row_of(self, source: str) -> int:
        self._db.execute("INSERT OR IGNORE INTO sources VALUES (?)", (source,))
        row: int = self._db.execute("SELECT rowid FROM sources WHERE name = ?", (source,)).fetchone()[0]
        return row


def _key(prompt_id: str) -> bytes:
    return hashlib.blake2b(prompt_id.encode(), digest_size=16).digest()
