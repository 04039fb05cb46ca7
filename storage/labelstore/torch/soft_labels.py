"""The soft labels of a batch as tensors: P labels of at most K candidates, and the rows of logits they are for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from labelstore.record import SPAN_KINDS, SpanKind
from labelstore.selection import Selection

__all__ = ["SoftLabels"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: tensors have no truth value
class SoftLabels:
    """What the teacher believed about P tokens of a batch.

    A label with fewer than K candidates has slots of padding, in any place: token id -1, logprob -inf, count 0.

    Raises:
        ValueError: shapes contradict each other.
    """

    rows: torch.Tensor  # int64 [P]: which row of logits.view(-1, V) each label belongs to, the target's place - 1
    target_ids: torch.Tensor  # int64 [P], the token that really follows
    token_ids: torch.Tensor  # int32 [P, K], most likely first, below vocab_size
    logprobs: torch.Tensor  # float32 [P, K], nats
    tail_mass: torch.Tensor  # float32 [P], in [0, 1]; beside a head and draws, of all but the head
    span_kinds: torch.Tensor  # int64 [P], the place in labelstore.record.SPAN_KINDS of what the label's span is
    draw_counts: torch.Tensor | None  # int32 [P, K], how often each was drawn; 0 for an exact head and for padding
    entropy: torch.Tensor | None  # float32 [P], nats, of the teacher's full distribution, where it was kept
    selection: Selection  # what was kept of the teacher's distribution
    vocab_size: int  # all ids are below it; a student's logits need at least as many columns

    def __post_init__(self) -> None:
        shape = self.token_ids.shape
        for name in ("rows", "target_ids", "tail_mass", "span_kinds", "entropy"):
            tensor = getattr(self, name)
            if tensor is not None and tensor.shape != shape[:1]:
                raise ValueError(f"{name} must be [{shape[0]}] as token_ids are, got {tuple(tensor.shape)}")
        for name in ("logprobs", "draw_counts"):
            tensor = getattr(self, name)
            if tensor is not None and tensor.shape != shape:
                raise ValueError(f"{name} must be {tuple(shape)} as token_ids are, got {tuple(tensor.shape)}")

    def __len__(self) -> int:
        return len(self.token_ids)

    def is_kind(self, *names: SpanKind) -> torch.Tensor:
        """Return which labels stand in spans of these kinds, bool [P].

        Raises:
            ValueError: there is no such kind.
        """
        for name in names:
            if name not in SPAN_KINDS:
                raise ValueError(f"a span's kind is one of {', '.join(SPAN_KINDS)}, got {name!r}")
        wanted = [SPAN_KINDS.index(name) for name in names]
        return torch.isin(self.span_kinds, torch.tensor(wanted, dtype=torch.int64, device=self.span_kinds.device))

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> SoftLabels:
        """Return the same labels on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> SoftLabels:
        """Return the same labels in page-locked memory, as a DataLoader with `pin_memory` asks for."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> SoftLabels:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {
            name: change(value) for name, value in values.items() if isinstance(value, torch.Tensor)
        }
        return replace(self, **changed)
