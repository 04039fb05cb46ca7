"""A sequence of token ids that a dataset holds, to be labelled by another teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from labelgen.prompts.token_spans import TokenSpan

__all__ = ["GivenSequence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenSequence:
    """What stays of a record when its labels are another teacher's."""

    response_index: int
    document_offset: int | None
    input_ids: tuple[int, ...]  # [T]
    spans: tuple[TokenSpan, ...]
    text: str | None
    finish_reason: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> GivenSequence:
        spans = tuple(TokenSpan(**span) for span in content["spans"])
        return cls(**{**content, "input_ids": tuple(content["input_ids"]), "spans": spans})
