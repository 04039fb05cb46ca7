"""What a conversion is to do: its sources, checked, and the file that tells a later run whether it is the same one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.cut import cut_header
from labelstore.dataset_writer import CONVERSION_NAME, check_folder, check_same_fingerprint, utc_now
from labelstore.entry import ENTRIES_DIR, Entry, ShardEntry
from labelstore.errors import DamagedDatasetError, NotADatasetError
from labelstore.header import Header
from labelstore.location import Location, as_location
from labelstore.manifest import read_contents, read_manifest
from labelstore.record_choice import RecordChoice
from labelstore.sealed_json import canonical_json, seal, unseal
from labelstore.shard_reader import ShardReader
from labelstore.store import ReadableStore, Store, open_store, open_writable_store

__all__ = ["Plan", "Source", "make_plan"]


_OPTIONS = {
    "codec": "--codec",
    "top_k": "--top-k",
    "dropped_ids_sha256": "the hash of --drop-ids",
    "holdout": "--holdout",
    "only_holdout": "--only-holdout",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A finished dataset that is read."""

    location: str
    store: ReadableStore
    header: Header
    entries: tuple[Entry, ...]

    @property
    def codecs(self) -> set[str]:
        return {shard.codec for entry in self.entries for shard in entry.shards}

    def to_json(self) -> dict[str, Any]:
        """Return what makes it the same source: its content, wherever it lies."""
        names = [[entry.block, entry.generation, entry.nonce] for entry in self.entries]
        return {
            "location": self.location,
            "fingerprint": self.header.fingerprint,
            "entries_sha256": hashlib.sha256(canonical_json(names)).hexdigest(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A conversion that has been checked."""

    sources: tuple[Source, ...]
    header: Header  # of the new dataset
    codec: str
    top_k: int | None  # None: all candidates are kept
    choice: RecordChoice  # the records that are kept
    num_unknown_ids: int  # of the ids to be dropped, that no record has

    @property
    def blocks(self) -> list[tuple[str, Source, Entry]]:
        """The new blocks: one for each entry of each source, in order."""
        pairs = [(source, entry) for source in self.sources for entry in source.entries]
        return [(f"{number:06d}", source, entry) for number, (source, entry) in enumerate(pairs)]

    def is_copied(self, entry: Entry) -> bool:
        """Whether the block's shards stay as they are, byte by byte."""
        return self.top_k is None and self.choice.keeps_all and all(shard.codec == self.codec for shard in entry.shards)

    def to_json(self) -> dict[str, Any]:
        return {
            "codec": self.codec,
            "top_k": self.top_k,
            **self.choice.to_json(),
            "sources": [source.to_json() for source in self.sources],
        }


def make_plan(
    locations: Sequence[str],
    output_dir: Location,
    *,
    codec: str | None,
    top_k: int | None,
    choice: RecordChoice,
    labelgen_version: str,
) -> Plan:
    """Check sources, options and folder; note the conversion in the folder, or see that it is the one begun there.

    Raises:
        ValueError: the options ask for what cannot be, or the sources hold a record twice.
        StorageError: a source is no finished dataset or is damaged, the sources differ in their fingerprint, or the
            folder holds something else.
    """
    for location in locations:
        if _is_same(as_location(location), output_dir):
            raise NotADatasetError(f"{location}: is source and output at once; give -o another folder")
    store = open_writable_store(output_dir)
    check_folder(store, is_conversion=True)
    sources = tuple(_open_source(location) for location in locations)
    headers = [source.header if top_k is None else cut_header(source.header, top_k) for source in sources]
    for source, header in zip(sources[1:], headers[1:], strict=True):
        check_same_fingerprint(headers[0], header, origin=f"{sources[0].location} and {source.location}")
    plan = Plan(
        sources=sources,
        header=replace(headers[0], labelgen_version=labelgen_version, created_at=utc_now()),
        codec=codec or _common_codec(sources),
        top_k=top_k,
        choice=choice,
        num_unknown_ids=0 if choice.keeps_all else _count_unknown(choice, sources),
    )
    if not _is_begun(plan, store):
        if len(sources) > 1:
            _refuse_double_ids(sources)
        store.make_ready()
        content = seal(plan.to_json())
        if not store.put_new(CONVERSION_NAME, content):
            store.replace(CONVERSION_NAME, content)  # a conversion without a block binds nobody
    return plan


def _open_source(location: str) -> Source:
    store = open_store(location)
    contents = read_contents(store)
    manifest = read_manifest(store)
    if manifest is None or manifest.entries != contents.entries:
        raise NotADatasetError(
            f"{location}: is not finished: its manifest.json does not list all that is there. Run its job to the end, "
            f"or 'labelgen finish {location}' to convert what it has."
        )
    return Source(location=location, store=store, header=contents.header, entries=contents.entries)


def _is_same(one: Location, other: Location) -> bool:
    if isinstance(one, Path) and isinstance(other, Path):
        return one.resolve() == other.resolve()
    return one == other


def _common_codec(sources: Sequence[Source]) -> str:
    codecs = sorted(set().union(*(source.codecs for source in sources)))
    if len(codecs) != 1:
        found = f"hold the codecs {', '.join(codecs)}" if codecs else "hold no labels"
        raise ValueError(f"the sources {found}: say with --codec which one the new dataset is to have")
    return codecs[0]


def _is_begun(plan: Plan, store: Store) -> bool:
    """Return whether the folder holds blocks of this very conversion.

    Raises:
        NotADatasetError: it holds those of another; the message says what differs.
    """
    origin = f"{store}/{CONVERSION_NAME}"
    if not store.names(ENTRIES_DIR):
        return False
    old, new = unseal(store.read(CONVERSION_NAME), origin=origin), plan.to_json()
    try:
        differences = [
            f"{option} was {old[name]}, is {new[name]}" for name, option in _OPTIONS.items() if old[name] != new[name]
        ]
        if [_content(source) for source in old["sources"]] != [_content(source) for source in new["sources"]]:
            were, are = (", ".join(source["location"] for source in plan["sources"]) for plan in (old, new))
            differences.append(
                f"the sources were {were}, are {are}"
                if were != are
                else f"{are} has other blocks than when the conversion began"
            )
    except (KeyError, TypeError) as error:
        raise DamagedDatasetError(f"{origin}: is not the plan of a conversion ({error})") from error
    if differences:
        raise NotADatasetError(
            f"{store}: holds another conversion: {'; '.join(differences)}. Run the old command to go on with it, or "
            f"give -o another folder."
        )
    return True


def _content(source: dict[str, Any]) -> tuple[str, str]:
    return source["fingerprint"], source["entries_sha256"]


def _refuse_double_ids(sources: Sequence[Source]) -> None:
    """Find records of one id: 8 bytes of memory a record, and a second reading only where hashes meet.

    Raises:
        ValueError: there are; the message names both places of the first.
    """
    hashes = np.concatenate(
        [np.zeros(0, np.uint64), *(_hashes(ids) for _, ids in _all_ids(sources))],
    )
    hashes.sort()
    doubles = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    places: dict[str, str] = {}
    if doubles:
        for place, ids in _all_ids(sources):
            for record_id, digest in zip(ids, _hashes(ids).tolist(), strict=True):
                if digest not in doubles:
                    continue
                if record_id in places:
                    raise ValueError(
                        f"record {record_id!r} is in {places[record_id]} and in {place}: a dataset holds each record "
                        f"once. Nothing was written."
                    )
                places[record_id] = place


def _count_unknown(choice: RecordChoice, sources: Sequence[Source]) -> int:
    """Return how many of the ids to be dropped no record has; reads the ids of all records.

    Raises:
        ValueError: no record would be left.
    """
    unknown, num_kept = set(choice.dropped_ids), 0
    for _, ids in _all_ids(sources):
        for record_id in ids:
            unknown -= choice.names_of(record_id)
            num_kept += choice.keeps(record_id)
    if num_kept == 0:
        raise ValueError("no record would be left: see --drop-ids and --holdout. Nothing was written.")
    return len(unknown)


def _all_ids(sources: Sequence[Source]) -> Iterator[tuple[str, list[str]]]:
    """Yield the record ids of each row group, and where it is."""
    for source in sources:
        for shard in _shards(source):
            reader = ShardReader(source.store, shard)
            for index in range(reader.num_row_groups):
                yield f"{source.location}/{shard.name}", reader.record_ids(index)


def _shards(source: Source) -> Iterator[ShardEntry]:
    return (shard for entry in source.entries for shard in entry.shards)


def _hashes(ids: Sequence[str]) -> NDArray[np.uint64]:
    digests = b"".join(hashlib.blake2b(record_id.encode(), digest_size=8).digest() for record_id in ids)
    return np.frombuffer(digests, dtype=np.uint64)
