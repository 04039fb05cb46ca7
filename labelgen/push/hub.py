"""A dataset repository of a hub, by huggingface_hub: upload, what is there, and patience with a bad line."""

from __future__ import annotations

import glob
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from labelgen.push.files import SharedFile

__all__ = ["HubRepo", "PushError", "RemoteFile", "find_differences"]

_ATTEMPTS = 6
_FIRST_WAIT_SECONDS = 5.0  # doubled each time; huggingface_hub has then tried most requests six times by itself
_TRANSIENT = {408, 409, 412, 425, 429, 500, 502, 503, 504}
_Result = TypeVar("_Result")


class PushError(Exception):
    """A dataset was not shared; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the hub knows it."""

    num_bytes: int
    sha256: str | None  # None: a small file, known by git_oid
    git_oid: str


class HubRepo:
    """One dataset repository."""

    def __init__(self, name: str, *, note: Callable[[str], None]) -> None:
        """Take the name of a repository, OWNER/NAME.

        Raises:
            PushError: huggingface_hub is not installed.
            ValueError: it is no such name.
        """
        if not re.fullmatch(r"[\w.\-]+/[\w.\-]+", name):
            raise ValueError(f"{name}: is no repository of a hub; give it as OWNER/NAME")
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise PushError("labelgen push needs huggingface_hub: pip install 'labelgen[hub]'") from error
        self.name = name
        self._api: Any = HfApi(library_name="labelgen")
        self._note = note

    @property
    def url(self) -> str:
        return f"{self._api.endpoint}/datasets/{self.name}"

    def token(self) -> str | None:
        """Return the user's token, wherever huggingface_hub finds it."""
        from huggingface_hub import get_token

        token: str | None = get_token()
        return token

    def create(self, *, is_public: bool) -> None:
        """Make the repository, if it is not there; one that is there stays as visible as it is."""
        self._patiently(
            "making the repository",
            lambda: self._api.create_repo(self.name, repo_type="dataset", private=not is_public, exist_ok=True),
        )

    def upload(self, folder: Path, names: Sequence[str], *, message: str, delete: Sequence[str] = ()) -> str:
        """Upload files by huggingface_hub's own folder upload, which goes on where it stopped; return the commit."""
        commit = self._patiently(
            "uploading",
            lambda: self._api.upload_folder(
                repo_id=self.name,
                repo_type="dataset",
                folder_path=folder,
                allow_patterns=[glob.escape(name) for name in names],
                delete_patterns=[glob.escape(name) for name in delete] or None,
                commit_message=message,
            ),
        )
        return str(commit.oid)

    def files(self, *, revision: str | None = None) -> Mapping[str, RemoteFile]:
        """Return all files of a commit by name; of the newest one, if none is named."""
        from huggingface_hub.hf_api import RepoFile

        def listed() -> dict[str, RemoteFile]:
            tree = self._api.list_repo_tree(self.name, repo_type="dataset", recursive=True, revision=revision)
            return {
                item.path: RemoteFile(item.size, None if item.lfs is None else item.lfs.sha256, item.blob_id)
                for item in tree
                if isinstance(item, RepoFile)
            }

        return self._patiently("listing the repository", listed)

    def read(self, name: str) -> bytes:
        """Return a small file's content."""
        from huggingface_hub import HfFileSystem

        def content() -> bytes:
            fs = HfFileSystem(endpoint=self._api.endpoint, skip_instance_cache=True)
            data: bytes = fs.cat_file(f"datasets/{self.name}/{name}")
            return data

        return self._patiently(f"reading {name}", content)

    def _patiently(self, doing: str, call: Callable[[], _Result]) -> _Result:
        """Call again after what may pass: limits of rate, errors of the server, cut connections.

        Raises:
            PushError: it does not pass, or is of another kind.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return call()
            except Exception as error:
                cause = _cause_of(error)
                status = getattr(getattr(cause, "response", None), "status_code", None)
                if status is None and not isinstance(cause, ValueError) and not _is_of_the_line(cause):
                    raise
                may_pass = _is_of_the_line(cause) if status is None else status in _TRANSIENT
                if attempt == _ATTEMPTS or not may_pass:
                    raise PushError(_explained(doing, cause, status, repo=self.name)) from error
                wait = _FIRST_WAIT_SECONDS * 2 ** (attempt - 1)
                self._note(f"{doing}: {_short(cause)}; trying again in {wait:.0f} s ({attempt} of {_ATTEMPTS - 1})")
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")


def find_differences(files: Sequence[SharedFile], remote: Mapping[str, RemoteFile]) -> list[str]:
    """Return in what files at the other end are not those that were sent."""
    problems = []
    for file in files:
        there = remote.get(file.name)
        if there is None:
            problems.append(f"{file.name}: is missing")
        elif there.num_bytes != file.num_bytes:
            problems.append(f"{file.name}: has {there.num_bytes:,} bytes, wanted {file.num_bytes:,}")
        elif there.sha256 is not None and there.sha256 != file.sha256:
            problems.append(f"{file.name}: has the sha256 {there.sha256}, wanted {file.sha256}")
        elif there.sha256 is None and there.git_oid != file.git_oid:
            problems.append(f"{file.name}: has the git hash {there.git_oid}, wanted {file.git_oid}")
    return problems


def _cause_of(error: BaseException) -> BaseException:
    """Return what an upload that failed in a thread failed of."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _is_of_the_line(cause: BaseException) -> bool:
    """Return whether an error is a cut connection, a timeout or an unresolved name: of httpx, or of the system."""
    return type(cause).__module__.startswith(("httpx", "httpcore")) or isinstance(cause, ConnectionError | TimeoutError)


def _explained(doing: str, cause: BaseException, status: int | None, *, repo: str) -> str:
    hints = {
        401: "Log in with 'hf auth login', or set HF_TOKEN to a token that may write.",
        403: f"The token may not write to {repo}: give it write access, or push under a name of yours.",
        404: f"There is no such repository, or the token may not see it: is {repo} spelled right?",
    }
    hint = hints.get(status or 0, "What arrived is kept: the same command goes on from there.")
    return f"{doing} {repo}: {_short(cause)}. {hint}"


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:300]}" if lines else type(error).__name__
