"""A dataset in a folder of this machine or of a network disk."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from labelstore.errors import DamagedDatasetError, NotADatasetError
from labelstore.file_names import is_inside
from labelstore.local_files import LocalFile, have_no_links, link, make_folders, remove, rename

__all__ = ["LocalStore"]

_TEMPORARY = ".labelgen/tmp"
_STALE_SECONDS = 24 * 3600
_CLAIM_SECONDS = 10  # a claim that is older was left by a writer that died; giving a name takes milliseconds


class LocalStore:
    """The files of a folder; a `Store`. Names and links that lead out of the folder are refused."""

    def __init__(self, root: Path) -> None:
        self.location = root
        self.local_dir = root
        self._inside: set[str] = set()  # names that were looked at

    def __str__(self) -> str:
        return str(self.location)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        with self._path(name).open("rb") as file:
            file.seek(start)
            return file.read() if stop is None else file.read(stop - start)

    def size(self, name: str) -> int:
        return self._path(name).stat().st_size

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(f"{folder}/{path.name}" for path in self._path(folder).iterdir() if path.is_file())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def top_names(self) -> list[str]:
        try:
            return sorted(path.name for path in self.location.iterdir())
        except (FileNotFoundError, NotADirectoryError) as error:
            if self.location.exists():
                raise NotADatasetError(f"{self}: is a file; give -o a folder") from error
            return []

    def make_ready(self) -> None:
        try:
            make_folders(self.location)
        except OSError as error:
            raise NotADatasetError(
                f"{self}: the folder cannot be made ({error.strerror}); give -o one that can be written to"
            ) from error

    def put_new(self, name: str, content: bytes | Path) -> bool:
        with self._scratch(content) as scratch_path:
            path = self._made_parent(name)
            try:
                return link(scratch_path, path)
            except OSError as error:
                if not have_no_links(error):
                    raise
            return _rename_claimed(scratch_path, path, self.location / f"{_TEMPORARY}/{name.replace('/', '_')}.claim")

    def replace(self, name: str, content: bytes) -> None:
        with self._scratch(content) as scratch_path:
            rename(scratch_path, self._made_parent(name))

    def jot(self, name: str, content: bytes) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch_path = path.with_suffix(".tmp")
        scratch_path.write_bytes(content)
        scratch_path.replace(path)

    def move(self, name: str, new_name: str) -> None:
        rename(self._path(name), self._made_parent(new_name))

    def delete(self, name: str) -> None:
        remove(self._path(name))

    def scratch_path(self) -> Path:
        return self._made_parent(f"{_TEMPORARY}/{uuid.uuid4().hex}")

    def remove_stale_scratch(self) -> int:
        oldest = time.time() - _STALE_SECONDS
        stale = [name for name in self.names(_TEMPORARY) if (self.location / name).stat().st_mtime < oldest]
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

    def _path(self, name: str) -> Path:
        """Return the path of a name inside the folder.

        Raises:
            DamagedDatasetError: the name, or a link, leads out of it; or it is no file and no folder.
        """
        path = self.location / name
        if name not in self._inside:
            if not is_inside(name):
                raise DamagedDatasetError(f"{self}: a name in it leads out of its folder: {name!r}")
            if path.is_symlink() or path.parent.is_symlink() or path.parent.parent.is_symlink():
                _check_link(path, self.location)
            if path.exists():
                if not path.is_file() and not path.is_dir():
                    raise DamagedDatasetError(f"{path}: is neither a file nor a folder; delete it")
                self._inside.add(name)
        return path

    def _made_parent(self, name: str) -> Path:
        path = self._path(name)
        make_folders(path.parent)
        return path


def _check_link(path: Path, root: Path) -> None:
    """Refuse a path that leads out of a folder.

    Raises:
        DamagedDatasetError: it does.
    """
    home = root.resolve()
    if home.parent.name == "snapshots":  # a hub's cache: the files of all snapshots are in blobs/ beside them
        home = home.parent.parent
    if not path.resolve().is_relative_to(home):
        raise DamagedDatasetError(
            f"{path}: is a link out of the dataset's folder, to {path.resolve()}. Put the files themselves there; a "
            f"dataset as a whole may stand behind a link"
        )


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
