"""A claim says which of several jobs on a dataset does what only one should do, and is taken over when that job died.

Nothing on disk is wrong where two do it after all, as when a machine slept and woke: only work is done twice.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict

from labelgen.job.heartbeat import ProcessName
from labelstore.store import Store

__all__ = ["Claim"]

CLAIMS_DIR = ".labelgen/claims"
_BEAT_SECONDS = 5.0
_POLL_SECONDS = 0.5
# A holder whose process cannot be seen to be gone counts as dead when its claim did not change so long.
_DEAD_AFTER_SECONDS = 60.0
_HELD_HERE: set[str] = set()  # the nonces of this process's claims
_NAME = re.compile(r"(.+)\.(\d+)\.json")


class Claim:
    """One thing that a single job does at a time.

    A claim is a file `<what>.<number>.json`, created exclusively; the highest number counts. Its holder changes it
    every few seconds, and deletes it at the end. A waiting job measures with its own clock how long it stayed the same:
    clocks may differ.
    """

    def __init__(self, store: Store, what: str) -> None:
        self._store = store
        self._what = what
        self._nonce = uuid.uuid4().hex
        self._seen: tuple[int, bytes] | None = None
        self._seen_at = 0.0

    @contextlib.contextmanager
    def held(
        self, *, while_needed: Callable[[], bool], waiting: Callable[[str], None] = lambda _: None
    ) -> Iterator[bool]:
        """Hold the claim; wait for another holder as long as `while_needed` says so.

        Gives False, and holds nothing, where it is not needed any more. `waiting` is told who is waited for.
        """
        while while_needed():
            number = self._try()
            if number is not None:
                with self._beating(number):
                    yield while_needed()
                return
            waiting(self._holder())
            time.sleep(_POLL_SECONDS)
        yield False

    def _try(self) -> int | None:
        """Take the claim if it is free; return its number."""
        top = self._top()
        if top is not None and not self._is_free(top):
            return None
        number = 0 if top is None else top + 1
        if not self._store.put_new(self._name(number), self._content(beats=0)):
            return None
        if self._top() != number:  # this job was slow: a later claim has been made, and those before it deleted
            self._store.delete(self._name(number))
            return None
        for earlier in self._numbers():
            if earlier < number:
                self._store.delete(self._name(earlier))
        return number

    def _is_free(self, number: int) -> bool:
        """Is a claim's holder dead, or was it left by this process when its file could not be deleted?"""
        try:
            content = self._store.read(self._name(number))
        except FileNotFoundError:
            return False  # given back just now, or replaced
        if self._seen != (number, content):
            self._seen, self._seen_at = (number, content), time.monotonic()
        try:
            claim = json.loads(content)
            process, nonce = ProcessName(**claim["process"]), claim["nonce"]
        except (ValueError, KeyError, TypeError):
            pass  # another version's, or damaged
        else:
            if process.is_running is False or (process == ProcessName.of_this() and nonce not in _HELD_HERE):
                return True
        return time.monotonic() - self._seen_at > _DEAD_AFTER_SECONDS

    def _holder(self) -> str:
        try:
            assert self._seen is not None, "it was looked at"
            process = json.loads(self._seen[1])["process"]
            return f"process {process['pid']} on {process['host']}"
        except (AssertionError, ValueError, KeyError, TypeError):
            return "another job"

    @contextlib.contextmanager
    def _beating(self, number: int) -> Iterator[None]:
        over = threading.Event()
        _HELD_HERE.add(self._nonce)

        def beat() -> None:
            beats = 0
            while not over.wait(_BEAT_SECONDS):
                beats += 1
                with contextlib.suppress(OSError):  # the claim is lost at worst, and work done twice
                    self._store.replace(self._name(number), self._content(beats=beats))

        thread = threading.Thread(target=beat, name="labelgen-claim", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            _HELD_HERE.discard(self._nonce)
            self._store.delete(self._name(number))

    def _content(self, *, beats: int) -> bytes:
        return json.dumps({"process": asdict(ProcessName.of_this()), "nonce": self._nonce, "beats": beats}).encode()

    def _top(self) -> int | None:
        return max(self._numbers(), default=None)

    def _numbers(self) -> list[int]:
        matches = (_NAME.fullmatch(name.rsplit("/", 1)[-1]) for name in self._store.names(CLAIMS_DIR))
        return [int(match[2]) for match in matches if match is not None and match[1] == self._what]

    def _name(self, number: int) -> str:
        return f"{CLAIMS_DIR}/{self._what}.{number}.json"
