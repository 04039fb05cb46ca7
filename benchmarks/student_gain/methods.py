"""What students learn from: which labels, stored how, with which loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from labelstore.selection import Selection
from labelstore.torch import Batch
from labelstore.torch.losses import forward_kl, hard_cross_entropy, sampled_cross_entropy, student_logprobs
from student_gain.full_teacher import FullTeacher
from student_gain.rows import FULL, HARD

__all__ = ["METHODS", "Loss", "Method", "full_kl"]

Loss = Callable[[torch.Tensor, Batch, FullTeacher], torch.Tensor]  # of logits [B, L, V]; nats a label [P]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A kind of labels and the loss on them."""

    name: str
    selection: Selection
    codec: str
    loss: Loss

    @property
    def dataset_name(self) -> str:
        """What the folder of its labels is called; methods that read the same labels share it."""
        return f"{self.selection}-{self.codec}".replace(" ", "").replace(",", "-")


def full_kl(logits: torch.Tensor, batch: Batch, teacher: FullTeacher) -> torch.Tensor:
    """Return KL(teacher || student) over the whole vocabulary of each label [P], in nats."""
    student = logits.flatten(0, 1)[batch.soft.rows].log_softmax(1)
    full = teacher.logits(batch).log_softmax(1)
    return (full.exp() * (full - student)).sum(1)


def _hard(logits: torch.Tensor, batch: Batch, _: FullTeacher) -> torch.Tensor:
    return hard_cross_entropy(student_logprobs(logits, batch.soft))


def _kl(logits: torch.Tensor, batch: Batch, _: FullTeacher) -> torch.Tensor:
    return forward_kl(student_logprobs(logits, batch.soft), batch.soft)


def _renormalized_kl(logits: torch.Tensor, batch: Batch, _: FullTeacher) -> torch.Tensor:
    return forward_kl(student_logprobs(logits, batch.soft), batch.soft, tail="renormalize")


def _sampled(logits: torch.Tensor, batch: Batch, _: FullTeacher) -> torch.Tensor:
    return sampled_cross_entropy(student_logprobs(logits, batch.soft), batch.soft)


_FOUR, _SIXTEEN, _SIXTY_FOUR = (Selection(top_k=k) for k in (4, 16, 64))

# The most telling first: students are trained in this order, for each seed.
METHODS = (
    Method(name=HARD, selection=_FOUR, codec="standard", loss=_hard),
    Method(name=FULL, selection=_FOUR, codec="standard", loss=full_kl),
    Method(name="k=16", selection=_SIXTEEN, codec="standard", loss=_kl),
    Method(name="draws=50", selection=Selection(draws=50), codec="standard", loss=_sampled),
    Method(name="k=64", selection=_SIXTY_FOUR, codec="standard", loss=_kl),
    Method(name="k=4", selection=_FOUR, codec="standard", loss=_kl),
    Method(name="mass=0.9", selection=Selection(keep_mass=0.9), codec="standard", loss=_kl),
    Method(name="k=64, exact", selection=_SIXTY_FOUR, codec="exact", loss=_kl),
    Method(name="k=64, small", selection=_SIXTY_FOUR, codec="small", loss=_kl),
    Method(name="k=16, renormalized", selection=_SIXTEEN, codec="standard", loss=_renormalized_kl),
)
