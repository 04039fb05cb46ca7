"""Are a record's ids what the teacher's own tokenizer and chat template make of its text and its prompt?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from labelgen.prompts.prompt import Prompt
from labelgen.prompts.tokenizer import PromptTokenizer, encode_prompt
from labelstore.record import LabelRecord

__all__ = ["find_prompt_problems"]

_Problem = Literal["text", "document", "doubled", "missing", "template"]
_SENTENCES: dict[_Problem, str] = {
    "text": "another tokenizer: the ids of {where} do not decode to the text beside them",
    "document": "another tokenizer: the ids of {where} are not what the teacher's makes of the snapshot's texts",
    "doubled": "a doubled BOS: the prompts of {where} begin with the tokenizer's special tokens twice",
    "missing": "no BOS: the prompts of {where} begin without the tokenizer's special tokens",
    "template": "another template: the prompts of {where} are not what the teacher's makes of the snapshot's prompts",
}
_MAX_DATE_TOKENS = 16
_FEW = 0.25


def find_prompt_problems(
    records: Sequence[LabelRecord],
    tokenizer: PromptTokenizer,
    *,
    prompts: Mapping[str, Prompt],
    prefill: str | None = None,
) -> list[str]:
    """Return what is wrong with the ids of some records, a sentence for each kind of problem.

    `prompts` are those of the snapshot by id; a record without one is looked at as far as its own text goes.
    `prefill` is what the responses were made to begin with.
    """
    found: dict[_Problem, int] = {}
    for record in records:
        problem = _find_problem(record, tokenizer, prompts.get(record.prompt_id), prefill)
        if problem is not None:
            found[problem] = found.get(problem, 0) + 1
    # An engine that cuts a text at a stop string decodes step by step, which may spell a text or two otherwise.
    if found.get("text", 0) <= _FEW * len(records):
        found.pop("text", None)
    return [
        sentence.format(where=f"{found[problem]} of {len(records)} records")
        for problem, sentence in _SENTENCES.items()
        if problem in found
    ]


def _find_problem(
    record: LabelRecord, tokenizer: PromptTokenizer, prompt: Prompt | None, prefill: str | None
) -> _Problem | None:
    if len(record.spans) != 1:
        return None  # several labelled runs have no text of their own
    start, stop = record.spans[0].tolist()
    is_scored = record.document_offset is not None
    if record.text is not None:
        text = tokenizer.decode(record.input_ids[start:stop], skip_special_tokens=not is_scored)
        if not text.lstrip().startswith(record.text.strip()):  # a stop string cuts the text, not the ids
            return "text"
    if prompt is None or prompt.sequences:
        return None  # sequences of another dataset are its teacher's; their tokenizers are equal
    if is_scored:
        return _compare_document(record, start, tokenizer, prompt)
    if record.finish_reason is None or (prompt.prompt is None and prompt.messages is None):
        return None  # a chat that was scored is its own answer
    try:
        prompt_ids = encode_prompt(prompt, tokenizer, prefill=prefill)
    except ValueError:
        return "template"  # this one refuses what the one of then took
    if record.span_kinds[0] == "answer":  # thinking that is not labelled stands before it
        start = min(start, len(prompt_ids))
    return _compare_prompt(record.input_ids[:start], prompt_ids, tokenizer)


def _compare_document(record: LabelRecord, start: int, tokenizer: PromptTokenizer, prompt: Prompt) -> _Problem | None:
    if prompt.text is None:
        return None
    offset = record.document_offset or 0
    document = tokenizer.encode_text(prompt.text, with_special_tokens=False)
    labelled = record.input_ids[start:]
    if not np.array_equal(document[offset : offset + len(labelled)], labelled):
        return "document"
    lead = tokenizer.lead_ids
    if not len(lead):
        return None
    stored = record.input_ids[:start]
    if np.array_equal(stored[: 2 * len(lead)], np.tile(lead, 2)):
        return "doubled"
    num_read_again = max(start - len(lead), 0)  # of a window that overlaps the one before
    return _compare_prompt(stored, np.concatenate([lead, document[offset - num_read_again : offset]]), tokenizer)


def _compare_prompt(
    stored: NDArray[np.int32], wanted: NDArray[np.int32], tokenizer: PromptTokenizer
) -> _Problem | None:
    if np.array_equal(stored, wanted):
        return None
    lead = tokenizer.lead_ids
    if len(lead) and np.array_equal(stored, np.concatenate([lead, wanted])):
        return "doubled"
    if len(lead) and np.array_equal(np.concatenate([lead, stored]), wanted):
        return "missing"
    return None if _is_dated(stored, wanted, tokenizer) else "template"


def _is_dated(stored: NDArray[np.int32], wanted: NDArray[np.int32], tokenizer: PromptTokenizer) -> bool:
    """Return whether two prompts differ in one short place that holds a number: some templates write today's date."""
    shorter = min(len(stored), len(wanted))
    is_same = stored[:shorter] == wanted[:shorter]
    first = shorter if is_same.all() else int(np.argmin(is_same))
    is_same = stored[::-1][: shorter - first] == wanted[::-1][: shorter - first]
    last = len(is_same) if is_same.all() else int(np.argmin(is_same))
    middles = stored[first : len(stored) - last], wanted[first : len(wanted) - last]
    return all(
        len(middle) <= _MAX_DATE_TOKENS and any(character.isdigit() for character in tokenizer.decode(middle))
        for middle in middles
    )
