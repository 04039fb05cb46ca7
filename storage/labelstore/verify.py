"""Is a dataset what it claims to be? Every hash, count and offset, and what must hold of labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs import CODECS
from labelstore.entry import ENTRIES_DIR, LabelCounts, ShardEntry
from labelstore.errors import DamagedDatasetError, StorageError
from labelstore.finding import Finding
from labelstore.header import HEADER_NAME, Header
from labelstore.manifest import MANIFEST_NAME, Manifest, read_contents, read_manifest
from labelstore.record import LabelRecord
from labelstore.record_checks import find_problems
from labelstore.rescored import RESCORED_NAME, read_rescored
from labelstore.shard_reader import ShardReader, find_changed_bytes
from labelstore.store import ReadableStore, exists, open_store
from labelstore.stream_bytes import known_bytes
from labelstore.verify_prompts import SnapshotCheck

__all__ = ["VerifyReport", "verify_dataset"]


@dataclass(slots=True, kw_only=True)
class VerifyReport:
    """What was looked at, and what was found."""

    num_shards: int = 0
    num_records: int = 0
    num_labels: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        return not self.findings


def verify_dataset(location: str | Path) -> VerifyReport:
    """Check all of a dataset; reads every byte of it.

    Raises:
        NotADatasetError: there is no dataset.
        FormatVersionError: it is of another format version.
    """
    report = VerifyReport()
    store = open_store(location)
    try:
        contents = read_contents(store)
    except DamagedDatasetError as error:
        report.findings.append(Finding(file=str(location), message=str(error)))
        return report
    report.findings += _check_parts(store, contents)
    report.findings += _check_files(store, contents)
    present = set(store.names("data"))
    seen_ids: set[bytes] = set()
    snapshot = SnapshotCheck(store, contents)
    for entry in contents.entries:
        prompt_ids: set[str] = set()
        for shard in entry.shards:
            report.num_shards += 1
            if shard.name in present:
                report.findings += _check_bytes(store, shard, entry.block)
                report.findings += _check_shard(store, shard, contents.header, seen_ids, prompt_ids, report)
        report.findings += snapshot.check_block(entry, prompt_ids)
    report.findings += snapshot.check_rest()
    return report


def _check_parts(store: ReadableStore, contents: Manifest) -> Iterator[Finding]:
    """Check header, entries and manifest against each other, and what the last job found."""
    if store.names(ENTRIES_DIR) and not exists(store, HEADER_NAME):
        yield Finding(file=HEADER_NAME, message="the file is missing, but there are entries")
    yield from _check_manifest(store, contents)
    try:
        read_rescored(store)
    except DamagedDatasetError as error:
        yield Finding(file=RESCORED_NAME, message=str(error))


def _check_manifest(store: ReadableStore, contents: Manifest) -> Iterator[Finding]:
    try:
        manifest = read_manifest(store)
    except StorageError as error:
        yield Finding(file=MANIFEST_NAME, message=f"{error}; 'labelgen finish' makes it again")
        return
    if manifest is None:
        return  # a job that has not finished has none
    if exists(store, HEADER_NAME) and manifest.entries and not store.names(ENTRIES_DIR):
        yield Finding(file=f"{ENTRIES_DIR}/", message="is empty, but the manifest lists blocks")
    entries = {entry.block: entry for entry in contents.entries}
    if manifest.header != contents.header:
        yield Finding(file=MANIFEST_NAME, message="its header is not the one in .labelgen/header.json")
    for old in manifest.entries:
        new = entries.get(old.block)
        if new is None:
            yield Finding(file=MANIFEST_NAME, message=f"lists block {old.block}, whose entry is gone")
        elif new.generation == old.generation and new.to_bytes() != old.to_bytes():
            yield Finding(file=MANIFEST_NAME, message=f"says something else of block {old.block} than its entry")


def _check_files(store: ReadableStore, contents: Manifest) -> Iterator[Finding]:
    block_of = {shard.name: entry.block for entry in contents.entries for shard in entry.shards}
    present = set(store.names("data"))
    if len(block_of) != sum(len(entry.shards) for entry in contents.entries):
        yield Finding(file="data/", message="two entries list the same shard")
    for name in sorted(set(block_of) - present):
        yield Finding(
            file=name,
            message="is listed, but the file is missing; copy it from where the dataset came from",
            block=block_of[name],
        )
    for name in sorted(present - set(block_of)):
        yield Finding(
            file=name, message="no entry lists this file; 'labelgen finish' moves aside what a killed job left"
        )


def _check_bytes(store: ReadableStore, shard: ShardEntry, block: str) -> Iterator[Finding]:
    if (message := find_changed_bytes(store, shard)) is not None:
        yield Finding(file=shard.name, message=message, block=block)


def _check_shard(
    store: ReadableStore,
    shard: ShardEntry,
    header: Header,
    seen_ids: set[bytes],
    prompt_ids: set[str],
    report: VerifyReport,
) -> Iterator[Finding]:
    """Check a shard; add the ids of its records and of their prompts to those seen."""
    try:
        reader = ShardReader(store, shard)
    except DamagedDatasetError as error:
        yield Finding(file=shard.name, message=str(error))
        return
    for gap in reader.unread_bytes():
        yield Finding(file=shard.name, message=f"bytes [{gap.start}, {gap.stop}) belong to no column")
    counts = LabelCounts()
    is_exact = True
    for index in range(reader.num_row_groups):
        try:
            row_group = reader.row_group(index)
        except DamagedDatasetError as error:
            yield Finding(file=shard.name, message=str(error))
            return
        for row in range(len(row_group)):
            try:
                record = row_group.record(row)
            except DamagedDatasetError as error:
                yield Finding(file=shard.name, message=str(error))
                continue
            prompt_ids.add(record.prompt_id)
            is_exact = is_exact and row_group.tolerance(record) is None
            yield from _check_record(record, shard, header, seen_ids, row_group.whole_tolerance(record))
            counts += LabelCounts.of(record)
    yield from _check_stream_bytes(shard, reader)
    report.num_records += counts.num_records
    report.num_labels += counts.num_labels
    # The entry counts what was encoded; a codec that is not exact moves sums a little.
    for name in ("num_records", "num_labels", "num_tokens", "kept_mass_sum", "truncation_kl_sum"):
        is_value, says = getattr(counts, name), getattr(shard.counts, name)
        is_right = is_value == says
        if name.endswith("_sum"):
            absolute = 1e-9 if is_exact else 1e-3 * counts.num_labels
            is_right = bool(np.isclose(is_value, says, rtol=1e-6 if is_exact else 0.02, atol=absolute))
        if not is_right:
            yield Finding(file=shard.name, message=f"{name} is {is_value}, its entry says {says}")


def _check_stream_bytes(shard: ShardEntry, reader: ShardReader) -> Iterator[Finding]:
    """Compare what the bytes are said to be for with what the footer tells."""
    streams = shard.stream_bytes
    if any(size < 0 for size in streams.values()):
        yield Finding(file=shard.name, message=f"its entry says that a stream has fewer than no bytes: {dict(streams)}")
    if (total := sum(streams.values())) != shard.num_bytes:
        yield Finding(file=shard.name, message=f"its entry splits {total} bytes by stream, but says {shard.num_bytes}")
    wanted = known_bytes(reader.metadata, model_bytes=shard.model_bytes, codec=CODECS[shard.codec])
    for name, size in wanted.items():
        if streams.get(name) != size:
            yield Finding(file=shard.name, message=f"{name} has {size} bytes, its entry says {streams.get(name)}")


def _check_record(
    record: LabelRecord,
    shard: ShardEntry,
    header: Header,
    seen_ids: set[bytes],
    tolerance: NDArray[np.float64] | None,
) -> Iterator[Finding]:
    for problem in find_problems(record, vocab_size=header.vocab_size, tolerance=tolerance):
        yield Finding(file=shard.name, record=record.record_id, message=problem)
    digest = hashlib.blake2b(record.record_id.encode(), digest_size=16).digest()
    if digest in seen_ids:
        yield Finding(file=shard.name, record=record.record_id, message="another record has the same id")
    seen_ids.add(digest)
