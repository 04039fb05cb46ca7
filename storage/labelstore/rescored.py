"""What came of letting the teacher read records again: how far stored labels are from what it says now.

It stands in `.labelgen/rescored.json`, written at the end of a job, and is folded into the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from labelstore.errors import DamagedDatasetError
from labelstore.sealed_json import seal, unseal
from labelstore.store import ReadableStore, read_if_there

__all__ = ["RESCORED_NAME", "Rescored", "intact_rescored", "read_rescored"]

RESCORED_NAME = ".labelgen/rescored.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescored:
    """Figures over the labels of some records, drawn at random.

    A label's difference is that of its candidates' and target's log-probabilities, the largest of them, beyond what
    the codec may have changed. Where the labels are right, this is the engine's own noise, and the floor of it.
    """

    num_records: int
    num_labels: int
    median_nats: float  # of the labels' differences
    p999_nats: float
    largest_nats: float
    kl_nats: float  # mean KL(teacher now || stored), the codec's own loss included
    num_argmax_equal: int  # labels whose most likely token is the same
    num_argmax_tied: int  # ... is another, as likely within the noise
    num_argmax_different: int
    problems: tuple[str, ...]  # why the labels are not the teacher's; empty: they are
    recorded: Mapping[str, Any]  # of the engine that read
    created_at: str  # UTC, ISO 8601

    @property
    def agrees(self) -> bool:
        """Whether the stored labels are the teacher's."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_bytes(self) -> bytes:
        return seal(self.to_json())

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, origin: str) -> Rescored:
        """Return the figures of a JSON object.

        Raises:
            DamagedDatasetError: fields are missing or unknown.
        """
        try:
            return cls(**{**content, "problems": tuple(content["problems"])})
        except (KeyError, TypeError) as error:
            raise DamagedDatasetError(f"{origin}: holds no figures of a rescoring ({error})") from error


def read_rescored(store: ReadableStore) -> Rescored | None:
    """Return what the last job found; None if none has looked.

    Raises:
        DamagedDatasetError: the file is damaged.
    """
    origin = f"{store}/{RESCORED_NAME}"
    if (data := read_if_there(store, RESCORED_NAME)) is None:
        return None
    return Rescored.from_json(unseal(data, origin=origin), origin=origin)


def intact_rescored(store: ReadableStore) -> Rescored | None:
    """Return the same, or None where the file is damaged: no label depends on it, and verify tells of it."""
    try:
        return read_rescored(store)
    except DamagedDatasetError:
        return None
