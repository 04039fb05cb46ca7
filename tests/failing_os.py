"""The fake file layer: a dataset's writes, of which one fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

__all__ = ["FailingOs", "failing_writes"]

_WRITING = ("fsync", "link", "mkdir", "rename", "unlink", "write")  # every write of a dataset goes through one of them


class FailingOs:
    """Stands in for `os` where files are written. Of the calls that write, the one with the given number fails.

    A failed `write` has written half of its bytes before.
    """

    def __init__(self, fail_at: int, error: BaseException) -> None:
        self.calls: list[str] = []
        self._fail_at = fail_at
        self._error = error

    def __getattr__(self, name: str) -> Any:
        real: Callable[..., Any] = getattr(os, name)
        if name not in _WRITING:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) == self._fail_at:
                if name == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                raise self._error
            if name == "fsync":
                return None  # what a test of failures waits for is not the disk
            return real(*args, **kwargs)

        return call


@contextlib.contextmanager
def failing_writes(
    monkeypatch: pytest.MonkeyPatch, *, fail_at: int = -1, error: BaseException | None = None
) -> Iterator[FailingOs]:
    """Let one call fail; with no number given, none does, and the calls are counted."""
    failing = FailingOs(fail_at, error or OSError())
    with monkeypatch.context() as patch:
        patch.setattr("labelstore.local_files.os", failing)
        yield failing
