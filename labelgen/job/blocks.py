"""Collects the answers of each block until it is complete; blocks overlap, so that no straggler holds up the engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from labelgen.job.requests import PromptRequests
from labelgen.prompts.prompt import Prompt, Reject
from labelgen.prompts.snapshot import PromptSnapshot
from labelgen.teachers.teacher import Answer, EngineError, Refusal, Request
from labelstore.record import LabelRecord
from labelstore.record_checks import find_problems

__all__ = ["BlockCollector", "CompleteBlock"]

# One odd answer must not end a job of ten million; this many, and this share of all, are no accident.
_UNSOUND_AT_LEAST = 8
_UNSOUND_SHARE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteBlock:
    """A block whose every request has been answered or refused."""

    block: str
    records: list[LabelRecord]  # in the order of prompts, then of responses or windows
    rejects: list[Reject]
    num_prompts: int
    num_rejected: int  # prompts without a record


@dataclass(slots=True, kw_only=True)
class _OpenBlock:
    prompts: list[Prompt]
    records: dict[tuple[int, int], LabelRecord] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    num_waiting: int = 0  # requests without an answer
    is_drawn: bool = False  # all its requests have been made


class BlockCollector:
    """Hands out the requests of some blocks, one after the other, and takes the answers in any order."""

    def __init__(self, snapshot: PromptSnapshot, blocks: list[str], requests: PromptRequests) -> None:
        self._snapshot = snapshot
        self._blocks = blocks
        self._requests = requests
        self._open: dict[str, _OpenBlock] = {}
        self._complete: list[CompleteBlock] = []
        self.num_prompts_drawn = 0
        self.num_rejected = 0
        self._num_answers = 0
        self._num_unsound = 0

    def requests(self) -> Iterator[Request]:
        """Yield the requests of all blocks; a prompt that gives none becomes a reject."""
        for block in self._blocks:
            state = _OpenBlock(prompts=self._snapshot.read_block(block))
            self._open[block] = state
            for row, prompt in enumerate(state.prompts):
                try:
                    requests = self._requests.make(prompt, f"{block}/{row}")
                except ValueError as error:
                    self._reject(state, prompt, str(error))
                    requests = []
                state.num_waiting += len(requests)
                self.num_prompts_drawn += 1
                yield from requests
            state.is_drawn = True
            self._close_if_complete(block, state)

    def take(self, answer: Answer | Refusal) -> LabelRecord | None:
        """Take an answer in; return its record, or None for a refusal."""
        block, row_text, number = answer.request_id.split("/")
        state, row = self._open[block], int(row_text)
        state.num_waiting -= 1
        prompt = state.prompts[row]
        record: LabelRecord | None = None
        if isinstance(answer, Refusal):
            kind = "offset" if self._requests.spec.task == "score" else "response"
            self._reject(state, prompt, f"{kind} {number}: {answer.reason}")
        else:
            record = self._sound_record(state, prompt, answer)
            if record is not None:
                state.records[row, int(number)] = record
        self._close_if_complete(block, state)
        return record

    def _sound_record(self, state: _OpenBlock, prompt: Prompt, answer: Answer) -> LabelRecord | None:
        """Return the record of an answer; one whose labels contradict themselves becomes a reject.

        Raises:
            EngineError: too many do; the teacher is broken, not an answer.
        """
        self._num_answers += 1
        record = self._requests.to_record(prompt, answer)
        problem = next(find_problems(record, vocab_size=self._requests.facts.vocab_size), None)
        if problem is None:
            return record
        self._num_unsound += 1
        if self._num_unsound >= _UNSOUND_AT_LEAST and self._num_unsound > _UNSOUND_SHARE * self._num_answers:
            raise EngineError(
                f"the labels of {self._num_unsound:,} of {self._num_answers:,} answers contradict themselves; "
                f"the last: record {record.record_id!r}: {problem}"
            )
        self._reject(state, prompt, f"the labels of record {record.record_id!r} contradict themselves: {problem}")
        return None

    def take_complete(self) -> list[CompleteBlock]:
        """Return the blocks that have become complete since the last call."""
        complete, self._complete = self._complete, []
        return complete

    def _reject(self, state: _OpenBlock, prompt: Prompt, reason: str) -> None:
        self.num_rejected += 1
        state.rejects.append(Reject(source=prompt.source, line=prompt.line, prompt_id=prompt.prompt_id, reason=reason))

    def _close_if_complete(self, block: str, state: _OpenBlock) -> None:
        if not state.is_drawn or state.num_waiting:
            return
        del self._open[block]
        with_record = {row for row, _ in state.records}
        self._complete.append(
            CompleteBlock(
                block=block,
                records=[record for _, record in sorted(state.records.items(), key=lambda item: item[0])],
                rejects=state.rejects,
                num_prompts=len(state.prompts),
                num_rejected=len(state.prompts) - len(with_record),
            )
        )
