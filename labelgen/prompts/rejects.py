"""The log of rows that gave no record, `.labelgen/rejected/`, and how many of them are too many."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from labelgen.prompts.prompt import Reject
from labelstore.reject_log import fold_rejects, put_rejects, read_rejects
from labelstore.store import Store

__all__ = ["RejectLimit", "RejectLog"]

_MAX_PENDING = 10_000  # lines in memory; a file of the log has about so many, 2 MB
_ROWS_BEFORE_A_SHARE = 1_000  # of fewer rows, a share says little


class RejectLog:
    """Collects rejects; one that is logged already is not logged again, so that a job may be repeated."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: list[bytes] = []
        self._seen = {_digest(line) for line in read_rejects(store)}

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, reject: Reject) -> None:
        """Take a reject into the log; `flush` writes it down."""
        row = {"source": reject.source, "line": reject.line, "id": reject.prompt_id, "reason": reject.reason}
        line = json.dumps(row, ensure_ascii=True).encode()
        if (digest := _digest(line)) in self._seen:
            return
        self._pending.append(line)
        self._seen.add(digest)
        if len(self._pending) >= _MAX_PENDING:
            self.flush()

    def flush(self) -> None:
        """Write down what was added; call it before anything that keeps its source or block from being read again."""
        if self._pending:
            put_rejects(self._store, self._pending)
            self._pending.clear()

    def forget(self, prompt_ids: Iterable[str]) -> None:
        """Take out the rejects of these prompts, and of all rows that never were prompts."""
        self.flush()
        fold_rejects(self._store, without=frozenset({None, *prompt_ids}))
        self._seen = {_digest(line) for line in read_rejects(self._store)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectLimit:
    """How many rejects say that a job has gone wrong as a whole: a count, or a share of the rows."""

    count: int | None = None
    share: float | None = None  # in [0, 1)

    @classmethod
    def parse(cls, text: str) -> RejectLimit:
        """Read `100` or `2.5%`.

        Raises:
            ValueError: it is neither.
        """
        if re.fullmatch(r"\d+", text):
            return cls(count=int(text))
        if (match := re.fullmatch(r"(\d+(?:\.\d+)?)%", text)) and float(match[1]) < 100:
            return cls(share=float(match[1]) / 100)
        raise ValueError(f"--max-rejects must be a count such as 100 or a share such as 2%, got {text!r}")

    def __str__(self) -> str:
        return str(self.count) if self.share is None else f"{100 * self.share:g}%"

    def check(self, *, num_rejected: int, num_rows: int, last: str) -> None:
        """Stop a job with more rejects than this; a share counts once 1,000 rows were seen.

        Raises:
            ValueError: there are more; the message says what is wrong with the last one.
        """
        if self.share is not None:
            is_over = num_rows >= _ROWS_BEFORE_A_SHARE and num_rejected > self.share * num_rows
        else:
            is_over = self.count is not None and num_rejected > self.count
        if is_over:
            counted = f"{num_rejected:,} of {num_rows:,} prompts are rejected, and --max-rejects is {self}"
            raise ValueError(f"{counted}. The last one: {last}. Mend the cause and run the same command again")


def _digest(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()
