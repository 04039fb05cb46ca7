"""Small JSON files that carry the hash of their own content, so that a changed byte is always noticed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from labelstore.errors import DamagedDatasetError

__all__ = ["canonical_json", "seal", "unseal"]

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: object) -> bytes:
    """Return the one spelling of a JSON value that is hashed: sorted keys, no spaces, UTF-8."""
    return _CANONICAL.encode(value).encode()


def seal(content: dict[str, Any]) -> bytes:
    """Return a JSON file's bytes: the content, and its hash under "sha256"."""
    digest = hashlib.sha256(canonical_json(content)).hexdigest()
    # Without indentation, which the json module writes ten times as slowly: a manifest may have 100,000 entries.
    return (json.dumps({**content, "sha256": digest}, ensure_ascii=False, allow_nan=False) + "\n").encode()


def unseal(data: bytes, *, origin: str) -> dict[str, Any]:
    """Return what `seal` was given.

    Raises:
        DamagedDatasetError: the bytes are not what `seal` returned; the message names `origin`.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:  # also invalid UTF-8
        raise DamagedDatasetError(f"{origin}: is not JSON ({error}); the file is damaged") from error
    if not isinstance(content, dict) or not isinstance(digest := content.pop("sha256", None), str):
        raise DamagedDatasetError(f"{origin}: has no 'sha256' of its own; the file is damaged or not ours")
    try:
        is_intact = hashlib.sha256(canonical_json(content)).hexdigest() == digest
    except (ValueError, RecursionError):  # NaN, or half a surrogate pair: nothing that `seal` writes
        is_intact = False
    if not is_intact:
        raise DamagedDatasetError(f"{origin}: its content does not have the hash it states; the file is damaged")
    return content
