"""What soft labels have cost: bytes by stream, and what the codec changed, as an encoder counts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Tally"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Of all labels that an encoder has encoded."""

    codec_kl_sum: float = 0.0  # over labels, nats: KL(teacher || decoded), the tail as one more outcome
    # Bytes of its binary columns by stream ("ids", "values", "target_and_tail"), as far as their bits have one. Empty
    # for a codec whose columns have a stream each.
    stream_bytes: Mapping[str, float] = field(default_factory=dict)
