"""Which records of its sources a conversion keeps."""

from __future__ import annotations

import hashlib
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from labelstore.holdout import check_holdout, is_held_out
from labelstore.record import prompt_id_of
from labelstore.sealed_json import canonical_json

__all__ = ["RecordChoice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordChoice:
    """What is dropped, and what is held out.

    Raises:
        ValueError: the share is none, or only what is held out is asked for where nothing is.
    """

    dropped_ids: Set[str] = frozenset()  # of records, or of prompts: then all of their records
    holdout: float | None = None  # share of the prompts that is left out
    only_holdout: bool = False  # ... or that alone is taken

    def __post_init__(self) -> None:
        if self.holdout is not None:
            check_holdout(self.holdout)
        elif self.only_holdout:
            raise ValueError("--only-holdout takes what --holdout leaves out; give --holdout too")

    @property
    def keeps_all(self) -> bool:
        return not self.dropped_ids and self.holdout is None

    def keeps(self, record_id: str) -> bool:
        """Return whether a record goes into the new dataset."""
        if self.names_of(record_id) & self.dropped_ids:
            return False
        return self.holdout is None or is_held_out(prompt_id_of(record_id), self.holdout) == self.only_holdout

    @staticmethod
    def names_of(record_id: str) -> set[str]:
        """Return the ids by which a record can be dropped: its own, and its prompt's."""
        return {record_id, prompt_id_of(record_id)}

    def to_json(self) -> dict[str, Any]:
        """Return what tells one choice from another; of what is dropped nothing stays but one hash of all ids."""
        hashed = hashlib.sha256(canonical_json(sorted(self.dropped_ids))).hexdigest() if self.dropped_ids else None
        return {"dropped_ids_sha256": hashed, "holdout": self.holdout, "only_holdout": self.only_holdout}
