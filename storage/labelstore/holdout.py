"""Which records are held out: by a hash of the prompt's id, the same ones in every dataset."""

from __future__ import annotations

import hashlib

__all__ = ["check_holdout", "is_held_out"]


def is_held_out(prompt_id: str, share: float) -> bool:
    """Return whether all records of a prompt are held out when a share in (0, 1) of the prompts is.

    A larger share holds out the same prompts and more of them.
    """
    digest = hashlib.blake2b(b"holdout\0" + prompt_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def check_holdout(share: float) -> None:
    """Refuse what is no share.

    Raises:
        ValueError: it is not in (0, 1).
    """
    if not 0 < share < 1:
        raise ValueError(f"a holdout must be a share of the prompts between 0 and 1, got {share}")
