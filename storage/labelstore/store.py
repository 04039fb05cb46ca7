"""The one seam between a dataset and the place its files are in: a few operations on names inside a dataset.

A name is a path below the dataset's folder, with forward slashes: "data/000000-0-1a2b3c4d.parquet".
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from labelstore.errors import DamagedDatasetError, NotADatasetError
from labelstore.local_store import LocalStore
from labelstore.location import Location, as_location, is_url
from labelstore.object_store import ObjectStore

__all__ = [
    "ReadableStore",
    "Store",
    "exists",
    "open_store",
    "open_writable_store",
    "read_each",
    "read_if_there",
    "read_pieces",
    "read_range",
    "update",
]

_PIECE_BYTES = 1 << 24
_READS_AT_ONCE = 16


class ReadableStore(Protocol):
    """What reading a dataset needs."""

    @property
    def location(self) -> Location:
        """The folder or URL that was opened."""

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return a file's bytes [start, stop); FileNotFoundError if there is no such file."""

    def size(self, name: str) -> int:
        """Return a file's size in bytes; FileNotFoundError if there is no such file."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the files right below a folder, sorted; none if there is no such folder."""


class Store(ReadableStore, Protocol):
    """What writing a dataset needs besides. Whatever is put is on disk when the call returns."""

    @property
    def local_dir(self) -> Path:
        """A folder of this machine for what is no part of the dataset, such as the engine's log."""

    def top_names(self) -> list[str]:
        """Return the names of the files and folders right below the dataset's folder, sorted; none if it is missing.

        Raises:
            NotADatasetError: there is a file in its place.
        """

    def make_ready(self) -> None:
        """Make the folder, if it is missing, and see that the dataset can be written there.

        Raises:
            NotADatasetError: it cannot.
        """

    def put_new(self, name: str, content: bytes | Path) -> bool:
        """Create a file as a whole, never half; False, with nothing changed, if the name is taken.

        A Path is a file from `scratch_path`; it is moved.
        """

    def replace(self, name: str, content: bytes) -> None:
        """Create or replace a file as a whole, never half."""

    def jot(self, name: str, content: bytes) -> None:
        """Create or replace a file that nothing depends on: it is not tried twice, and a power cut may lose it."""

    def move(self, name: str, new_name: str) -> None: ...
    def delete(self, name: str) -> None:
        """Delete a file; nothing happens where there is none."""

    def scratch_path(self) -> Path:
        """Return the path of a new local file that a shard can be written to before it is put."""

    def remove_stale_scratch(self) -> int:
        """Delete what writers of more than a day ago left behind when they were killed; return how many files."""


def open_store(location: str | Path) -> ReadableStore:
    """Return the store of a folder or an fsspec URL.

    Raises:
        NotADatasetError: there is no such folder.
        ValueError, ImportError: as `open_writable_store`.
    """
    store = open_writable_store(location)
    if isinstance(store.location, Path) and not store.location.is_dir():
        raise NotADatasetError(f"{location}: no such folder; give the folder that 'labelgen generate -o' wrote")
    return store


def open_writable_store(location: str | Path) -> Store:
    """Return the store of a folder, which may be missing, or of a URL; nothing is read or written.

    Raises:
        ValueError: the URL holds a key, or is of a kind that fsspec does not know.
        ImportError: fsspec needs a library for this kind of URL; the message names it.
    """
    where = as_location(location)
    return LocalStore(where) if isinstance(where, Path) else ObjectStore(where)


def exists(store: ReadableStore, name: str) -> bool:
    """Return whether there is a file of this name."""
    try:
        store.size(name)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def read_if_there(store: ReadableStore, name: str) -> bytes | None:
    """Return a file's bytes; None if there is no such file."""
    try:
        return store.read(name)
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_each(store: ReadableStore, names: Iterable[str]) -> Iterator[bytes]:
    """Yield the bytes of files in order; from an object store, 16 at once, as each takes a journey there and back.

    Raises:
        FileNotFoundError: one is missing.
    """
    if not is_url(store.location):
        yield from map(store.read, names)
        return
    with concurrent.futures.ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="labelstore-read") as pool:
        yield from pool.map(store.read, names)


def update(store: Store, name: str, content: bytes) -> None:
    """Replace a file, unless it holds this content already."""
    if read_if_there(store, name) != content:
        store.replace(name, content)


def read_range(store: ReadableStore, name: str, start: int, stop: int) -> bytes:
    """Return exactly the bytes [start, stop) of a file.

    Raises:
        DamagedDatasetError: the file is missing or shorter.
    """
    try:
        content = store.read(name, start, stop)
    except FileNotFoundError as error:
        raise DamagedDatasetError(f"{store}/{name}: the file is missing") from error
    if len(content) != stop - start:
        raise DamagedDatasetError(f"{store}/{name}: ends at byte {start + len(content)}, wanted bytes up to {stop}")
    return content


def read_pieces(store: ReadableStore, name: str, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes of a file in pieces of a bounded size.

    Raises:
        DamagedDatasetError: the file is missing or shorter.
    """
    for start in range(0, size, _PIECE_BYTES):
        yield read_range(store, name, start, min(start + _PIECE_BYTES, size))
