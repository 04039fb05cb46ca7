"""The prompt set as it was read: blocks of prompts in `.labelgen/prompts/`, never changed once they are written.

A block is the unit of work. Each reading of a source starts new blocks, so that what was labelled stays what it was,
whatever is appended to the source or reordered in it. Duplicates are settled here.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from labelgen.prompts.prompt import Prompt, Reject, Task
from labelgen.prompts.rejects import RejectLog
from labelgen.prompts.sources import STDIN, read_source
from labelstore.errors import DamagedDatasetError
from labelstore.sealed_json import seal, unseal
from labelstore.sealed_parquet import count_sealed_rows, read_sealed_table, seal_table
from labelstore.store import LocalStore

__all__ = ["Ingest", "PromptSnapshot"]

PROMPTS_DIR = ".labelgen/prompts"
_SOURCES_NAME = ".labelgen/sources.json"
_BLOCK_NAME = re.compile(r"(\d{6,})\.parquet")

_SCHEMA = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("prompt", pa.string()),
        pa.field("messages", pa.string()),  # JSON, as it was given
        pa.field("text", pa.string()),
        pa.field("kept", pa.string()),  # JSON
    ]
)


@dataclass(slots=True, kw_only=True)
class Ingest:
    """What reading the sources gave."""

    num_new: int = 0
    num_duplicates: int = 0
    num_rejected: int = 0
    num_unchanged_sources: int = 0


class PromptSnapshot:
    """The blocks of a dataset's prompt set."""

    def __init__(self, root: Path) -> None:
        self._store = LocalStore(root)
        self._next_block = 0

    @property
    def blocks(self) -> list[str]:
        """The blocks' numbers, in order."""
        numbers = []
        for name in self._store.names(PROMPTS_DIR):
            if (match := _BLOCK_NAME.fullmatch(name.rsplit("/", 1)[-1])) is not None:
                numbers.append(match[1])
        return sorted(numbers, key=int)

    def num_prompts(self, block: str) -> int:
        """Return how many prompts a block holds."""
        with _naming_block(block):
            return count_sealed_rows(self._store, _block_name(block))

    def read_block(self, block: str) -> list[Prompt]:
        """Return a block's prompts in order.

        Raises:
            DamagedDatasetError: the block's file does not read.
        """
        return [_to_prompt(row) for row in self._read(block).to_pylist()]

    def ingest(
        self,
        sources: Sequence[str],
        *,
        task: Task,
        columns: Sequence[str],
        block_size: int,
        limit: int | None,
        rejects: RejectLog,
    ) -> Ingest:
        """Read what is new in the sources into blocks.

        A source whose size and time have not changed since it was read to its end is not read again. `limit` bounds
        the prompts in the snapshot. A row already there (same id and content) is a duplicate; an id seen with other
        content is a reject that names both rows.
        """
        ingest = Ingest()
        known = self._read_sources()
        states = {source: _state(source, columns) for source in sources}
        unread = [source for source, state in states.items() if state is None or known.get(source) != state]
        ingest.num_unchanged_sources = len(states) - len(unread)
        if not unread:
            return ingest
        with _SeenPrompts() as seen:
            num_before, blocks = 0, self.blocks
            self._next_block = int(blocks[-1]) + 1 if blocks else 0
            for block in blocks:
                num_before += seen.add_block(self._read(block, ["prompt_id", "content_hash", "source", "line"]))
            for source in unread:
                state = states[source]
                room = None if limit is None else limit - num_before - ingest.num_new
                rows = read_source(source, task=task, columns=columns)
                was_read_whole = self._ingest_source(rows, seen, rejects, block_size, room, ingest)
                if state is not None and was_read_whole:
                    known[source] = state
                    self._store.replace(_SOURCES_NAME, seal({"sources": known}))
        return ingest

    def _ingest_source(
        self,
        rows: Iterable[Prompt | Reject],
        seen: _SeenPrompts,
        rejects: RejectLog,
        block_size: int,
        room: int | None,
        ingest: Ingest,
    ) -> bool:
        """Read one source; False if `room` ended it early."""
        pending: list[Prompt] = []
        was_read_whole = True
        if room is not None and room <= 0:
            return False
        for row in rows:
            fresh = seen.check(row) if isinstance(row, Prompt) else row
            if isinstance(fresh, Reject):
                rejects.add(fresh)
                ingest.num_rejected += 1
            elif fresh is None:
                ingest.num_duplicates += 1
            else:
                pending.append(fresh)
                ingest.num_new += 1
                if len(pending) == block_size:
                    self._write_block(pending)
                    pending = []
                if room is not None:
                    room -= 1
                    if room == 0:
                        was_read_whole = False
                        break
        if pending:
            self._write_block(pending)
        return was_read_whole

    def _write_block(self, prompts: Sequence[Prompt]) -> None:
        # Counted from what was read of ids before: where another job has written since, put_new refuses.
        block = f"{self._next_block:06d}"
        self._next_block += 1
        name = _block_name(block)
        table = pa.Table.from_pylist([_to_row(prompt) for prompt in prompts], _SCHEMA)
        if not self._store.put_new(name, seal_table(table, name=name)):
            raise ValueError(
                f"{self._store}: another job is reading prompts into this folder; start this one again when it has"
            )

    def _read(self, block: str, columns: Sequence[str] | None = None) -> pa.Table:
        with _naming_block(block):
            return read_sealed_table(self._store, _block_name(block), columns=columns)

    def _read_sources(self) -> dict[str, Any]:
        try:
            content = unseal(self._store.read(_SOURCES_NAME), origin=f"{self._store}/{_SOURCES_NAME}")
        except (FileNotFoundError, DamagedDatasetError):
            return {}  # the sources are read again, which changes nothing
        sources: dict[str, Any] = content["sources"]
        return sources


class _SeenPrompts:
    """Which ids the snapshot holds and what they stand for; on disk, so that its memory does not grow."""

    def __enter__(self) -> _SeenPrompts:
        self._dir = tempfile.TemporaryDirectory(prefix="labelgen-")
        self._db = sqlite3.connect(Path(self._dir.name) / "seen.sqlite", isolation_level=None)
        self._db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16384;")
        self._db.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, content TEXT, origin TEXT) WITHOUT ROWID")
        self._db.execute("BEGIN")
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._dir.cleanup()

    def add_block(self, table: pa.Table) -> int:
        """Take in the prompts of a block, of which id, content_hash, source and line are needed; return how many."""
        rows = ((row["prompt_id"], row["content_hash"], f"{row['source']}:{row['line']}") for row in _rows_of(table))
        self._db.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", rows)
        return len(table)

    def check(self, prompt: Prompt) -> Prompt | Reject | None:
        """Return a prompt that is new, None for one that is there already, or a reject where its id is taken."""
        content_hash = prompt.content_hash
        row = self._db.execute("SELECT content, origin FROM seen WHERE id = ?", (prompt.prompt_id,)).fetchone()
        if row is None:
            self._db.execute("INSERT INTO seen VALUES (?, ?, ?)", (prompt.prompt_id, content_hash, prompt.origin))
            return prompt
        if row[0] == content_hash:
            return None
        return Reject(
            source=prompt.source,
            line=prompt.line,
            prompt_id=prompt.prompt_id,
            reason=f"the id {prompt.prompt_id!r} is that of {row[1]} too, whose content differs",
        )


def _block_name(block: str) -> str:
    return f"{PROMPTS_DIR}/{block}.parquet"


@contextlib.contextmanager
def _naming_block(block: str) -> Iterator[None]:
    """Say what the loss of a block's prompts means."""
    try:
        yield
    except DamagedDatasetError as error:
        raise DamagedDatasetError(
            f"{error}. Without its prompts, block {block} cannot be labelled: restore the file, or begin again in a "
            f"new folder."
        ) from error


def _rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=1024):
        yield from batch.to_pylist()


def _state(source: str, columns: Sequence[str]) -> dict[str, Any] | None:
    """What tells that a source has not changed; None where nothing can."""
    if source == STDIN:
        return None
    stat = Path(source).stat()
    return {"num_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "columns": list(columns)}


def _to_row(prompt: Prompt) -> dict[str, Any]:
    return {
        "prompt_id": prompt.prompt_id,
        "content_hash": prompt.content_hash,
        "source": prompt.source,
        "line": prompt.line,
        "prompt": prompt.prompt,
        "messages": None if prompt.messages is None else json.dumps(prompt.messages),
        "text": prompt.text,
        "kept": json.dumps(dict(prompt.kept)) if prompt.kept else None,
    }


def _to_prompt(row: dict[str, Any]) -> Prompt:
    return Prompt(
        prompt_id=row["prompt_id"],
        source=row["source"],
        line=row["line"],
        prompt=row["prompt"],
        messages=None if row["messages"] is None else json.loads(row["messages"]),
        text=row["text"],
        kept=json.loads(row["kept"]) if row["kept"] else {},
    )
