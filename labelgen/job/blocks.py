"""Hands out the requests of blocks and takes their answers; blocks overlap, so that no straggler holds up the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from labelgen.job.requests import PromptRequests
from labelgen.prompts.prompt import Prompt, Reject
from labelgen.prompts.rejects import RejectLimit
from labelgen.prompts.snapshot import PromptSnapshot
from labelgen.teachers.teacher import Answer, EngineError, Refusal, Request
from labelstore.journal import BlockResponses, Journal
from labelstore.journal_segment import RefusedResponse
from labelstore.record import LabelRecord
from labelstore.record_checks import find_problems

__all__ = ["BlockCollector", "CompleteBlock", "collect_block"]

# One odd answer must not end a job of ten million; this many, and this share of all, are no accident.
_UNSOUND_AT_LEAST = 8
_UNSOUND_SHARE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteBlock:
    """A block whose every request has been answered or refused, as it is published."""

    block: str
    records: list[LabelRecord]  # in the order of prompts, then of responses or windows
    rejects: list[Reject]
    num_prompts: int
    num_rejected: int  # prompts without a record
    num_refused: int  # responses or windows without a record, of prompts that have others


@dataclass(slots=True, kw_only=True)
class _OpenBlock:
    waiting: dict[int, Prompt] = field(default_factory=dict)  # by row: those with a request that is not answered
    num_requests: dict[int, int] = field(default_factory=dict)  # by row: how many are not answered
    rejects: list[Reject] = field(default_factory=list)  # of prompts that gave no request
    is_drawn: bool = False  # all its requests have been made


class BlockCollector:
    """Hands out the requests of some blocks, one after the other, and takes the answers in any order."""

    def __init__(
        self,
        snapshot: PromptSnapshot,
        blocks: Iterable[str],
        requests: PromptRequests,
        journal: Journal,
        *,
        max_rejects: RejectLimit | None = None,
    ) -> None:
        """A block is drawn from `blocks` when all requests of the one before are made.

        `requests` and `take` raise ValueError when more than `max_rejects` are rejected.
        """
        self._snapshot = snapshot
        self._max_rejects = max_rejects
        self._blocks = blocks
        self._requests = requests
        self._journal = journal
        self._open: dict[str, _OpenBlock] = {}
        self._complete: list[tuple[str, list[Reject]]] = []
        self.num_prompts_drawn = 0
        self.num_prompts_done = 0  # every response of theirs is there, from this job or an earlier one
        self.num_prompts_answered = 0  # of those, by this job
        self.num_rejected = 0
        self._num_answers = 0
        self._num_unsound = 0

    def requests(self) -> Iterator[Request]:
        """Yield the requests of all blocks that no earlier job answered; a prompt that gives none becomes a reject."""
        for block in self._blocks:
            answered = self._journal.open_block(block, sha256=self._snapshot.block_sha256(block))
            state = self._open[block] = _OpenBlock()
            for row, prompt in enumerate(self._snapshot.read_block(block)):
                self.num_prompts_drawn += 1
                requests = self._unanswered(block, row, prompt, state, answered)
                if requests:
                    state.waiting[row], state.num_requests[row] = prompt, len(requests)
                else:
                    self.num_prompts_done += 1
                yield from requests
            state.is_drawn = True
            self._close_if_complete(block, state)

    def take(self, answer: Answer | Refusal) -> LabelRecord | None:
        """Take an answer in; return its record, or None for a refusal.

        Raises:
            EngineError: too many answers contradict themselves.
            OSError: the journal could not be written.
        """
        block, row_text, _ = answer.request_id.split("/")
        state, row = self._open[block], int(row_text)
        prompt = state.waiting[row]
        response = self._to_response(prompt, answer)
        self._journal.add(block, response)
        state.num_requests[row] -= 1
        if state.num_requests[row] == 0:
            del state.waiting[row], state.num_requests[row]
            self.num_prompts_done += 1
            self.num_prompts_answered += 1
        self._close_if_complete(block, state)
        if isinstance(response, LabelRecord):
            return response
        self._count_reject(response.reason)
        return None

    def take_complete(self) -> list[tuple[str, list[Reject]]]:
        """Return the blocks that have become complete since the last call, with the rejects that made no request."""
        complete, self._complete = self._complete, []
        return complete

    def _unanswered(self, block: str, row: int, prompt: Prompt, state: _OpenBlock, answered: set[str]) -> list[Request]:
        try:
            requests = self._requests.make(prompt, f"{block}/{row}")
        except ValueError as error:
            reason = str(error)
        else:
            record_id = self._requests.record_id
            return [request for request in requests if record_id(prompt, request.request_id) not in answered]
        state.rejects.append(_reject(prompt, reason))
        self._count_reject(reason)
        return []

    def _count_reject(self, reason: str) -> None:
        self.num_rejected += 1
        if self._max_rejects is not None:
            self._max_rejects.check(num_rejected=self.num_rejected, num_rows=self.num_prompts_drawn, last=reason)

    def _to_response(self, prompt: Prompt, answer: Answer | Refusal) -> LabelRecord | RefusedResponse:
        """Return the record of an answer, or why there is none: refused, or its labels contradict themselves.

        Raises:
            EngineError: too many do; the teacher is broken, not an answer.
        """
        record_id = self._requests.record_id(prompt, answer.request_id)
        kind = "offset" if prompt.text is not None else "sequence" if prompt.sequences else "response"
        name = f"{kind} {answer.request_id.rsplit('/', 1)[-1]}"
        if isinstance(answer, Refusal):
            reason = f"{name}: {answer.reason}"
            return RefusedResponse(prompt_id=prompt.prompt_id, record_id=record_id, reason=reason)
        self._num_answers += 1
        try:
            record = self._requests.to_record(prompt, answer)
        except ValueError as error:
            return RefusedResponse(prompt_id=prompt.prompt_id, record_id=record_id, reason=f"{name}: {error}")
        problem = next(find_problems(record, vocab_size=self._requests.facts.vocab_size), None)
        if problem is None:
            return record
        self._num_unsound += 1
        if self._num_unsound >= _UNSOUND_AT_LEAST and self._num_unsound > _UNSOUND_SHARE * self._num_answers:
            raise EngineError(
                f"the labels of {self._num_unsound:,} of {self._num_answers:,} answers contradict themselves; "
                f"the last: record {record_id!r}: {problem}"
            )
        reason = f"the labels of record {record_id!r} contradict themselves: {problem}"
        return RefusedResponse(prompt_id=prompt.prompt_id, record_id=record_id, reason=reason)

    def _close_if_complete(self, block: str, state: _OpenBlock) -> None:
        if state.is_drawn and not state.waiting:
            del self._open[block]
            self._complete.append((block, state.rejects))


def collect_block(block: str, prompts: list[Prompt], responses: BlockResponses, unasked: list[Reject]) -> CompleteBlock:
    """Put all that a block's prompts gave in order; `unasked` are the rejects of prompts that gave no request."""
    row_of = {prompt.prompt_id: row for row, prompt in enumerate(prompts)}
    records = sorted(
        responses.records,
        key=lambda record: (row_of[record.prompt_id], record.document_offset or 0, record.response_index),
    )
    refused = sorted(responses.refused, key=lambda response: (row_of[response.prompt_id], response.record_id))
    with_record = {record.prompt_id for record in records}
    return CompleteBlock(
        block=block,
        records=records,
        rejects=[*unasked, *(_reject(prompts[row_of[response.prompt_id]], response.reason) for response in refused)],
        num_prompts=len(prompts),
        num_rejected=len(prompts) - len(with_record),
        num_refused=sum(response.prompt_id in with_record for response in refused),
    )


def _reject(prompt: Prompt, reason: str) -> Reject:
    return Reject(source=prompt.source, line=prompt.line, prompt_id=prompt.prompt_id, reason=reason)
