"""Losses of a student against stored labels, each [P] in nats, a number a label: mean, mask or weigh them as you like.

    student = student_logprobs(model(**batch.model_inputs()).logits, batch.soft)
    loss = (0.9 * forward_kl(student, batch.soft) + 0.1 * hard_cross_entropy(student)).mean()

`student_logprobs` reads the logits once, in chunks; any number of losses then share what it found. P labels of at most
K candidates; p is the teacher's distribution and q the student's.

The *tail* is what the teacher believed outside the candidates. `tail="bucket"` takes it as one more outcome on both
sides. A KL over these K + 1 outcomes is never negative and never above that of the full distributions (merging outcomes
cannot raise a KL). `tail="renormalize"` leaves it out and scales the candidates to sum to 1: the usual top-k loss,
whose student ends with too much probability on the candidates (arXiv 2503.16870, ACL 2025, shows by how much).
"""

from __future__ import annotations

from typing import Literal

import torch

from labelstore.torch.soft_labels import SoftLabels
from labelstore.torch.student_logprobs import LOG_ZERO, StudentLogprobs, student_logprobs

__all__ = [
    "TAIL_FLOOR",
    "StudentLogprobs",
    "Tail",
    "forward_kl",
    "hard_cross_entropy",
    "reverse_kl",
    "sampled_cross_entropy",
    "student_logprobs",
]

Tail = Literal["bucket", "renormalize"]

TAIL_FLOOR = 2.0**-20  # a smaller tail mass cannot be told from 0: float32 log-probabilities sum to 1 within some 1e-6


def forward_kl(student: StudentLogprobs, labels: SoftLabels, *, tail: Tail = "bucket") -> torch.Tensor:
    """Return KL(p || q) of each label [P] in nats.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531): the cross-entropy
    with the teacher's distribution, here less the teacher's own entropy. At a temperature other than 1, which only
    `tail="renormalize"` has, both sides are softened, and the loss is multiplied by its square, as there.

    With `tail="renormalize"` the student's side stays its whole softmax. Beside draws from the tail, the exact head is
    the candidates, and the draws are part of the tail; `sampled_cross_entropy` uses them.

    Raises:
        ValueError: the labels are draws alone, or the temperature is not 1 while the tail is a bucket.
    """
    teacher, teacher_tail = _teacher(student, labels, tail)
    is_candidate = teacher > LOG_ZERO
    candidates = _divergence(teacher, student.candidates).masked_fill(~is_candidate, 0.0).sum(1)
    student_tail = _tail_beside(student, is_candidate)
    return (candidates + _divergence(teacher_tail, student_tail)) * student.temperature**2


def reverse_kl(student: StudentLogprobs, labels: SoftLabels, *, tail: Tail = "bucket") -> torch.Tensor:
    """Return KL(q || p) of each label [P] in nats: it seeks the teacher's modes, where forward KL covers them all.

    Gu, Dong, Wei and Huang, "MiniLLM: Knowledge Distillation of Large Language Models", 2023 (arXiv 2306.08543) argue
    for it; this is its term for one token, of the sequence that the label belongs to, whoever wrote that.

    A student may put mass where the teacher's tail was rounded to 0: a tail below TAIL_FLOOR counts as TAIL_FLOOR.
    With `tail="renormalize"` the student's candidates are scaled to sum to 1, too (else the KL would be infinite).

    Raises:
        ValueError: the labels are draws alone, or the temperature is not 1 while the tail is a bucket.
    """
    teacher, teacher_tail = _teacher(student, labels, tail)
    is_candidate = teacher > LOG_ZERO
    candidates = student.candidates.masked_fill(~is_candidate, LOG_ZERO)
    if tail == "renormalize":
        candidates = candidates - candidates.logsumexp(1, keepdim=True)
    loss = _divergence(candidates, teacher).masked_fill(~is_candidate, 0.0).sum(1)
    if tail == "bucket":
        floor = torch.as_tensor(TAIL_FLOOR, dtype=teacher_tail.dtype).log().item()
        loss = loss + _divergence(_tail_beside(student, is_candidate), teacher_tail.clamp_min(floor))
    return loss * student.temperature**2


def sampled_cross_entropy(student: StudentLogprobs, labels: SoftLabels) -> torch.Tensor:
    """Return an unbiased estimate of -sum(p ln q), the full vocabulary's cross-entropy, of each label [P] in nats.

    Anshumann et al., "Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs", ACL 2025 (arXiv 2503.16870):
    the gradient, too, is that of the full distribution on average over the draws. A token that was drawn c times of n
    weighs c / n. Beside an exact head, a head token weighs its probability and a drawn one tail_mass * c / n: the head
    adds no noise.

    It is the forward KL plus the teacher's entropy, which the student cannot change: where `labels.entropy` was kept,
    subtract it. The estimate of a single label can be below the entropy.

    Raises:
        ValueError: nothing was drawn, or the student's temperature is not 1.
    """
    draws = labels.selection.draws
    if draws is None or labels.draw_counts is None:
        raise ValueError(f"these labels keep {labels.selection}, no draws: use forward_kl, or label with --draws")
    _refuse_temperature(student, "the draws were made at temperature 1, and cannot be weighed for another one")
    weights = labels.draw_counts.to(student.candidates.dtype) / draws
    if labels.selection.top_k is not None:
        drawn = labels.tail_mass.to(weights.dtype)[:, None] * weights
        weights = torch.where(labels.draw_counts > 0, drawn, labels.logprobs.to(weights.dtype).exp())
    return -(weights * student.candidates).sum(1)


def hard_cross_entropy(student: StudentLogprobs) -> torch.Tensor:
    """Return -ln q(target) of each label [P] in nats: the usual loss, on the token that really stands there.

    To be mixed with a soft loss, as Hinton et al. do (arXiv 1503.02531, section 2).

    Raises:
        ValueError: the student's temperature is not 1.
    """
    _refuse_temperature(student, "hard labels have no temperature; call student_logprobs again without one")
    return -student.targets


def _teacher(student: StudentLogprobs, labels: SoftLabels, tail: Tail) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probabilities of the teacher's candidates [P, K] and tail [P]; LOG_ZERO where there is nothing."""
    if tail not in ("bucket", "renormalize"):
        raise ValueError(f"tail must be 'bucket' or 'renormalize', got {tail!r}")
    if labels.selection.draws is not None and labels.selection.top_k is None:
        raise ValueError(
            f"these labels keep {labels.selection}: a KL needs the likeliest tokens, and draws are a random choice. "
            f"Use sampled_cross_entropy."
        )
    logprobs = labels.logprobs.to(student.candidates.dtype)
    if labels.draw_counts is not None:
        logprobs = logprobs.masked_fill(labels.draw_counts > 0, -torch.inf)  # tokens of the tail
    if tail == "bucket":
        _refuse_temperature(
            student, "how much a teacher's tail weighs there cannot be known; take tail='renormalize' or temperature 1"
        )
        tails = labels.tail_mass.to(logprobs.dtype).log()
    else:
        logprobs = logprobs / student.temperature
        logprobs = logprobs - logprobs.logsumexp(1, keepdim=True).clamp_min(LOG_ZERO)
        tails = torch.full_like(logprobs[:, 0], LOG_ZERO)
    return logprobs.clamp_min(LOG_ZERO), tails.clamp_min(LOG_ZERO)


def _tail_beside(student: StudentLogprobs, is_candidate: torch.Tensor) -> torch.Tensor:
    """Return the student's log-probability of all but the candidates that count [P]."""
    others = student.candidates.masked_fill(is_candidate, LOG_ZERO)
    return torch.logaddexp(student.tail, others.logsumexp(1))


def _divergence(log_a: torch.Tensor, log_b: torch.Tensor) -> torch.Tensor:
    """Return a ln(a / b) - a + b of each pair: never negative, and summed over two distributions their KL."""
    gap = log_b - log_a
    near = gap.clamp(-1.0, 1.0)
    # Where a and b are close, the three terms would cancel to noise that can be below zero.
    return torch.where(gap == near, log_a.exp() * (near.expm1() - near), log_b.exp() - log_a.exp() * (1 + gap))


def _refuse_temperature(student: StudentLogprobs, reason: str) -> None:
    if student.temperature != 1:
        raise ValueError(f"temperature is {student.temperature}, and must be 1 here: {reason}")
