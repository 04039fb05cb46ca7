"""Secrets that must not leave this machine: the user's own, wherever they stand, and what looks like one in text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MAX_SECRET_BYTES", "OwnSecret", "find_own_secrets", "find_secret_patterns", "own_secrets"]

_MIN_CHARACTERS = 8  # of a value: shorter ones stand in any text by chance
_MIN_LETTERS = 12  # of a value of letters alone
MAX_SECRET_BYTES = 16_384
_SECRET_NAME = re.compile(
    r"TOKEN(?!IZ)|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|ACCOUNT_?KEY|AUTH(?!OR)|(^|_)(KEY|PAT|PWD)$",
    re.IGNORECASE,
)
_PATTERNS = {
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{30,}",
    "a GitHub token": rb"\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})",
    "a GitLab token": rb"\bglpat-[A-Za-z0-9_\-]{20,}",
    "an OpenAI or Anthropic key": rb"\bsk-[A-Za-z0-9_\-]{32,}",
    "an AWS key id": rb"\b(AKIA|ASIA)[A-Z0-9]{16}\b",
    "a Google key": rb"\bAIza[A-Za-z0-9_\-]{35}",
    "a Slack token": rb"\bxox[abeoprs]-[A-Za-z0-9\-]{20,}",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password in a URL": rb"\b[a-z][a-z0-9+.\-]*://[^\s/:@\"'<>]+:[^\s/:@\"'<>]{3,}@",
}
_LOOKS_LIKE_ONE = [re.compile(pattern) for pattern in _PATTERNS.values()]


@dataclass(frozen=True, slots=True)
class OwnSecret:
    """A value of this machine's that must not be published; it is never shown."""

    origin: str  # where it stands here, for people
    value: bytes

    def __repr__(self) -> str:
        return f"OwnSecret({self.origin!r})"


def own_secrets(environment: Mapping[str, str], *, hub_token: str | None) -> list[OwnSecret]:
    """Return the values of variables that are called like a secret, or look like one, and the hub's token."""
    found = {}
    if hub_token:
        found[hub_token] = "the Hugging Face token"
    for name, value in environment.items():
        is_secret = _SECRET_NAME.search(name) or any(pattern.search(value.encode()) for pattern in _LOOKS_LIKE_ONE)
        if is_secret and len(value) >= _MIN_CHARACTERS and not _is_harmless(value):
            found.setdefault(value, f"the value of {name}")
    return [OwnSecret(origin, value.encode()) for value, origin in found.items() if len(value) < MAX_SECRET_BYTES]


def find_own_secrets(content: bytes, secrets: list[OwnSecret]) -> list[str]:
    """Return what of the user's own stands in some bytes."""
    return [secret.origin for secret in secrets if secret.value in content]


def find_secret_patterns(text: bytes) -> list[str]:
    """Return what in a text looks like a secret, with the line it stands in."""
    found = []
    for name, pattern in _PATTERNS.items():
        if match := re.search(pattern, text):
            line = text.count(b"\n", 0, match.start()) + 1
            found.append(f"what looks like {name}, in line {line}")
    return found


def _is_harmless(value: str) -> bool:
    """Return whether a value is the path of a file here, or a short word or a number, such as "disabled"."""
    is_word = value.isalpha() and len(value) < _MIN_LETTERS
    return is_word or value.isdigit() or (value.startswith("/") and Path(value).exists())
