"""The prompt set as it was read: blocks of prompts in `.labelgen/prompts/`, never changed once they are written.

A block is the unit of work. Each reading of a source starts new blocks, so that what was labelled stays what it was,
whatever is appended to the source or reordered in it. Duplicates are settled here.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from labelgen.prompts.given_sequence import GivenSequence
from labelgen.prompts.prompt import Prompt, Reject
from labelgen.prompts.prompt_sample import PromptSample
from labelgen.prompts.rejects import RejectLimit, RejectLog
from labelgen.prompts.seen_prompts import SeenPrompts
from labelgen.prompts.sources import STDIN, Source, read_prompts
from labelstore.errors import DamagedDatasetError
from labelstore.location import Location
from labelstore.prompt_files import PROMPTS_DIR, SOURCES_NAME, block_of_prompts, prompts_name
from labelstore.sealed_json import seal, unseal
from labelstore.sealed_parquet import count_sealed_rows, read_sealed_table, seal_table
from labelstore.store import open_writable_store

__all__ = ["Ingest", "PromptSnapshot"]

# A block's prompts are in memory at once, here and when it is labelled.
_MAX_BLOCK_CHARACTERS = 1 << 26
_ROWS_BETWEEN_REPORTS = 1_000
_CONTENT = ("prompt", "completion", "messages", "text", "sequences")

_SCHEMA = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("prompt", pa.string()),
        pa.field("completion", pa.string()),
        pa.field("messages", pa.string()),  # JSON
        pa.field("tools", pa.string()),  # JSON
        pa.field("text", pa.string()),
        pa.field("sequences", pa.string()),  # JSON
        pa.field("kept", pa.string()),  # JSON
    ]
)


@dataclass(slots=True, kw_only=True)
class Ingest:
    """What reading the sources gave."""

    num_rows: int = 0
    num_new: int = 0
    num_duplicates: int = 0
    num_rejected: int = 0
    num_unchanged_sources: int = 0


class _BlockTakenError(Exception):
    """Another job has written a block of the snapshot first."""


class PromptSnapshot:
    """The blocks of a dataset's prompt set."""

    def __init__(self, location: Location) -> None:
        self._store = open_writable_store(location)
        self._next_block = 0

    @property
    def blocks(self) -> list[str]:
        """The blocks' numbers, in order."""
        found = (block_of_prompts(name) for name in self._store.names(PROMPTS_DIR))
        return sorted((block for block in found if block is not None), key=int)

    def num_prompts(self, block: str) -> int:
        """Return how many prompts a block holds."""
        with _naming_block(block):
            return count_sealed_rows(self._store, prompts_name(block))

    def block_sha256(self, block: str) -> str:
        """Return the hash of a block's file: it never changes, and tells one dataset's block from another's.

        Raises:
            DamagedDatasetError: the file is missing.
        """
        name = prompts_name(block)
        with _naming_block(block):
            try:
                return hashlib.sha256(self._store.read(name)).hexdigest()
            except FileNotFoundError as error:
                raise DamagedDatasetError(f"{self._store}/{name}: the file is missing") from error

    def read_block(self, block: str) -> list[Prompt]:
        """Return a block's prompts in order.

        Raises:
            DamagedDatasetError: the block's file does not read.
        """
        return [_to_prompt(row) for row in self._read(block).to_pylist()]

    @property
    def total_prompts(self) -> int:
        """How many prompts are in all blocks; they are counted where the last reading has not left their number."""
        blocks, recorded = self.blocks, self._recorded
        if recorded.get("num_blocks") == len(blocks) and isinstance(num_prompts := recorded.get("num_prompts"), int):
            return num_prompts
        return sum(self.num_prompts(block) for block in blocks)

    @property
    def recorded_sources(self) -> dict[str, Any]:
        """The states of the sources that were read to their ends, by name."""
        recorded = self._recorded
        if not recorded or recorded.get("num_blocks", 0) > len(self.blocks):
            return {}  # a block is gone; its prompts become a new one
        sources: dict[str, Any] = recorded.get("sources", {})
        return sources

    @property
    def _recorded(self) -> dict[str, Any]:
        try:
            return unseal(self._store.read(SOURCES_NAME), origin=f"{self._store}/{SOURCES_NAME}")
        except (FileNotFoundError, NotADirectoryError, DamagedDatasetError):
            return {}  # the sources are read again, which changes nothing

    def is_behind(
        self, sources: Sequence[Source], *, limit: int | None = None, sample: PromptSample | None = None
    ) -> bool:
        """Return whether `ingest` would read any of the sources; what it takes is explained there."""
        recorded = self.recorded_sources
        if not _unread(sources, recorded, sample):
            return False
        return limit is None or self.total_prompts < limit

    def ingest(
        self,
        sources: Sequence[Source],
        *,
        block_size: int,
        rejects: RejectLog,
        limit: int | None = None,
        sample: PromptSample | None = None,
        max_rejects: RejectLimit | None = None,
        watch: Callable[[Ingest], None] = lambda _: None,
    ) -> Ingest:
        """Read what is new in the sources into blocks.

        A source whose state has not changed since it was read to its end is not read again. `limit` bounds the
        prompts in the snapshot; `sample` takes some of them all. A row already there (same id and content) is a
        duplicate; an id seen with other content is a reject that names both rows. `watch` is told every 1,000 rows.

        Another job may read prompts into the same folder: where it has written a block first, the sources are read
        again, and the rows of its block are duplicates then.

        Raises:
            ValueError: a source cannot be read on, or more rows than `max_rejects` are rejected.
        """
        while True:
            try:
                return self._ingest_once(
                    sources,
                    block_size=block_size,
                    rejects=rejects,
                    limit=limit,
                    sample=sample,
                    max_rejects=max_rejects,
                    watch=watch,
                )
            except _BlockTakenError as error:
                if any(source.name == STDIN for source in sources):
                    raise ValueError(
                        f"{self._store}: another job is reading prompts into this folder, and the standard input "
                        f"cannot be read again; start this job again when the other one labels"
                    ) from error

    def _ingest_once(
        self,
        sources: Sequence[Source],
        *,
        block_size: int,
        rejects: RejectLog,
        limit: int | None,
        sample: PromptSample | None,
        max_rejects: RejectLimit | None,
        watch: Callable[[Ingest], None],
    ) -> Ingest:
        """Read what is new in the sources.

        Raises:
            _BlockTakenError: another job wrote a block of the number that was to be written.
            ValueError: as `ingest`.
        """
        ingest = Ingest()
        recorded = self.recorded_sources
        states = {source.name: _state(source, sample) for source in sources}
        unread = _unread(sources, recorded, sample)
        ingest.num_unchanged_sources = len(sources) - len(unread)
        blocks = self.blocks
        room = None if limit is None else limit - self.total_prompts
        if not unread or (room is not None and room <= 0):
            return ingest
        self._next_block = int(blocks[-1]) + 1 if blocks else 0
        with SeenPrompts() as seen:
            for block in blocks:
                seen.add(self._read_origins(block))
            reading = _Reading(ingest, seen=seen, rejects=rejects, max_rejects=max_rejects, watch=watch)
            prompts = reading.new_prompts(unread)
            if sample is not None:
                prompts = sample.choose(prompts, present_ids=self._ids(blocks))
            try:
                for batch in _in_blocks(itertools.islice(prompts, room), block_size):
                    rejects.flush()  # once `limit` prompts are there, rows before them are not read again
                    self._write_block(batch)
                    ingest.num_new += len(batch)
                    watch(ingest)
            finally:
                rejects.flush()
        read_whole = {name: states[name] for name in reading.read_whole if states[name] is not None}
        if read_whole:
            blocks = self.blocks
            content = {
                "sources": {**recorded, **read_whole},
                "num_blocks": len(blocks),
                "num_prompts": sum(self.num_prompts(block) for block in blocks),
            }
            self._store.replace(SOURCES_NAME, seal(content))
        return ingest

    def add_blocks(self, prompts: Iterable[Prompt], *, block_size: int) -> None:
        """Write prompts, which may stand in earlier blocks too, into blocks of their own.

        Raises:
            ValueError: another job writes blocks at the same time.
        """
        blocks = self.blocks
        self._next_block = int(blocks[-1]) + 1 if blocks else 0
        try:
            for batch in _in_blocks(prompts, block_size):
                self._write_block(batch)
        except _BlockTakenError as error:
            raise ValueError(
                f"{self._store}: another job is reading prompts into this folder; start this job again when the other "
                f"one labels"
            ) from error

    def forget_sources(self) -> None:
        """Let every source be read again, changed or not."""
        self._store.replace(SOURCES_NAME, seal({"sources": {}}))

    def _read_origins(self, block: str) -> Iterator[tuple[str, str, str, int]]:
        """Yield id, content hash, source and line of a block's prompts."""
        table = self._read(block, ["prompt_id", "content_hash", "source", "line"])
        yield from zip(*(column.to_pylist() for column in table.columns), strict=True)

    def _ids(self, blocks: Iterable[str]) -> Iterator[str]:
        for block in blocks:
            yield from self._read(block, ["prompt_id"]).column(0).to_pylist()

    def _write_block(self, rows: Sequence[Mapping[str, Any]]) -> None:
        # Counted from what was read of ids before: where another job has written since, put_new refuses.
        block = f"{self._next_block:06d}"
        self._next_block += 1
        name = prompts_name(block)
        table = pa.Table.from_pylist(rows, _SCHEMA)
        if not self._store.put_new(name, seal_table(table, name=name)):
            raise _BlockTakenError

    def _read(self, block: str, columns: Sequence[str] | None = None) -> pa.Table:
        with _naming_block(block):
            return read_sealed_table(self._store, prompts_name(block), columns=columns)


class _Reading:
    """One pass over sources: what is new in them, with duplicates and rejects settled."""

    def __init__(
        self,
        ingest: Ingest,
        *,
        seen: SeenPrompts,
        rejects: RejectLog,
        max_rejects: RejectLimit | None,
        watch: Callable[[Ingest], None],
    ) -> None:
        self._ingest = ingest
        self._seen = seen
        self._rejects = rejects
        self._max_rejects = max_rejects
        self._watch = watch
        self.read_whole: list[str] = []

    def new_prompts(self, sources: Iterable[Source]) -> Iterator[Prompt]:
        for source in sources:
            for row in read_prompts(source):
                prompt = self._seen.check(row) if isinstance(row, Prompt) else row
                self._ingest.num_rows += 1
                if self._ingest.num_rows % _ROWS_BETWEEN_REPORTS == 0:
                    self._watch(self._ingest)
                if isinstance(prompt, Reject):
                    self._reject(prompt)
                elif prompt is None:
                    self._ingest.num_duplicates += 1
                else:
                    yield prompt
            self.read_whole.append(source.name)

    def _reject(self, reject: Reject) -> None:
        ingest = self._ingest
        ingest.num_rejected += 1
        self._rejects.add(reject)
        if self._max_rejects is not None:
            last = f"{reject.source}:{reject.line}: {reject.reason}"
            self._max_rejects.check(num_rejected=ingest.num_rejected, num_rows=ingest.num_rows, last=last)


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


def _in_blocks(prompts: Iterable[Prompt], block_size: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of one block after the other: `block_size` prompts, or fewer where they are long."""
    rows: list[dict[str, Any]] = []
    num_characters = 0
    for prompt in prompts:
        rows.append(row := _to_row(prompt))
        num_characters += sum(len(row[name] or "") for name in _CONTENT)
        if len(rows) == block_size or num_characters >= _MAX_BLOCK_CHARACTERS:
            yield rows
            rows, num_characters = [], 0
    if rows:
        yield rows


def _unread(sources: Sequence[Source], recorded: Mapping[str, Any], sample: PromptSample | None) -> list[Source]:
    """Return the sources that have changed since they were read to their ends, or of which nothing can tell."""
    return [
        source for source in sources if (state := _state(source, sample)) is None or recorded.get(source.name) != state
    ]


def _state(source: Source, sample: PromptSample | None) -> dict[str, Any] | None:
    """What tells that a source would give the same again; None where nothing can."""
    state = source.state
    if state is None:
        return None
    chosen = {} if sample is None else {"sample": asdict(sample)}
    return {**state, "fields": source.fields.to_json(), **chosen}


def _to_row(prompt: Prompt) -> dict[str, Any]:
    return {
        "prompt_id": prompt.prompt_id,
        "content_hash": prompt.content_hash,
        "source": prompt.source,
        "line": prompt.line,
        "prompt": prompt.prompt,
        "completion": prompt.completion,
        "messages": None if prompt.messages is None else json.dumps(prompt.messages),
        "tools": None if prompt.tools is None else json.dumps(prompt.tools),
        "text": prompt.text,
        "sequences": json.dumps([sequence.to_json() for sequence in prompt.sequences]) if prompt.sequences else None,
        "kept": json.dumps(dict(prompt.kept)) if prompt.kept else None,
    }


def _to_prompt(row: dict[str, Any]) -> Prompt:
    return Prompt(
        prompt_id=row["prompt_id"],
        source=row["source"],
        line=row["line"],
        content_hash=row["content_hash"],
        prompt=row["prompt"],
        completion=row["completion"],
        messages=None if row["messages"] is None else json.loads(row["messages"]),
        tools=json.loads(row["tools"]) if row.get("tools") else None,
        text=row["text"],
        sequences=tuple(GivenSequence.from_json(content) for content in json.loads(row["sequences"] or "[]")),
        kept=json.loads(row["kept"]) if row["kept"] else {},
    )
