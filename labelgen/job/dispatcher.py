"""Which block goes to which replica next, and what is known of the deaths over it."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping

from labelgen.job.heartbeat import Heartbeat
from labelgen.job.predecessors import Predecessors, count_deaths
from labelgen.job.replica import Assignment

__all__ = ["Dispatcher"]

# A block that was open at so many deaths of replicas runs apart from others, so that a poison in it is found.
_DEATHS_OF_A_SUSPECT_BLOCK = 3


class Dispatcher:
    """Hands blocks out one by one; those of a replica that died go to another."""

    def __init__(
        self, blocks: Mapping[str, int], predecessors: Predecessors, *, is_published: Callable[[str], bool]
    ) -> None:
        """Hand out blocks, given with their numbers of prompts, in this order.

        `is_published` is asked of the blocks of a dead replica, which may have published them as its last act.
        """
        self._is_published = is_published
        self._num_prompts = dict(blocks)
        self._waiting = collections.deque(blocks)
        self._open: dict[str, int] = {}  # by block: the replica that has it
        self._died_last: dict[str, int] = {}  # by block: the last replica that died over it
        self._block_deaths: collections.Counter[str] = collections.Counter()
        self._deaths: dict[str, int] = dict(predecessors.deaths)
        self._lone_deaths: dict[str, int] = dict(predecessors.lone_deaths)
        self.num_published_prompts = 0

    @property
    def is_done(self) -> bool:
        """Are all blocks published?"""
        return not self._waiting and not self._open

    @property
    def num_unpublished(self) -> int:
        return len(self._waiting) + len(self._open)

    @property
    def has_waiting(self) -> bool:
        """Is there a block that no replica has?"""
        return bool(self._waiting)

    @property
    def deaths(self) -> Mapping[str, int]:
        """By request id: deaths of jobs or replicas in a row while it was in flight."""
        return self._deaths

    @property
    def lone_deaths(self) -> Mapping[str, int]:
        """Of those, the ones with nothing beside it."""
        return self._lone_deaths

    def next_for(self, replica: int, *, is_only: bool) -> Assignment | None:
        """Give a replica a block; None if there is none.

        One over which it died is for another replica, unless it `is_only`: a broken machine must not blame prompts.
        """
        block = next((block for block in self._waiting if is_only or self._died_last.get(block) != replica), None)
        if block is None:
            return None
        self._waiting.remove(block)
        self._open[block] = replica
        known = Predecessors(
            beside=(),
            superseded={},
            deaths=_of_block(self._deaths, block),
            lone_deaths=_of_block(self._lone_deaths, block),
        )
        return Assignment(
            block=block,
            is_suspect=self._block_deaths[block] >= _DEATHS_OF_A_SUSPECT_BLOCK,
            suspect_ids=tuple(known.suspect_ids),
            verdicts=known.verdicts,
            deaths=known.deaths,
            lone_deaths=known.lone_deaths,
        )

    def publish(self, blocks: Iterable[str]) -> None:
        """Note that blocks are published."""
        for block in blocks:
            if self._open.pop(block, None) is not None:
                self.num_published_prompts += self._num_prompts[block]

    def lose(self, replica: int, *, last_beats: Iterable[Heartbeat]) -> list[str]:
        """Take back the blocks of a replica; return them. Its last heartbeats say what was in flight at its death."""
        owned = [block for block, owner in self._open.items() if owner == replica]
        lost = [block for block in owned if not self._is_published(block)]
        self.publish(set(owned).difference(lost))
        for block in reversed(lost):
            del self._open[block]
            self._block_deaths[block] += 1
            self._died_last[block] = replica
            self._waiting.appendleft(block)
        deaths, lone_deaths = count_deaths(last_beats)
        for known, new in ((self._deaths, deaths), (self._lone_deaths, lone_deaths)):
            for name, count in new.items():
                known[name] = max(known.get(name, 0), count)
        return lost


def _of_block(counts: Mapping[str, int], block: str) -> dict[str, int]:
    return {name: count for name, count in counts.items() if name.partition("/")[0] == block}
