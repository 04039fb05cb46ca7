"""The one seam between a dataset and the place its files are in: a few operations on names inside a dataset.

A name is a path below the dataset's folder, with forward slashes: "data/000000-0-1a2b3c4d.parquet".
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import fsspec

from labelstore.errors import DamagedDatasetError, NotADatasetError
from labelstore.local_files import LocalFile, have_no_links, link, make_folders, remove, rename

__all__ = ["LocalStore", "ReadableStore", "RemoteStore", "Store", "open_store", "read_pieces", "read_range"]

_TEMPORARY = ".labelgen/tmp"
_STALE_SECONDS = 24 * 3600
_PIECE_BYTES = 1 << 24
_HUB_READAHEAD_BYTES = 1 << 12  # a hub's file system reads so much behind each range; 5 MiB if it is not told
_CLAIM_SECONDS = 10  # a claim that is older was left by a writer that died; giving a name takes milliseconds


class ReadableStore(Protocol):
    """What reading a dataset needs."""

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return a file's bytes [start, stop); FileNotFoundError if there is no such file."""

    def size(self, name: str) -> int:
        """Return a file's size in bytes; FileNotFoundError if there is no such file."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the files right below a folder, sorted; none if there is no such folder."""


class Store(ReadableStore, Protocol):
    """What writing a dataset needs besides. Whatever is put is on disk when the call returns."""

    def put_new(self, name: str, content: bytes | Path) -> bool:
        """Create a file as a whole, never half; False, with nothing changed, if the name is taken.

        A Path is a file from `scratch_path`; it is moved.
        """

    def replace(self, name: str, content: bytes) -> None:
        """Create or replace a file as a whole, never half."""

    def move(self, name: str, new_name: str) -> None: ...
    def delete(self, name: str) -> None: ...
    def scratch_path(self) -> Path:
        """Return the path of a new local file that a shard can be written to before it is put."""


class LocalStore:
    """A dataset in a folder of this machine or of a network disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        with (self.root / name).open("rb") as file:
            file.seek(start)
            return file.read() if stop is None else file.read(stop - start)

    def size(self, name: str) -> int:
        return (self.root / name).stat().st_size

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(f"{folder}/{path.name}" for path in (self.root / folder).iterdir() if path.is_file())
        except FileNotFoundError:
            return []

    def put_new(self, name: str, content: bytes | Path) -> bool:
        with self._scratch(content) as scratch_path:
            path = self._made_parent(name)
            try:
                return link(scratch_path, path)
            except OSError as error:
                if not have_no_links(error):
                    raise
            return _rename_claimed(scratch_path, path, self.root / f"{_TEMPORARY}/{name.replace('/', '_')}.claim")

    def replace(self, name: str, content: bytes) -> None:
        with self._scratch(content) as scratch_path:
            rename(scratch_path, self._made_parent(name))

    def append(self, name: str, line: bytes) -> None:
        """Add a line to a file, which is made if it is missing. A crash can leave a part of the line behind."""
        with LocalFile(self._made_parent(name), "ab") as file:
            file.write(line)
            file.sync()

    def move(self, name: str, new_name: str) -> None:
        rename(self.root / name, self._made_parent(new_name))

    def delete(self, name: str) -> None:
        remove(self.root / name)

    def scratch_path(self) -> Path:
        return self._made_parent(f"{_TEMPORARY}/{uuid.uuid4().hex}")

    def remove_stale_scratch(self) -> int:
        """Delete what writers of more than a day ago left behind when they were killed; return how many files."""
        oldest = time.time() - _STALE_SECONDS
        stale = [name for name in self.names(_TEMPORARY) if (self.root / name).stat().st_mtime < oldest]
        for name in stale:
            self.delete(name)
        return len(stale)

    @contextlib.contextmanager
    def _scratch(self, content: bytes | Path) -> Iterator[Path]:
        """Give a synced file of this content under a temporary name, which is gone afterwards."""
        scratch_path = content if isinstance(content, Path) else self.scratch_path()
        try:
            with LocalFile(scratch_path, "rb+" if isinstance(content, Path) else "wb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                file.sync()
            yield scratch_path
        finally:
            remove(scratch_path)

    def _made_parent(self, name: str) -> Path:
        path = self.root / name
        make_folders(path.parent)
        return path


class RemoteStore:
    """A finished dataset behind any fsspec URL; for reading."""

    def __init__(self, url: str) -> None:
        """Open a URL such as s3://bucket/my-labels.

        Raises:
            ImportError: fsspec needs a library for this kind of URL, and names it.
            ValueError: fsspec does not know this kind of URL.
        """
        self._url = url
        options = {"block_size": _HUB_READAHEAD_BYTES} if url.startswith("hf://") else {}
        self._fs, self._root = fsspec.core.url_to_fs(url, **options)

    def __str__(self) -> str:
        return self._url

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        content: bytes = self._fs.cat_file(f"{self._root}/{name}", start=start, end=stop)
        return content

    def size(self, name: str) -> int:
        size: int = self._fs.size(f"{self._root}/{name}")
        return size

    def names(self, folder: str) -> list[str]:
        try:
            found = self._fs.ls(f"{self._root}/{folder}", detail=True)
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{file['name'].rsplit('/', 1)[-1]}" for file in found if file["type"] == "file")


def open_store(location: str | Path) -> ReadableStore:
    """Return the store of a folder or an fsspec URL.

    Raises:
        NotADatasetError: there is no such folder.
    """
    if "://" in str(location):
        return RemoteStore(str(location).rstrip("/"))
    if not Path(location).is_dir():
        raise NotADatasetError(f"{location}: no such folder; give the folder that 'labelgen generate -o' wrote")
    return LocalStore(Path(location))


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


def _rename_claimed(scratch_path: Path, path: Path, claim_path: Path) -> bool:
    """Give a finished file its final name where there are no hard links; False if the name is taken.

    Whoever makes the claim, an empty file beside, renames: the name never stands for half a file.
    """
    while not path.exists():
        try:
            LocalFile(claim_path, "xb").close()
        except FileExistsError:
            _wait_for_claim(claim_path)
            continue
        try:
            if path.exists():  # given between the look and the claim
                return False
            rename(scratch_path, path)
            return True
        finally:
            remove(claim_path)
    return False


def _wait_for_claim(claim_path: Path) -> None:
    """Give another writer time to name its file; take its claim away if it never did."""
    try:
        age = time.time() - claim_path.stat().st_mtime
    except FileNotFoundError:
        return
    if age > _CLAIM_SECONDS:
        remove(claim_path)
    else:
        time.sleep(0.01)
