"""The log of rows and prompts that gave no record: small files `.labelgen/rejected/<number>-<sha16>.jsonl`.

A file is put whole and never changed; its name has its content's hash. Several jobs may add files, and a line that
stands in two of them counts once: what a job writes again after a kill changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from labelstore.store import ReadableStore, Store, read_if_there

__all__ = ["REJECTED_DIR", "find_reject_damage", "fold_rejects", "is_reject", "put_rejects", "read_rejects"]

REJECTED_DIR = ".labelgen/rejected"
_NAME = re.compile(r"(\d{6,})-([0-9a-f]{16})\.jsonl")
_FIELDS = {"source", "line", "id", "reason"}


def read_rejects(store: ReadableStore) -> list[bytes]:
    """Return the lines of the log, each once and without its line break; what is no reject is left out."""
    lines: dict[bytes, None] = {}
    for name in store.names(REJECTED_DIR):
        lines.update((line, None) for line in (read_if_there(store, name) or b"").split(b"\n") if is_reject(line))
    return list(lines)


def put_rejects(store: Store, lines: Iterable[bytes]) -> None:
    """Add lines to the log, behind those that are there; on disk when this returns."""
    numbers = [int(match[1]) for name in store.names(REJECTED_DIR) if (match := _parse(name)) is not None]
    _put(store, max(numbers, default=-1) + 1, lines)


def fold_rejects(store: Store, *, without: frozenset[Any] | None = None) -> None:
    """Write the log as one file; `without` leaves out the lines with one of these ids.

    Files that another job adds meanwhile stay. Nothing is deleted before its lines stand elsewhere.
    """
    names = store.names(REJECTED_DIR)
    if without is None and (len(names) < 2 or any(find_reject_damage(store))):
        return
    lines = read_rejects(store)
    kept = [line for line in lines if without is None or json.loads(line)["id"] not in without]
    kept_name = _put(store, 0, kept) if kept else None
    for name in names:
        if name != kept_name:
            store.delete(name)


def find_reject_damage(store: ReadableStore) -> Iterator[tuple[str, str]]:
    """Yield the name of each damaged file of the log, and what is wrong with it."""
    for name in store.names(REJECTED_DIR):
        match = _parse(name)
        content = read_if_there(store, name) or b""
        if match is None:
            yield name, "is no file of the log of rejects; move it away"
        elif _digest(content) != match[2]:
            yield name, "its content does not have the hash in its name"
        elif wrong := [n for n, line in enumerate(content.split(b"\n")[:-1], start=1) if not is_reject(line)]:
            yield name, f"line {wrong[0]} is not a reject"


def is_reject(line: bytes) -> bool:
    """Return whether a line is one of the log of rejects."""
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return isinstance(row, dict) and set(row) >= _FIELDS


def _put(store: Store, number: int, lines: Iterable[bytes]) -> str:
    content = b"".join(line + b"\n" for line in lines)
    name = f"{REJECTED_DIR}/{number:06d}-{_digest(content)}.jsonl"
    store.put_new(name, content)  # taken: the same bytes are there
    return name


def _parse(name: str) -> re.Match[str] | None:
    return _NAME.fullmatch(name.rsplit("/", 1)[-1])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
