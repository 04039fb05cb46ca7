"""The system calls by which a dataset's local files are written: the one place where writing can fail.

Whatever goes wrong below is an OSError of the operating system; nothing here hides one.
"""

from __future__ import annotations

import errno
import io
import itertools
import os
from pathlib import Path

__all__ = ["LocalFile", "have_no_links", "link", "make_folders", "remove", "rename", "sync_folder"]


class LocalFile(io.FileIO):
    """A file that is being written, without a buffer: a failed write is known at once, and not when it is closed."""

    def write(self, content: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Write all of it; return how many bytes that is."""
        left = memoryview(content).cast("B")
        size = left.nbytes
        while left.nbytes:
            left = left[os.write(self.fileno(), left) :]
        return size

    def sync(self) -> None:
        """Return when the bytes are on disk."""
        os.fsync(self.fileno())  # or a power cut can keep the name and lose the bytes


def link(path: Path, new_path: Path) -> bool:
    """Give a file a second name, and sync it; False if the name is taken. OSError where names cannot be shared."""
    try:
        os.link(path, new_path)  # unlike O_EXCL and a write, the name never stands for half a file
    except FileExistsError:
        return False
    sync_folder(new_path.parent)
    return True


def have_no_links(error: OSError) -> bool:
    """Return whether an error of `link` means that the file system has no hard links, or no more of them."""
    return error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def rename(path: Path, new_path: Path) -> None:
    """Move a file, over one of the new name; sync both folders."""
    os.rename(path, new_path)  # noqa: PTH104  (through this module's `os`)
    sync_folder(new_path.parent)
    if path.parent != new_path.parent:
        sync_folder(path.parent)


def remove(path: Path) -> None:
    """Delete a file; nothing happens where there is none."""
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, each synced, where they are missing."""
    missing = list(itertools.takewhile(lambda above: not above.exists(), (folder, *folder.parents)))
    for above in reversed(missing):
        try:
            os.mkdir(above)  # noqa: PTH102
        except FileExistsError:  # another job was faster
            continue
        sync_folder(above.parent)


def sync_folder(folder: Path) -> None:
    """Return when a folder's names are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # or a power cut can lose the name
    finally:
        os.close(descriptor)
