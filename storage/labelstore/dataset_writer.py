"""Writes a dataset block by block: shards first, then the entry that publishes them; at the end the manifest."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs import Codec
from labelstore.entry import (
    ENTRIES_DIR,
    Entry,
    ShardEntry,
    entry_name,
    next_generations,
    read_entries,
    withdrawal_name,
)
from labelstore.errors import DamagedDatasetError, FingerprintError, NotADatasetError
from labelstore.file_names import block_of_shard, shard_name
from labelstore.header import HEADER_NAME, Header
from labelstore.location import Location
from labelstore.manifest import MANIFEST_NAME, Manifest
from labelstore.model_source import ModelSource
from labelstore.readme import README_NAME, first_readme, is_unedited
from labelstore.record import LabelRecord
from labelstore.reject_log import fold_rejects
from labelstore.rescored import intact_rescored
from labelstore.sealed_json import unseal
from labelstore.shard_writer import ShardWriter
from labelstore.store import Store, exists, open_writable_store, read_if_there, update

__all__ = [
    "CONVERSION_NAME",
    "MAX_SHARD_BYTES",
    "DatasetWriter",
    "check_folder",
    "check_same_fingerprint",
    "finish_dataset",
    "utc_now",
]

# What a hub stores and a student fetches as one file (docs/scale.md). Bytes and not labels: at K = 64 a label takes 62
# bytes packed and 300 with the codec open, at K = 4,096 sixty times as many.
MAX_SHARD_BYTES = 500_000_000
CONVERSION_NAME = ".labelgen/conversion.json"
ORPHANS_DIR = ".labelgen/orphans"


class DatasetWriter:
    """The one way to add to a dataset. Several may write to one folder: of each block, the first entry wins."""

    def __init__(
        self,
        location: Location,
        header: Header,
        *,
        codec: Codec,
        is_conversion: bool = False,
        is_begun: bool = False,
        holds: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """Open the dataset in a folder or behind a URL, or begin one where there is nothing yet.

        `is_begun`: there are labels of it elsewhere, so that its settings bind although no entry is there. `entries`
        are those of the blocks that the writer `holds`.

        Raises:
            NotADatasetError: the folder holds something else.
            FingerprintError: it holds labels of another teacher or other settings; the message names them.
            DamagedDatasetError: its header or an entry is damaged.
            ImportError: the codec needs a library to write that is not installed.
        """
        codec.check_can_write()
        self.store = open_writable_store(location)
        self._codec = codec
        check_folder(self.store, is_conversion=is_conversion)
        self._header = self._open_header(header, is_begun=is_begun)
        self._holds = holds
        self.entries: dict[str, Entry] = read_entries(self.store, holds=holds)
        self._generations = next_generations(self.store)
        self.models = ModelSource(
            codec, vocab_size=self._header.vocab_size, is_constant_size=self._header.selection.is_constant_size
        )
        if not is_conversion:
            self.models.recall(self.store, self.entries.values())

    @property
    def header(self) -> Header:
        """The header as it stands on disk."""
        return self._header

    def publish_block(
        self,
        block: str,
        records: Iterable[LabelRecord],
        *,
        num_prompts: int,
        num_rejected: int,
        recorded: Mapping[str, Any],
        num_refused: int = 0,
        are_checked: bool = False,
    ) -> bool:
        """Write a block's records as shards and publish them; False if another job has published the block before.

        `are_checked`: the records' values were checked already, see `ShardWriter.write`.

        Raises:
            ValueError: a record's values contradict each other; nothing is published.
        """
        records = list(records)
        shards = []
        if records:
            model = self.models.model_for(records)
            pairs = ((record, None) for record in records)
            shards = self.write_shards(block, pairs, model=model, are_checked=are_checked)
        return self.publish_shards(
            block,
            shards,
            num_prompts=num_prompts,
            num_rejected=num_rejected,
            num_refused=num_refused,
            recorded=recorded,
        )

    def read_on(self) -> None:
        """Take in what other jobs have published since.

        Raises:
            DamagedDatasetError: an entry is damaged.
        """
        known = self.entries
        new = read_entries(self.store, holds=lambda block: self._holds(block) and block not in known)
        self.entries = dict(sorted({**known, **new}.items(), key=lambda item: int(item[0])))

    def is_published(self, block: str) -> bool:
        """Has another job published a block that this one has not?"""
        return exists(self.store, entry_name(block, self._generation_of(block)))

    def publish_shards(
        self,
        block: str,
        shards: Sequence[ShardEntry],
        *,
        num_prompts: int,
        num_rejected: int,
        recorded: Mapping[str, Any],
        num_refused: int = 0,
    ) -> bool:
        """Publish shards that are in data/ as a block; False if another job has published the block before.

        A loser's shards are deleted, but for those that the winner has too.

        Raises:
            FingerprintError: a job with other settings has begun the folder anew since; the block is withdrawn.
        """
        entry = Entry(
            block=block,
            generation=self._generation_of(block),
            nonce=uuid.uuid4().hex,
            fingerprint=self._header.fingerprint,
            shards=tuple(shards),
            num_prompts=num_prompts,
            num_rejected=num_rejected,
            num_refused=num_refused,
            recorded=recorded,
            created_at=utc_now(),
        )
        self.store.put_new(entry.name, entry.to_bytes())
        # Read back: where a put's answer was lost, the nonce tells that the entry is our own.
        name = entry_name(block, entry.generation)
        winner = Entry.from_json(unseal(self.store.read(name), origin=name), origin=name)
        self.entries[block] = winner
        if winner.nonce == entry.nonce:
            self._check_header(entry)
            return True
        kept = {shard.name for shard in winner.shards}
        for shard in shards:
            if shard.name not in kept:
                self.store.delete(shard.name)
        return False

    def finish(self) -> tuple[Manifest, list[str]]:
        """Fold the entries into the manifest and tidy; see `finish_dataset`."""
        return finish_dataset(self.store.location)

    def _generation_of(self, block: str) -> int:
        """Return the generation of a block's next entry: those before were withdrawn, perhaps since this one began."""
        generation = self._generations.get(block, 0)
        while exists(self.store, withdrawal_name(block, generation)):
            generation += 1
        self._generations[block] = generation
        return generation

    def _check_header(self, entry: Entry) -> None:
        """Take an entry back where the folder is no longer this writer's.

        Raises:
            FingerprintError: it has another header.
        """
        existing = Header.from_bytes(self.store.read(HEADER_NAME), origin=f"{self.store}/{HEADER_NAME}")
        if existing.fingerprint != self._header.fingerprint:
            self.store.put_new(withdrawal_name(entry.block, entry.generation), b"")
            for shard in entry.shards:
                self.store.delete(shard.name)
            check_same_fingerprint(existing, self._header, origin=str(self.store))

    def _open_header(self, header: Header, *, is_begun: bool) -> Header:
        self.store.make_ready()
        if self.store.put_new(HEADER_NAME, header.to_bytes()):
            self._write_readme(header)
            return header
        existing = Header.from_bytes(self.store.read(HEADER_NAME), origin=f"{self.store}/{HEADER_NAME}")
        if existing.fingerprint != header.fingerprint and not is_begun and not self.store.names(ENTRIES_DIR):
            # A job that died before its first label binds nobody to its settings. One that lives and publishes now is
            # seen here, or sees the new header itself (_check_header).
            self.store.replace(HEADER_NAME, header.to_bytes())
            if self.store.names(ENTRIES_DIR):
                self.store.replace(HEADER_NAME, existing.to_bytes())
                check_same_fingerprint(existing, header, origin=str(self.store))
            self._write_readme(header)
            return header
        self.store.put_new(README_NAME, first_readme(existing))  # a crash may have come between the two
        check_same_fingerprint(existing, header, origin=str(self.store))
        return existing

    def _write_readme(self, header: Header) -> None:
        """Begin with a README; one of an earlier header is replaced, unless somebody has edited it."""
        content = first_readme(header)
        if not self.store.put_new(README_NAME, content) and is_unedited(self.store.read(README_NAME)):
            self.store.replace(README_NAME, content)

    def write_shards(
        self,
        block: str,
        records: Iterable[tuple[LabelRecord, NDArray[np.float64] | None]],
        *,
        model: bytes,
        earlier_kl_nats: float = 0.0,
        are_checked: bool = False,
    ) -> list[ShardEntry]:
        """Write a block's records as shards into data/; they exist for no reader until they are published.

        Beside a record stands what earlier codecs may have moved its values by; see ShardWriter.write.

        Raises:
            ValueError: a record's values contradict each other.
        """
        shards: list[ShardEntry] = []
        remaining = iter(records)
        item = next(remaining, None)
        while item is not None:
            path = self.store.scratch_path()
            with ShardWriter(
                path,
                codec=self._codec,
                model=model,
                vocab_size=self._header.vocab_size,
                fingerprint=self._header.fingerprint,
            ) as shard:
                while item is not None:
                    shard.write(item[0], tolerance=item[1], earlier_kl_nats=earlier_kl_nats, is_checked=are_checked)
                    item = next(remaining, None)
                    if shard.num_bytes >= MAX_SHARD_BYTES:
                        break
            shards.append(self.put_shard(path, shard.entry(shard_name(block, len(shards), shard.sha256))))
        return shards

    def put_shard(self, path: Path, entry: ShardEntry) -> ShardEntry:
        """Move a finished shard from a scratch path to its name in data/; return its entry.

        Raises:
            DamagedDatasetError: the name is taken by other content.
        """
        # The name is taken by the same bytes where a job was killed between the shard and its entry.
        if not self.store.put_new(entry.name, path) and self.store.size(entry.name) != entry.num_bytes:
            raise DamagedDatasetError(f"{self.store}/{entry.name}: is there with other content; move it away")
        return entry


def finish_dataset(location: str | Path) -> tuple[Manifest, list[str]]:
    """Fold a dataset's entries into its manifest and move aside what a crash left in data/.

    Returns the manifest, and the names of the files that were moved to .labelgen/orphans/. May be called at any time,
    and again: a file is moved only when its block is published without it.

    Raises:
        NotADatasetError: the folder holds no dataset that a job works on.
        DamagedDatasetError: header or an entry is damaged.
    """
    store = open_writable_store(location)
    if (data := read_if_there(store, HEADER_NAME)) is None:
        raise NotADatasetError(f"{store}: has no {HEADER_NAME}, so there is nothing to finish")
    header = Header.from_bytes(data, origin=f"{store}/{HEADER_NAME}")
    entries = read_entries(store)
    listed = {shard.name for entry in entries.values() for shard in entry.shards}
    orphans = []
    for name in store.names("data"):
        if block_of_shard(name) in entries and name not in listed:
            store.move(name, f"{ORPHANS_DIR}/{name.rsplit('/', 1)[-1]}")
            orphans.append(name)
    store.remove_stale_scratch()
    fold_rejects(store)
    manifest = Manifest(header=header, entries=tuple(entries.values()), rescored=intact_rescored(store))
    update(store, MANIFEST_NAME, manifest.to_bytes())
    return manifest, orphans


def check_folder(store: Store, *, is_conversion: bool = False) -> None:
    """Refuse a folder that a dataset can neither be begun nor gone on with in. Writes nothing.

    Raises:
        NotADatasetError: it holds something else, or is no folder; labels that a teacher wrote and converted ones are
            not added to each other.
    """
    others = [name for name in store.top_names() if name != ".labelgen"]
    if not exists(store, HEADER_NAME):
        if others:
            raise NotADatasetError(
                f"{store}: holds {', '.join(others[:3])}{' and more' if len(others) > 3 else ''}, and is no label "
                f"dataset that a job could go on with. Give -o a new or an empty folder."
            )
    elif exists(store, CONVERSION_NAME) != is_conversion:
        made_by = "a teacher's job" if is_conversion else "'labelgen convert'"
        raise NotADatasetError(
            f"{store}: was made by {made_by}, and only that goes on with it. Give -o another folder."
        )


def check_same_fingerprint(existing: Header, wanted: Header, *, origin: str) -> None:
    """Compare the header on disk with that of a job.

    Raises:
        FingerprintError: they differ; the message names each field with its old and new value.
    """
    if existing.fingerprint == wanted.fingerprint:
        return
    old, new = existing.fingerprint_fields, wanted.fingerprint_fields
    differences = [
        f"  {name}: {_shown(old.get(name))} there, {_shown(new.get(name))} now"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    raise FingerprintError(
        f"{origin}: was made with other settings; labels of both must not be mixed:\n"
        + "\n".join(differences)
        + "\nUse the old settings to go on with it, or give -o another folder."
    )


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
