"""Where a dataset is: a folder, or a URL such as s3://bucket/labels. Keys never stand in one."""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path
from typing import TypeAlias

__all__ = ["Location", "as_location", "check_holds_no_key", "is_url"]

Location: TypeAlias = "Path | str"  # a string is a URL

_FILE = "file://"
# Parameters of a URL that open a door: signatures (s3, gs, az) and tokens.
_KEY = re.compile(r"(^|[-_])(signature|sig|token|key|secret|password|credential)s?$", re.IGNORECASE)


def is_url(location: Location) -> bool:
    """Return whether a location is a URL."""
    return not isinstance(location, Path) and "://" in location


def as_location(text: Location) -> Location:
    """Return what a user's text names: a path, or a URL without a slash at its end; file:// is a path.

    Raises:
        ValueError: the URL holds a key or a password.
    """
    if isinstance(text, Path) or not is_url(text):
        return Path(text)
    check_holds_no_key(text)
    if text.startswith(_FILE):
        return Path(urllib.parse.unquote(text.removeprefix(_FILE)))
    return text.rstrip("/")


def check_holds_no_key(name: str) -> None:
    """Refuse a URL with a key or a password in it: it would stand in logs, errors and the dataset itself.

    Raises:
        ValueError: it has one; the message does not repeat it.
    """
    if not is_url(name):
        return
    scheme, _, rest = name.rpartition("://")
    place, _, query = rest.partition("?")
    user, sign, host = place.partition("/")[0].rpartition("@")
    # az names a container before the @; there, and in s3://, a colon divides key and secret.
    has_user = bool(sign) and (":" in user or scheme.endswith(("http", "https", "s3", "s3a")))
    keys = [name for name, _ in urllib.parse.parse_qsl(query, keep_blank_values=True) if _KEY.search(name)]
    if has_user or keys:
        what = f"the parameter {keys[0]!r}" if keys else "a user or a password"
        raise ValueError(
            f"{scheme}://{host}/...: the URL holds {what}. Keys are taken from the environment only "
            f"(docs/object-storage.md), as a URL stands in logs and in the dataset"
        )
