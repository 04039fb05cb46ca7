"""Lets a teacher read records of a dataset again, and says whether their labels are its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from labelgen.prompts.prompt import Prompt
from labelgen.prompts.snapshot import PromptSnapshot
from labelgen.prompts.token_spans import TokenSpan
from labelgen.rescore.agreement import measure_agreement
from labelgen.rescore.diagnosis import diagnose_labels
from labelgen.rescore.limits import Limits
from labelgen.rescore.prompt_check import find_prompt_problems
from labelgen.rescore.reading import Reading
from labelgen.teachers.teacher import Answer, EngineError, Refusal, ScoreRequest, Teacher
from labelstore.dataset import LabelDataset
from labelstore.dataset_writer import utc_now
from labelstore.record import LabelRecord
from labelstore.rescored import Rescored

__all__ = ["rescore_dataset"]

_TRIES = 4  # records looked at for each that is read: the first tokens of some hold no label, or there is none


def rescore_dataset(
    dataset: LabelDataset,
    teacher: Teacher,
    *,
    num_records: int,
    limits: Limits,
    rng: np.random.Generator,
    snapshot: PromptSnapshot | None,
) -> Rescored:
    """Let the teacher read `num_records` records drawn at random, teacher-forced, and compare.

    Of a record longer than what the teacher can score safely, the first tokens are read: they depend on no later one.
    `snapshot` None: the dataset has none.

    Raises:
        EngineError: the teacher does not start, dies, or can score nothing.
        DamagedDatasetError: a record cannot be read.
    """
    if teacher.facts.scoring_problem is not None:
        raise EngineError(teacher.facts.scoring_problem)
    most = teacher.facts.max_scored_tokens
    chosen = _choose(dataset, num_records, most, rng)
    readings: list[Reading] = []
    refusals: list[Refusal] = []
    requests = (
        ScoreRequest(
            request_id=str(index),
            input_ids=record.input_ids[:most],
            spans=(TokenSpan(start=1, stop=min(len(record.input_ids), most), kind="text"),),
        )
        for index, (record, _) in chosen.items()
    )
    for answer in teacher.label(requests):
        if isinstance(answer, Answer):
            record, tolerance = chosen[int(answer.request_id)]
            readings.append(Reading(record=record, tolerance=tolerance, again=answer.labels))
        else:
            refusals.append(answer)
    agreement = measure_agreement(readings, limits)
    records = {index: record for index, (record, _) in chosen.items()}
    prompts = {} if snapshot is None else _prompts(dataset, records, snapshot)
    problems = _refused(refusals, len(chosen))
    prefill = dataset.header.fingerprint_fields.get("prefill")
    problems += find_prompt_problems(list(records.values()), teacher.tokenizer, prompts=prompts, prefill=prefill)
    if (problem := diagnose_labels(agreement)) is not None:
        problems.append(problem)
    return Rescored(
        num_records=agreement.num_records,
        num_labels=agreement.num_labels,
        median_nats=agreement.median_nats,
        p999_nats=agreement.p999_nats,
        largest_nats=agreement.largest_nats,
        kl_nats=agreement.kl_nats,
        num_argmax_equal=agreement.num_argmax_equal,
        num_argmax_tied=agreement.num_argmax_tied,
        num_argmax_different=agreement.num_argmax_different,
        problems=tuple(problems),
        recorded=dict(teacher.facts.recorded),
        created_at=utc_now(),
    )


def _choose(
    dataset: LabelDataset, num_records: int, max_tokens: int, rng: np.random.Generator
) -> dict[int, tuple[LabelRecord, NDArray[np.float64] | None]]:
    """Return records by number, each with its codecs' tolerance, in the order they are stored in.

    Only such as have a label in their first tokens.
    """
    usable: dict[int, tuple[LabelRecord, NDArray[np.float64] | None]] = {}
    for indices in _drawn(len(dataset), num_records, rng):
        for index in indices:
            record, tolerance = dataset.with_tolerance(index)
            if len(record.spans) and record.spans[0, 0] < max_tokens and len(usable) < num_records:
                usable[index] = record, tolerance
        if len(usable) >= num_records:
            break
    return {index: usable[index] for index in sorted(usable)}


def _drawn(size: int, num_records: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Yield random numbers below `size`, each once, as many at a time as are wanted; sorted, as that is read faster."""
    order = rng.choice(size, min(size, _TRIES * num_records), replace=False)
    for start in range(0, len(order), max(num_records, 1)):
        yield sorted(order[start : start + num_records].tolist())


def _prompts(dataset: LabelDataset, records: Mapping[int, LabelRecord], snapshot: PromptSnapshot) -> dict[str, Prompt]:
    """Return the records' prompts by id, those that the snapshot has."""
    blocks = set(snapshot.blocks)
    wanted: dict[str, set[str]] = {}
    for index, record in records.items():
        wanted.setdefault(dataset.block_of(index), set()).add(record.prompt_id)
    found: dict[str, Prompt] = {}
    for block in sorted(wanted.keys() & blocks):  # an id may stand in two blocks
        found |= {
            prompt.prompt_id: prompt for prompt in snapshot.read_block(block) if prompt.prompt_id in wanted[block]
        }
    return found


def _refused(refusals: list[Refusal], num_chosen: int) -> list[str]:
    """Say that the teacher cannot read ids that are said to be its own."""
    if not refusals:
        return []
    return [
        f"the teacher refuses {len(refusals)} of {num_chosen} records: {refusals[0].reason}; "
        f"another tokenizer, or another model"
    ]
