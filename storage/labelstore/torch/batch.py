"""What a student's step consumes: token ids, hard labels and soft labels of some records as tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from labelstore.torch.soft_labels import SoftLabels

__all__ = ["IGNORED", "Batch"]

IGNORED = -100  # the hard label of a token without one, as torch's cross_entropy and Transformers have it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: tensors have no truth value
class Batch:
    """B rows of L tokens: a record each where padded, several in a row where packed.

    `labels` are hard labels as Transformers has them: at a token's own place, to be shifted by the model's loss. All
    tokens of the spans are there, also where only some of them have a soft label.
    """

    input_ids: torch.Tensor  # int64 [B, L]
    position_ids: torch.Tensor  # int64 [B, L], from 0 at the start of each record; 0 in padding
    attention_mask: torch.Tensor  # int64 [B, L], 1 on tokens of records
    labels: torch.Tensor  # int64 [B, L], IGNORED on tokens outside the spans
    cu_seqlens: torch.Tensor  # int32 [S + 1], where each sequence begins in input_ids.view(-1), padding runs included
    soft: SoftLabels  # P labels; soft.rows count rows of logits.view(-1, V)
    record_ids: tuple[str, ...]  # in the order of their tokens
    num_cut_labels: int  # labels of these records that are left out, as they are beyond the length
    is_packed: bool
    stream_state: dict[str, Any] | None = None  # where a BatchStream stands behind this batch; load_state_dict takes it

    def model_inputs(self) -> dict[str, Any]:
        """Return the arguments of a Transformers model.

        Packed rows have no attention mask: Transformers tells records apart by their position ids, but only where there
        is neither a mask nor a cache (5.19, masking_utils.py). With one, records would see each other unnoticed.
        """
        inputs = {"input_ids": self.input_ids, "position_ids": self.position_ids, "use_cache": False}
        return inputs if self.is_packed else {**inputs, "attention_mask": self.attention_mask}

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Return the same batch on a device."""
        names = ("input_ids", "position_ids", "attention_mask", "labels", "cu_seqlens", "soft")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=non_blocking) for name in names})

    def pin_memory(self) -> Batch:
        """Return the same batch in page-locked memory, as a DataLoader with `pin_memory` asks for."""
        names = ("input_ids", "position_ids", "attention_mask", "labels", "cu_seqlens", "soft")
        return replace(self, **{name: getattr(self, name).pin_memory() for name in names})
