"""The one seam between a dataset and the place its files are in: a few operations on names inside a dataset.

A name is a path below the dataset's folder, with forward slashes: "data/000000-0-1a2b3c4d.parquet".
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import fsspec

from labelstore.errors import DamagedDatasetError, NotADatasetError

__all__ = ["LocalStore", "ReadableStore", "RemoteStore", "Store", "open_store", "read_pieces", "read_range"]

_TEMPORARY = ".labelgen/tmp"
_STALE_SECONDS = 24 * 3600
_PIECE_BYTES = 1 << 24


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
            return _link_exclusively(scratch_path, self._made_parent(name))

    def replace(self, name: str, content: bytes) -> None:
        path = self._made_parent(name)
        with self._scratch(content) as scratch_path:
            scratch_path.rename(path)
            _sync_folder(path.parent)

    def move(self, name: str, new_name: str) -> None:
        path = self._made_parent(new_name)
        (self.root / name).rename(path)
        _sync_folder(path.parent)
        _sync_folder((self.root / name).parent)

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

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
            with scratch_path.open("rb+" if isinstance(content, Path) else "wb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                    file.flush()
                os.fsync(file.fileno())  # or a power cut can keep the name and lose the bytes
            yield scratch_path
        finally:
            scratch_path.unlink(missing_ok=True)

    def _made_parent(self, name: str) -> Path:
        path = self.root / name
        missing = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            _sync_folder(folder.parent)
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
        self._fs, self._root = fsspec.core.url_to_fs(url)

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


def _link_exclusively(scratch_path: Path, path: Path) -> bool:
    """Give a finished file its final name; False if the name is taken."""
    try:
        os.link(scratch_path, path)  # unlike O_EXCL and a write, the name never stands for half a file
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        return _copy_exclusively(scratch_path, path)  # a file system without hard links
    _sync_folder(path.parent)
    return True


def _copy_exclusively(scratch_path: Path, path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        with scratch_path.open("rb") as source, os.fdopen(descriptor, "wb") as target:
            while data := source.read(1 << 20):
                target.write(data)
            target.flush()
            os.fsync(target.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # or a power cut can lose the name
    finally:
        os.close(descriptor)
