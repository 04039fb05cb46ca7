"""What a student believes about the candidates of a batch's labels: one pass over its logits, in chunks of positions.

R rows of logits, V columns; P labels of at most K candidates. A loss needs of all V columns only K + 2 numbers a label:
the candidates' log-probabilities, that of all other tokens together (the tail), and that of the target. They are
computed here, chunk by chunk in float32, and chunk by chunk again for the gradient: a [P, V] float32 copy of the logits
never exists. Everything after that is small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from labelstore.torch.soft_labels import SoftLabels

__all__ = ["LOG_ZERO", "StudentLogprobs", "student_logprobs"]

LOG_ZERO = -1e4  # nats: stands for the logarithm of 0, and can be multiplied by 0
_CHUNK_BYTES = 1 << 26  # of a chunk's float32 copy; another of the same size is made while it is summed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: tensors have no truth value
class StudentLogprobs:
    """A student's log-probabilities in nats, float32 (float64 where its logits are); gradients flow through them."""

    candidates: torch.Tensor  # [P, K], LOG_ZERO where a label has fewer candidates
    tail: torch.Tensor  # [P], of all tokens that are no candidates, together
    targets: torch.Tensor  # [P], of the token that really follows
    temperature: float  # what the logits were divided by


def student_logprobs(
    logits: torch.Tensor, labels: SoftLabels, *, temperature: float = 1.0, chunk_positions: int | None = None
) -> StudentLogprobs:
    """Return what a student believes about the candidates, tails and targets of labels.

    `logits` are [..., V] in any float type, as the model returns them, over all positions of the batch that the labels
    were made for; `labels.rows` count over all dimensions but the last. `chunk_positions` is how many labels are
    worked on at once; by default as many as make 64 MiB in float32.

    Raises:
        ValueError: the logits have fewer columns than the labels have ids, or the temperature is not above 0.
    """
    num_columns = logits.shape[-1]
    if num_columns < labels.vocab_size:
        raise ValueError(
            f"logits have {num_columns} columns, but the labels' token ids go up to {labels.vocab_size - 1}: "
            f"make the collator with model= this student, so that it leaves out candidates that the student cannot name"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if chunk_positions is None:
        chunk_positions = max(1, _CHUNK_BYTES // (4 * num_columns))
    candidates, tail, targets = _ChunkedLogprobs.apply(  # type: ignore[no-untyped-call]
        logits.reshape(-1, num_columns), labels.rows, labels.token_ids, labels.target_ids, temperature, chunk_positions
    )
    return StudentLogprobs(candidates=candidates, tail=tail, targets=targets, temperature=temperature)


class _ChunkedLogprobs(torch.autograd.Function):
    """Log-probabilities of candidates [P, K], tails [P] and targets [P].

    With z a row of logits, lse its log-sum-exp and rest that of the columns that are no candidates:

        candidate i: z_i - lse        tail: rest - lse        target: z_t - lse

    With the gradients g_i, g_tail and g_t of the three, and G their sum, the gradient of z_j is, with q = softmax(z),

        candidates:  g_j - G q_j                               (the target: g_t more)
        all others:  exp(z_j - rest) (g_tail - G q_tail)       (the target: g_t more)

    where no exponential can overflow.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        rows: torch.Tensor,
        token_ids: torch.Tensor,
        target_ids: torch.Tensor,
        temperature: float,
        chunk_positions: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        candidates = torch.empty(token_ids.shape, dtype=dtype, device=logits.device)
        rest, lse, targets = (torch.empty(len(rows), dtype=dtype, device=logits.device) for _ in range(3))
        for part in _chunks(len(rows), chunk_positions):
            columns = _columns(token_ids[part], logits.shape[1])
            chunk = _wide_rows(logits, rows[part], dtype, temperature)
            candidates[part] = chunk.gather(1, columns)
            targets[part] = chunk.gather(1, target_ids[part, None]).squeeze(1)
            chunk.scatter_(1, columns, -torch.inf)
            # Where all columns are candidates nothing is left; a finite floor keeps the gradient free of inf - inf.
            rest[part] = chunk.logsumexp(1).clamp_min(torch.finfo(dtype).min)
            lse[part] = torch.logaddexp(candidates[part].logsumexp(1), rest[part])
        candidates -= lse[:, None]
        candidates.clamp_min_(LOG_ZERO)
        ctx.save_for_backward(logits, rows, token_ids, target_ids, candidates, rest, lse)
        ctx.temperature, ctx.chunk_positions = temperature, chunk_positions
        return candidates, (rest - lse).clamp_min(LOG_ZERO), (targets - lse).clamp_min(LOG_ZERO)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_candidates: torch.Tensor, of_tail: torch.Tensor, of_targets: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        logits, rows, token_ids, target_ids, candidates, rest, lse = ctx.saved_tensors
        of_candidates = of_candidates.masked_fill(token_ids < 0, 0.0)  # padding is no part of the logits
        total = of_candidates.sum(1) + of_tail + of_targets
        of_candidates = of_candidates - total[:, None] * candidates.exp()
        of_rest = of_tail - total * (rest - lse).exp()
        gradient = torch.zeros_like(logits)
        for part in _chunks(len(rows), ctx.chunk_positions):
            chunk = _wide_rows(logits, rows[part], rest.dtype, ctx.temperature)
            chunk.sub_(rest[part, None]).exp_().mul_(of_rest[part, None])
            chunk.scatter_(1, _columns(token_ids[part], logits.shape[1]), of_candidates[part])
            chunk.scatter_add_(1, target_ids[part, None], of_targets[part, None])
            chunk /= ctx.temperature
            gradient.index_add_(0, rows[part], chunk[:, :-1].to(logits.dtype))
        return gradient, None, None, None, None, None


def _chunks(num_positions: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, num_positions)) for start in range(0, num_positions, size)]


def _columns(token_ids: torch.Tensor, num_columns: int) -> torch.Tensor:
    """Return the columns [.., K] of a chunk of `_wide_rows` that hold these ids; padding has the last one."""
    return token_ids.long().masked_fill(token_ids < 0, num_columns)


def _wide_rows(logits: torch.Tensor, rows: torch.Tensor, dtype: torch.dtype, temperature: float) -> torch.Tensor:
    """Return rows of the logits over the temperature [len(rows), V + 1]; the last column is -inf."""
    wide = torch.empty(len(rows), logits.shape[1] + 1, dtype=dtype, device=logits.device)
    wide[:, :-1] = logits[rows]
    wide[:, -1] = -torch.inf
    return wide if temperature == 1 else wide.div_(temperature)
