"""A sample of a prompt set of any length: the N prompts with the smallest seeded hashes, so that samples nest."""

from __future__ import annotations

import hashlib
import heapq
import pickle
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from labelgen.prompts.prompt import Prompt

__all__ = ["PromptSample", "sample_hash"]

_ELSEWHERE = -1  # instead of a place: the snapshot holds the prompt already


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSample:
    """How many prompts, and the seed of their choice.

    Raises:
        ValueError: the size is not positive.
    """

    size: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"--sample-prompts must be at least 1, got {self.size}")

    def choose(self, prompts: Iterable[Prompt], *, present_ids: Iterable[str]) -> Iterator[Prompt]:
        """Yield those of the prompts that belong to the sample, in their order.

        Prompts with `present_ids` are there already and take their place in the sample. Memory holds a hash and a
        place for each prompt of the sample; what may still be chosen waits on disk.
        """
        chosen: list[tuple[int, int]] = []  # (-hash, place), the largest hash first
        for prompt_id in present_ids:
            self._offer(chosen, prompt_id, _ELSEWHERE)
        with tempfile.TemporaryFile(prefix="labelgen-") as spool:
            for prompt in prompts:
                if self._offer(chosen, prompt.prompt_id, spool.tell()):
                    pickle.dump(prompt, spool, protocol=pickle.HIGHEST_PROTOCOL)
            for place in sorted(place for _, place in chosen if place != _ELSEWHERE):
                spool.seek(place)
                yield pickle.load(spool)

    def _offer(self, chosen: list[tuple[int, int]], prompt_id: str, place: int) -> bool:
        entry = (-sample_hash(prompt_id, seed=self.seed), place)
        if len(chosen) < self.size:
            heapq.heappush(chosen, entry)
            return True
        return heapq.heappushpop(chosen, entry) != entry


def sample_hash(prompt_id: str, *, seed: int) -> int:
    """Return the place of a prompt in the order of a seed, in [0, 2^64)."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{prompt_id}".encode(), digest_size=8).digest(), "little")
