"""A dataset behind a URL: read from anything that fsspec knows, written to stores that create a name only once."""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import os
import random
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from labelstore.errors import DamagedDatasetError, NotADatasetError, UnreachableStoreError
from labelstore.file_names import is_inside
from labelstore.local_files import make_folders, remove

__all__ = ["ObjectStore"]

_T = TypeVar("_T")

# Kinds of URL whose stores create a file exclusively, as a whole and in one step (S3: If-None-Match).
_EXCLUSIVE = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
_CONNECT_SECONDS = 10
# s3fs holds so many parts of 50 MB in memory at once. Of retries there is one set, ours: see _try.
_S3_OPTIONS = {
    "max_concurrency": 2,
    "config_kwargs": {"connect_timeout": _CONNECT_SECONDS, "retries": {"max_attempts": 1}},
}
# A hub's file system reads so much behind each range; 5 MiB if it is not told.
_HUB_OPTIONS = {"block_size": 1 << 12}
_OPTIONS: dict[str, dict[str, Any]] = {"s3": _S3_OPTIONS, "s3a": _S3_OPTIONS, "hf": _HUB_OPTIONS}

_FIRST_PAUSE_SECONDS = 0.1  # the longest of the first pauses; each may be twice as long as the one before
_LONGEST_PAUSE_SECONDS = 20.0
# A store that has answered is waited for through an outage; one that never did is more likely a wrong address.
_PATIENCE_SECONDS = 600.0
_FIRST_PATIENCE_SECONDS = 20.0
_STALE_SECONDS = 24 * 3600

_FINAL_ERRNOS = {errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.EISDIR, errno.ENOTDIR, getattr(errno, "EREMCHG", 78)}
_CLIENT_LIBRARIES = {
    *("botocore", "aiobotocore", "gcsfs", "google", "azure", "huggingface_hub"),
    *("aiohttp", "httpx", "httpcore", "httpx2", "httpcore2", "http", "asyncio"),
}


class ObjectStore:
    """The files below a URL; a `Store`. Requests that fail for the moment are made again, after random pauses."""

    def __init__(self, url: str) -> None:
        """Name a place such as s3://bucket/my-labels; nothing is asked yet.

        Raises:
            ImportError: fsspec needs a library for this kind of URL, and names it.
            ValueError: fsspec does not know this kind of URL.
        """
        self.location = url
        self._protocol = url.partition("://")[0]
        self._opened: tuple[int, Any, str] | None = None
        self._has_answered = False
        self._open()

    def __str__(self) -> str:
        return self.location

    @property
    def local_dir(self) -> Path:
        cache_dir = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = f"{self.location.rsplit('/', 1)[-1]}-{hashlib.sha256(self.location.encode()).hexdigest()[:8]}"
        return cache_dir / "labelgen" / "stores" / name

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        if stop is not None and stop <= start:
            self.size(name)
            return b""

        def get(fs: Any, path: str) -> bytes:
            try:
                content: bytes = fs.cat_file(path, start=start, end=stop)
            except OSError as error:
                if error.errno != errno.EINVAL or fs.info(path)["size"] > start:
                    raise
                return b""  # there is no such range
            return content

        return self._try("read", name, get)

    def size(self, name: str) -> int:
        info = self._try("read", name, lambda fs, path: fs.info(path))
        if info["type"] != "file":
            raise FileNotFoundError(errno.ENOENT, "no such file", f"{self}/{name}")
        return int(info["size"])

    def names(self, folder: str) -> list[str]:
        return [f"{folder}/{name}" for name, kind in self._listing(folder) if kind == "file"]

    def top_names(self) -> list[str]:
        return [name for name, _ in self._listing("")]

    def make_ready(self) -> None:
        """See that a file can be created, only once, read and deleted.

        Raises:
            NotADatasetError: it cannot.
        """
        if self._protocol not in _EXCLUSIVE:
            raise NotADatasetError(f"{self}: datasets are not written to {self._protocol}:// {_INSTEAD}")
        name, content = f".labelgen/tmp/{uuid.uuid4().hex}", uuid.uuid4().bytes
        try:
            is_new = self.put_new(name, content)
            is_new_again = self.put_new(name, b"again")
            is_kept = self.read(name) == content
            self.delete(name)
        except (OSError, UnreachableStoreError) as error:
            raise NotADatasetError(f"{self}: cannot be written to: {error}") from error
        if not is_new or is_new_again or not is_kept:
            raise NotADatasetError(
                f"{self}: this store overwrites a file that was to be created only if it is missing (If-None-Match), "
                f"so that two jobs could publish one block {_INSTEAD}"
            )

    def put_new(self, name: str, content: bytes | Path) -> bool:
        """Create a file as a whole; False if the name is taken, unless it holds this very content.

        It does so where the answer to this call's own request was lost, and the request was made again.
        """

        def create(fs: Any, path: str) -> None:
            if isinstance(content, bytes):
                fs.pipe_file(path, content, mode="create")
            else:
                fs.put_file(str(content), path, mode="create")

        try:
            self._try("write", name, create)
        except FileExistsError:
            if isinstance(content, bytes):
                return self.read(name) == content
            return self.size(name) == content.stat().st_size  # its name has its hash
        finally:
            if isinstance(content, Path):
                remove(content)
        return True

    def replace(self, name: str, content: bytes) -> None:
        self._try("write", name, lambda fs, path: fs.pipe_file(path, content))

    def jot(self, name: str, content: bytes) -> None:
        self._try("write", name, lambda fs, path: fs.pipe_file(path, content), patience_seconds=0.0)

    def move(self, name: str, new_name: str) -> None:
        self._try("copy", name, lambda fs, path: fs.cp_file(path, f"{self._root}/{new_name}"))
        self.delete(name)

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._try("delete", name, lambda fs, path: fs.rm_file(path))

    def scratch_path(self) -> Path:
        folder = self.local_dir / "tmp"
        make_folders(folder)
        return folder / uuid.uuid4().hex

    def remove_stale_scratch(self) -> int:
        """Delete what killed writers left: local files, and uploads in parts that were never completed."""
        oldest = time.time() - _STALE_SECONDS
        folder = self.local_dir / "tmp"
        stale = [path for path in folder.iterdir() if path.stat().st_mtime < oldest] if folder.is_dir() else []
        for path in stale:
            remove(path)
        num_uploads = 0
        if hasattr(self._fs, "list_multipart_uploads"):
            with contextlib.suppress(PermissionError, UnreachableStoreError):  # they cost money, and no label
                num_uploads = self._try("tidy", "data/", lambda fs, path: _abort_uploads(fs, path, oldest))
        return len(stale) + num_uploads

    @property
    def _fs(self) -> Any:
        return self._open()[1]

    @property
    def _root(self) -> str:
        return self._open()[2]

    def _open(self) -> tuple[int, Any, str]:
        """Return the process it was opened in, the file system and the path there; opened again after a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            # A listing that is kept would hide what other jobs write.
            fs, root = fsspec.core.url_to_fs(
                self.location, use_listings_cache=False, **_OPTIONS.get(self._protocol, {})
            )
            self._opened = (os.getpid(), fs, root.rstrip("/"))
        return self._opened

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}

    def _listing(self, folder: str) -> list[tuple[str, str]]:
        """Return name and kind (file, directory) of what is right below a folder, sorted."""
        where = f"{self._root}/{folder}".rstrip("/")
        try:
            found = self._try("list", folder, lambda fs, _: fs.ls(where, detail=True))
        except FileNotFoundError:
            return []
        paths = ((item["name"].strip("/"), item["type"]) for item in found)
        # Some stores list a folder as a file of its own.
        return sorted((path.rsplit("/", 1)[-1], kind) for path, kind in paths if path != where.strip("/"))

    def _try(self, what: str, name: str, act: Callable[[Any, str], _T], *, patience_seconds: float | None = None) -> _T:
        """Do something with the file system and a path, again and again while it may still work.

        Raises:
            FileNotFoundError, FileExistsError: as the file system says.
            UnreachableStoreError: the store refuses, or does not answer.
        """
        if name and not is_inside(name.rstrip("/")):
            raise DamagedDatasetError(f"{self}: a name in it leads out of it: {name!r}")
        if patience_seconds is None:
            patience_seconds = _PATIENCE_SECONDS if self._has_answered else _FIRST_PATIENCE_SECONDS
        started = time.monotonic()
        pause = _FIRST_PAUSE_SECONDS
        attempts = 0
        while True:
            attempts += 1
            try:
                result = act(self._fs, f"{self._root}/{name}")
            except (FileNotFoundError, FileExistsError):
                self._has_answered = True
                raise
            except Exception as error:
                if _is_refusal(error):
                    raise UnreachableStoreError(
                        f"{self}/{name}: the store refuses to {what} it: {error}. Keys come from the environment, such "
                        f"as AWS_ACCESS_KEY_ID, or from the library's own files; see docs/object-storage.md"
                    ) from error
                if not _may_pass(error):
                    raise
                seconds = time.monotonic() - started
                if seconds >= patience_seconds:
                    raise UnreachableStoreError(
                        f"{self}/{name}: the store did not {what} it in {attempts} attempts over {seconds:.0f} "
                        f"seconds; the last: {type(error).__name__}: {error}. What is complete is kept; run the same "
                        f"command again"
                    ) from error
                time.sleep(random.uniform(0, pause))
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                self._has_answered = True
                return result


_INSTEAD = (
    "by a job. Give -o a local folder and copy it there when the job has finished; the stores that a job can write to "
    "are s3, gs and az"
)


def _is_refusal(error: Exception) -> bool:
    """Return whether the same request would be refused again."""
    if isinstance(error, OSError):
        return isinstance(error, PermissionError) or error.errno in _FINAL_ERRNOS
    return "Credential" in type(error).__name__ or "Token" in type(error).__name__


def _may_pass(error: Exception) -> bool:
    """Return whether an error is of the network or the store, and not of this code."""
    return isinstance(error, OSError | TimeoutError) or type(error).__module__.partition(".")[0] in _CLIENT_LIBRARIES


def _abort_uploads(fs: Any, path: str, oldest: float) -> int:
    """Abort uploads in parts below a path that were begun before a time; return how many."""
    bucket, _, prefix = path.partition("/")
    before = datetime.datetime.fromtimestamp(oldest, datetime.timezone.utc)
    found = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix).get("Uploads", [])
    stale = [upload for upload in found if upload["Initiated"] < before]
    for upload in stale:
        fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    return len(stale)
