"""The manifest: header and entries of a dataset folded into one file, so that a copy needs nothing of `.labelgen/`.

It can always be made again from the header and the entries. Where an entry is newer, the entry wins.
"""

from __future__ import annotations

from dataclasses import dataclass

from labelstore.entry import ENTRIES_DIR, Entry, read_entries, total_counts
from labelstore.errors import DamagedDatasetError, NotADatasetError
from labelstore.header import HEADER_NAME, Header
from labelstore.rescored import Rescored, intact_rescored
from labelstore.sealed_json import seal, unseal
from labelstore.store import ReadableStore, read_if_there

__all__ = ["MANIFEST_NAME", "Manifest", "read_contents", "read_manifest"]

MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A dataset's header and its entries in force, in the order of blocks."""

    header: Header
    entries: tuple[Entry, ...]
    rescored: Rescored | None = None  # what the last job found when its teacher read records again

    def to_bytes(self) -> bytes:
        totals = total_counts(self.entries)
        return seal(
            {
                "header": self.header.to_json(),
                "num_records": totals.num_records,
                "num_labels": totals.num_labels,
                "entries": [entry.to_json() for entry in self.entries],
                "rescored": None if self.rescored is None else self.rescored.to_json(),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, origin: str) -> Manifest:
        """Return the manifest in a file.

        Raises:
            DamagedDatasetError: the bytes are not a manifest.
            FormatVersionError: it is of another format version.
        """
        content = unseal(data, origin=origin)
        try:
            header, entries, rescored = content["header"], content["entries"], content.get("rescored")
        except KeyError as error:
            raise DamagedDatasetError(f"{origin}: is not a manifest, {error} is missing") from error
        return cls(
            header=Header.from_json(header, origin=origin),
            entries=tuple(Entry.from_json(entry, origin=origin) for entry in entries),
            rescored=None if rescored is None else Rescored.from_json(rescored, origin=origin),
        )


def read_manifest(store: ReadableStore) -> Manifest | None:
    """Return the manifest; None if there is none.

    Raises:
        DamagedDatasetError, FormatVersionError: as `Manifest.from_bytes`.
    """
    if (data := read_if_there(store, MANIFEST_NAME)) is None:
        return None
    return Manifest.from_bytes(data, origin=f"{store}/{MANIFEST_NAME}")


def read_contents(store: ReadableStore) -> Manifest:
    """Return what a dataset holds now: its entries where they are at hand, else its manifest.

    Raises:
        NotADatasetError: there is neither.
        DamagedDatasetError: what is read of them is damaged, or contradicts itself.
    """
    if (data := read_if_there(store, HEADER_NAME)) is None:
        if (manifest := read_manifest(store)) is None:
            raise NotADatasetError(f"{store}: is no label dataset, it has neither {MANIFEST_NAME} nor {HEADER_NAME}")
        return manifest
    header = Header.from_bytes(data, origin=f"{store}/{HEADER_NAME}")
    if not store.names(ENTRIES_DIR) and (manifest := read_manifest(store)) is not None:
        if manifest.header.fingerprint != header.fingerprint:
            raise DamagedDatasetError(f"{store}: {MANIFEST_NAME} and {HEADER_NAME} have different fingerprints")
        return manifest  # a copy that took the header along, but not the entries
    entries = read_entries(store)
    for block, entry in entries.items():
        if entry.fingerprint != header.fingerprint:
            raise DamagedDatasetError(f"{store}: block {block} has another fingerprint than {HEADER_NAME}")
    return Manifest(header=header, entries=tuple(entries.values()), rescored=intact_rescored(store))
