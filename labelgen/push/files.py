"""The files of a dataset that are shared, each read once: hashed, and searched for secrets."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labelgen.push.secrets import MAX_SECRET_BYTES, OwnSecret, find_own_secrets, find_secret_patterns
from labelstore.card import CARD_DIR
from labelstore.dataset import LabelDataset
from labelstore.errors import DamagedDatasetError
from labelstore.local_store import LocalStore
from labelstore.manifest import MANIFEST_NAME
from labelstore.readme import README_NAME
from labelstore.store import read_pieces

__all__ = ["SharedFile", "find_secrets_in_texts", "read_shared_files", "shared_names"]

_LOOKED_AT_BYTES = 1 << 16  # to know whether a file is text
_TEXT_COLUMNS = ("prompt_id", "prompt", "messages", "text", "kept")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFile:
    """A file as it must stand at the other end."""

    name: str
    num_bytes: int
    sha256: str  # of the content: what large files are known by
    git_oid: str  # sha1 of git's blob: what small files are known by


def shared_names(root: Path, dataset: LabelDataset, *, include: Sequence[str]) -> list[str]:
    """Return the names of what is shared: README, pictures, manifest, the shards in force, and what `include` matches.

    Raises:
        ValueError: a pattern matches nothing, or leads out of the folder.
    """
    names = [README_NAME, MANIFEST_NAME, *LocalStore(root).names(CARD_DIR)]
    names += [shard.name for entry in dataset.entries for shard in entry.shards]
    for pattern in include:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise ValueError(f"--include {pattern}: must stay below the dataset's folder")
        found = sorted(path for path in root.glob(pattern) if path.is_file())
        if not found:
            raise ValueError(f"--include {pattern}: matches no file in {root}")
        names += [path.relative_to(root).as_posix() for path in found]
    return list(dict.fromkeys(names))


def read_shared_files(
    root: Path, dataset: LabelDataset, names: Sequence[str], secrets: list[OwnSecret]
) -> tuple[list[SharedFile], list[str]]:
    """Read each file; return them, and where secrets stand.

    Raises:
        DamagedDatasetError: a shard is not the one that was published.
    """
    shards = {shard.name: shard for entry in dataset.entries for shard in entry.shards}
    files, findings = [], []
    for name in names:
        file, found = _read(root, name, secrets)
        if name in shards and (file.num_bytes, file.sha256) != (shards[name].num_bytes, shards[name].sha256):
            raise DamagedDatasetError(
                f"{root}/{name}: is not the file that was published; see 'labelgen verify --repair'"
            )
        files.append(file)
        findings += [f"{name}: {what}" for what in found]
    return files, findings


def find_secrets_in_texts(
    dataset: LabelDataset, secrets: list[OwnSecret], *, on_records: Callable[[int], None]
) -> Iterator[str]:
    """Yield where the user's own secrets stand in the records' texts, which are compressed in the shards."""
    starts = dataset.row_group_starts.tolist()
    for place, first in enumerate(starts[:-1]):
        columns = dataset.read_hard_columns(place, _TEXT_COLUMNS)
        for row, record in enumerate(columns.to_pylist()):
            content = "\n".join(_texts(record)).encode()
            yield from (f"record {first + row}: {what}" for what in find_own_secrets(content, secrets))
        on_records(starts[place + 1])


def _texts(value: object) -> Iterator[str]:
    """Yield all strings in a nested value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _read(root: Path, name: str, secrets: list[OwnSecret]) -> tuple[SharedFile, list[str]]:
    store = LocalStore(root)
    size = store.size(name)
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    found: list[str] = []
    before = b""
    for piece in read_pieces(store, name, size):
        sha256.update(piece)
        git.update(piece)
        found += find_own_secrets(before + piece, secrets)
        before = piece[-MAX_SECRET_BYTES:]  # a secret may stand across two pieces
    if _is_text(store.read(name, 0, _LOOKED_AT_BYTES)):
        found += find_secret_patterns(store.read(name))
    file = SharedFile(name=name, num_bytes=size, sha256=sha256.hexdigest(), git_oid=git.hexdigest())
    return file, list(dict.fromkeys(found))


def _is_text(beginning: bytes) -> bool:
    """Return whether a file that begins like this is text, in UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning)  # may end within a character
    except UnicodeDecodeError:
        return False
    return b"\0" not in beginning
