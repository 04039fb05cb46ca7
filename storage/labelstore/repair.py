"""Takes what is damaged out of a dataset, so that the job that made it makes just that again.

A block whose files are not those that were published is withdrawn: `<block>.<generation>.withdrawn` is created, and its
files are kept aside in `.labelgen/orphans/`. Header and entries that the manifest still has are written again from it.
What has the right hash and cannot be read is left, as it may take another labelgen. Nothing is deleted.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from labelstore.dataset_writer import CONVERSION_NAME, ORPHANS_DIR, finish_dataset
from labelstore.entry import ENTRIES_DIR, Entry, parse_entry_name, read_entries, read_entry, withdrawal_name
from labelstore.errors import DamagedDatasetError, NotADatasetError
from labelstore.header import HEADER_NAME, Header
from labelstore.manifest import MANIFEST_NAME, Manifest, read_manifest
from labelstore.prompt_files import SOURCES_NAME, prompts_name
from labelstore.reject_log import find_reject_damage, is_reject, put_rejects
from labelstore.rescored import RESCORED_NAME
from labelstore.sealed_parquet import count_sealed_rows
from labelstore.store import Store, exists, open_writable_store
from labelstore.verify import VerifyReport, verify_dataset

__all__ = ["RepairReport", "repair_dataset"]


@dataclass(slots=True, kw_only=True)
class RepairReport:
    """What was done, and what is left."""

    restored: list[str] = field(default_factory=list)  # files written again from the manifest
    withdrawn: list[str] = field(default_factory=list)  # blocks to be made again
    kept_aside: list[str] = field(default_factory=list)  # files moved to .labelgen/orphans/
    left: VerifyReport = field(default_factory=VerifyReport)


def repair_dataset(location: str | Path) -> RepairReport:
    """Repair what can be repaired of a dataset in a folder or behind a URL; a sound one is left as it is.

    Raises:
        NotADatasetError: the folder holds no dataset that a job works on: a copy is mended by copying it again.
        DamagedDatasetError: header and manifest are both damaged.
    """
    return _Repair(open_writable_store(location)).run()


class _Repair:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._report = RepairReport()

    def run(self) -> RepairReport:
        if ".labelgen" not in self._store.top_names():
            raise NotADatasetError(
                f"{self._store}: holds no dataset that a job works on; a copy is mended by copying it again"
            )
        manifest = self._intact_manifest()
        header = self._restore_header(manifest)
        self._mend_entries(header, manifest)
        found = verify_dataset(self._store.location)
        damaged = {finding.block for finding in found.findings if finding.block is not None}
        for block, entry in read_entries(self._store).items():
            if block in damaged and self._can_be_made_again(block):
                self._withdraw(block, entry.generation)
        # Files that a job writes again, or does without.
        for name in {finding.file for finding in found.findings} & {RESCORED_NAME, SOURCES_NAME}:
            if self._has(name):
                self._keep_aside(name)
        self._mend_rejects()
        self._tidy_data()
        self._report.left = found
        if not found.is_sound or self._report.restored or self._report.withdrawn or self._report.kept_aside:
            finish_dataset(self._store.location)
            self._report.left = verify_dataset(self._store.location)
        return self._report

    def _intact_manifest(self) -> Manifest | None:
        try:
            return read_manifest(self._store)
        except DamagedDatasetError:
            self._keep_aside(MANIFEST_NAME)  # it is made again at the end
            return None

    def _restore_header(self, manifest: Manifest | None) -> Header:
        origin = f"{self._store}/{HEADER_NAME}"
        try:
            return Header.from_bytes(self._store.read(HEADER_NAME), origin=origin)
        except (FileNotFoundError, DamagedDatasetError) as error:
            if manifest is None:
                raise DamagedDatasetError(
                    f"{origin}: is damaged or missing, and so is {MANIFEST_NAME}: nothing says where these labels come "
                    f"from. Restore one of the two"
                ) from error
        self._store.replace(HEADER_NAME, manifest.header.to_bytes())
        self._report.restored.append(HEADER_NAME)
        return manifest.header

    def _mend_entries(self, header: Header, manifest: Manifest | None) -> None:
        """Write damaged and missing entries again from the manifest; withdraw those that it has not."""
        known = (
            {}
            if manifest is None or manifest.header.fingerprint != header.fingerprint
            else {entry.name: entry for entry in manifest.entries}
        )
        present = set(self._store.names(ENTRIES_DIR))
        for name in sorted(present):
            parsed = parse_entry_name(name)
            if parsed is None:
                self._keep_aside(name)
                continue
            block, generation, is_withdrawal = parsed
            if is_withdrawal or withdrawal_name(block, generation) in present:
                continue
            try:
                is_right = read_entry(self._store, name).fingerprint == header.fingerprint
            except DamagedDatasetError:
                is_right = False
            if not is_right and name in known:
                self._restore(known[name])
            elif not is_right:
                self._withdraw(block, generation)
        for name, entry in known.items():
            if name not in present and withdrawal_name(entry.block, entry.generation) not in present:
                self._restore(entry)

    def _restore(self, entry: Entry) -> None:
        self._store.replace(entry.name, entry.to_bytes())
        self._report.restored.append(entry.name)

    def _mend_rejects(self) -> None:
        """Keep the damaged files of the log aside, and write again what can be read of them."""
        for name, _ in list(find_reject_damage(self._store)):
            lines = [line for line in self._store.read(name).split(b"\n") if is_reject(line)]
            self._keep_aside(name)
            if lines:
                put_rejects(self._store, lines)

    def _can_be_made_again(self, block: str) -> bool:
        """Return whether the prompts of a block are there, or the dataset was converted from another."""
        if self._has(CONVERSION_NAME):
            return True
        try:
            return count_sealed_rows(self._store, prompts_name(block)) > 0
        except DamagedDatasetError:
            return False

    def _withdraw(self, block: str, generation: int) -> None:
        self._store.put_new(withdrawal_name(block, generation), b"")
        self._report.withdrawn.append(block)

    def _tidy_data(self) -> None:
        """Move aside the files of withdrawn blocks, and what is no shard of any block in force."""
        entries = read_entries(self._store)
        listed = {shard.name for entry in entries.values() for shard in entry.shards}
        for name in self._store.names("data"):
            block = name.rsplit("/", 1)[-1].split("-", 1)[0]
            if name not in listed and (block in self._report.withdrawn or block in entries or not block.isdigit()):
                self._keep_aside(name)

    def _has(self, name: str) -> bool:
        return exists(self._store, name)

    def _keep_aside(self, name: str) -> None:
        base = f"{ORPHANS_DIR}/{name.rsplit('/', 1)[-1]}"
        free = (base if number == 0 else f"{base}.{number}" for number in itertools.count())
        self._store.move(name, next(target for target in free if not self._has(target)))
        self._report.kept_aside.append(name)
