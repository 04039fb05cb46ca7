"""Labels through the deaths of the engine: it is started again, and the request that kills it is found and refused.

What was in flight when the engine died is suspect and runs again apart from all others, in groups. A group that kills
the engine is cut into smaller ones; a request that kills it with nothing beside it is guilty. A death costs a start of
the engine and a group the time of its longest response, so that of n suspects a guilty one is found with log8(n)
deaths more instead of n responses one by one.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from labelgen.teachers.teacher import (
    Answer,
    EngineDeathError,
    EngineError,
    GenerateRequest,
    Refusal,
    Request,
    Teacher,
)

__all__ = ["SuspectFinder"]

_NUM_GROUPS = 8  # that suspects are cut into
# So many verdicts without an answer between them say that the engine is broken, not the prompts.
_MAX_VERDICTS_IN_A_ROW = 3


class SuspectFinder:
    """Answers requests as the teacher does, but survives the deaths of its engine."""

    def __init__(
        self, teacher: Teacher, *, note: Callable[[str], None], before_group: Callable[[], None] = lambda: None
    ) -> None:
        """`before_group` is called when `in_flight` is a group of suspects that the engine is about to get."""
        self._teacher = teacher
        self._note = note
        self._before_group = before_group
        self._suspect_ids: set[str] = set()
        self._suspect_blocks: set[str] = set()
        self._known_verdicts: dict[str, str] = {}
        self._defers = True  # suspects are kept for later
        self._suspects: list[Request] = []
        self._group: Sequence[Request] = ()
        self._in_flight: dict[str, Request] = {}
        self._guilty: set[str] = set()  # prompts, by the beginning of their requests' ids
        self._refused: collections.deque[Refusal] = collections.deque()  # of guilty prompts, not given to the engine
        self._verdicts: list[Refusal] = []  # until the engine has answered something else

    @property
    def in_flight(self) -> list[str]:
        """The ids of the requests that are drawn and not answered. May be asked from any thread."""
        return list(self._in_flight) or [request.request_id for request in self._group]

    @property
    def is_alone(self) -> bool:
        """Is what is in flight a suspect that runs with nothing beside it?"""
        return len(self._group) == 1

    def learn(
        self,
        *,
        suspect_ids: Iterable[str] = (),
        suspect_blocks: Iterable[str] = (),
        verdicts: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Take in what is known from deaths before, of requests that are not drawn yet.

        Suspects run last and apart; requests of `verdicts` are refused for the reason that stands there.
        """
        self._suspect_ids.update(suspect_ids)
        self._suspect_blocks.update(suspect_blocks)
        self._known_verdicts.update(verdicts)

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        """Yield one answer or refusal for each request, as they come.

        Raises:
            EngineError: the engine does not start again, or dies whatever it is given.
        """
        remaining = iter(requests)
        is_done = False
        while not is_done:
            try:
                for answer in self._teacher.label(self._watched(remaining)):
                    yield from self._settle(answer)
                is_done = True
            except EngineDeathError as death:
                in_flight = list(self._in_flight.values())
                self._in_flight.clear()
                self._restart(death)
                self._note(f"{len(in_flight):,} requests were in flight; they run again apart from the others")
                yield from self._try(in_flight)
        self._defers = False
        yield from self._try(self._suspects)
        yield from self._refused
        yield from self._verdicts

    def _try(self, suspects: Sequence[Request]) -> Iterator[Answer | Refusal]:
        """Answer suspects group by group, and name the guilty."""
        groups = collections.deque(_cut(suspects))
        while groups:
            self._group = group = groups.popleft()
            self._before_group()
            waiting = iter(group)
            try:
                for answer in self._teacher.label(self._watched(waiting)):
                    yield from self._settle(answer)
            except EngineDeathError as death:
                in_flight, not_drawn = list(self._in_flight.values()), list(waiting)
                self._in_flight.clear()
                if len(group) == 1:
                    self._condemn(group[0], death)
                else:
                    self._note(f"one of {len(in_flight):,} requests kills the engine; they run again in smaller groups")
                    groups.extendleft([not_drawn] if not_drawn else [])
                    groups.extendleft(reversed(_cut(in_flight)))
                self._restart(death)
        self._group = ()

    def _watched(self, requests: Iterator[Request]) -> Iterator[Request]:
        for request in requests:
            reason = self._known_verdicts.get(request.request_id)
            if reason is None and _prompt_of(request) in self._guilty:
                reason = "another response to its prompt killed the engine"
            if reason is not None:
                self._refused.append(Refusal(request_id=request.request_id, reason=reason))
                continue
            if self._defers and self._is_suspect(request.request_id):
                self._suspects.append(request)
                continue
            self._in_flight[request.request_id] = request
            yield request

    def _is_suspect(self, request_id: str) -> bool:
        return request_id in self._suspect_ids or request_id.partition("/")[0] in self._suspect_blocks

    def _settle(self, answer: Answer | Refusal) -> Iterator[Answer | Refusal]:
        """Yield an answer, and before it the verdicts that it confirms: the engine is well without the guilty."""
        del self._in_flight[answer.request_id]
        if isinstance(answer, Answer):
            verdicts, self._verdicts = self._verdicts, []
            yield from verdicts
        while self._refused:
            yield self._refused.popleft()
        yield answer

    def _condemn(self, request: Request, death: EngineDeathError) -> None:
        reason = f"it kills the engine, also with nothing beside it: {death.cause}"
        self._verdicts.append(Refusal(request_id=request.request_id, reason=reason))
        if isinstance(request, GenerateRequest):
            self._guilty.add(_prompt_of(request))  # its other responses begin with the same tokens
        if len(self._verdicts) >= _MAX_VERDICTS_IN_A_ROW:
            names = ", ".join(verdict.request_id for verdict in self._verdicts)
            raise EngineError(
                f"the engine died {len(self._verdicts)} times in a row with a single request (block/row/response "
                f"{names}): the engine is at fault, not the prompts. {death}"
            ) from death

    def _restart(self, death: EngineDeathError) -> None:
        self._note(f"the engine died ({death.cause}); it is started again")
        self._teacher.close()
        self._teacher.start()


def _cut(requests: Sequence[Request]) -> list[Sequence[Request]]:
    """Cut requests into at most 8 groups of about the same size."""
    size = -(-len(requests) // _NUM_GROUPS)
    return [requests[start : start + size] for start in range(0, len(requests), size)] if requests else []


def _prompt_of(request: Request) -> str:
    return request.request_id.rsplit("/", 1)[0]
