"""Runs inside vLLM's workers: captures draws and the entropy, for which the full softmax is needed.

It is brought in with `worker_extension_cls`, for this engine alone. vLLM's V1 runner takes the log-probabilities of
both prompts and responses through `Sampler.gather_logprobs(logprobs, num_logprobs, token_ids)`; the function that
takes its place keeps every shape, and only fills the columns otherwise (vLLM 0.32).

Columns, behind the target's: the head of the most likely tokens, the draws, and the entropy (id 0, in nats).
"""

from __future__ import annotations

from typing import Any

__all__ = ["SelectionWorker"]


class SelectionWorker:
    """What vLLM's worker class gets besides."""

    model_runner: Any

    def labelgen_capture(self, num_head: int, num_draws: int, with_entropy: bool) -> bool:
        """From now on fill the columns of requests of exactly this width; False where this runner has no such place."""
        sampler: Any = getattr(self.model_runner, "sampler", None)
        original = getattr(type(sampler), "gather_logprobs", None)  # the class's: this may be asked for again
        if original is None:
            return False
        sampler.gather_logprobs = _capture(original, num_head, num_draws, with_entropy)
        return True


def _capture(original: Any, num_head: int, num_draws: int, with_entropy: bool) -> Any:
    import torch

    width = num_head + num_draws + int(with_entropy)
    generators: dict[Any, Any] = {}

    def gather_logprobs(logprobs: Any, num_logprobs: int, token_ids: Any) -> Any:
        if num_logprobs != width:  # not one of ours: the self-test asks for the whole distribution
            return original(logprobs, num_logprobs, token_ids)
        gathered = original(logprobs, max(num_head, 1), token_ids)
        indices, values = gathered.logprob_token_ids, gathered.logprobs
        columns_ids, columns_values = [indices[:, : 1 + num_head]], [values[:, : 1 + num_head]]
        probabilities = logprobs.exp()
        if with_entropy:
            entropy = torch.special.entr(probabilities).sum(dim=-1, keepdim=True)
        if num_draws:
            head = indices[:, 1 : 1 + num_head].long()
            probabilities.scatter_(1, head, 0.0)  # what the head leaves; all, where there is none
            if num_head:
                is_empty = probabilities.sum(dim=-1, keepdim=True) <= 0
                probabilities.scatter_(1, head[:, :1], is_empty.to(probabilities.dtype))  # dropped again as the head's
            if logprobs.device not in generators:  # its own, so that a request's seed is not disturbed
                generators[logprobs.device] = torch.Generator(device=logprobs.device)
                generators[logprobs.device].seed()
            generator = generators[logprobs.device]
            drawn = torch.multinomial(probabilities, num_draws, replacement=True, generator=generator)
            columns_ids.append(drawn.to(indices.dtype))
            columns_values.append(logprobs.gather(1, drawn))
        if with_entropy:
            columns_ids.append(torch.zeros_like(indices[:, :1]))
            columns_values.append(entropy.to(values.dtype))
        return gathered._replace(logprob_token_ids=torch.cat(columns_ids, 1), logprobs=torch.cat(columns_values, 1))

    return gather_logprobs
