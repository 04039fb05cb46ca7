"""The YAML at the head of a card, from which a hub makes its page. JSON strings are YAML strings."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from labelstore.markdown import plain_line

__all__ = ["header_block", "size_category"]

_KNOWN_FORM = re.compile(r"[a-z0-9][a-z0-9.\-]*")  # of a hub's licence names
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")


def header_block(*, title: str, licence: str | None, num_records: int, tags: Sequence[str]) -> str:
    """Return the block with its lines of dashes. A licence that is no hub's name stands as `other`."""
    if licence is None:
        licences = ["license: unknown"]
    elif _KNOWN_FORM.fullmatch(licence):
        licences = [f"license: {_quoted(licence)}"]
    else:
        licences = ["license: other", f"license_name: {_quoted(licence)}"]
    lines = [
        f"pretty_name: {_quoted(title)}",
        *licences,
        "task_categories:",
        "- text-generation",
        "size_categories:",
        f"- {size_category(num_records)}",
        "configs:",
        "- config_name: default",
        "  data_files: data/*.parquet",
        "tags:",
        *(f"- {_quoted(tag)}" for tag in tags),
    ]
    return "\n".join(["---", *lines, "---"])


def size_category(num_records: int) -> str:
    """Return a hub's name for a number of records."""
    limit = 1000
    for place, name in enumerate(_SIZES):
        if num_records < limit:
            return f"n<{name}" if place == 0 else f"{_SIZES[place - 1]}<n<{name}"
        limit *= 10
    return f"n>{_SIZES[-1]}"


def _quoted(text: str) -> str:
    return json.dumps(plain_line(text), ensure_ascii=False)
