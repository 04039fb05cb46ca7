"""Does a student fit a dataset's labels? Its tokenizer must mean the same by an id, its output layer have the rows."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from labelstore.dataset import LabelDataset
from labelstore.record import LabelRecord
from labelstore.sealed_json import canonical_json

__all__ = ["StudentModel", "StudentTokenizer", "check_model", "check_tokenizer", "output_rows"]

_NUM_LOOKED_AT = 32  # records
_MAX_LOST_MASS = 1e-3  # mean a label; padding rows of an output layer hold some 1e-7


class StudentTokenizer(Protocol):
    """What is asked of a tokenizer; those of Transformers have it."""

    def get_vocab(self) -> Mapping[str, int]:
        """Return the id of each token."""

    def decode(self, token_ids: Sequence[int], /) -> str: ...


class OutputLayer(Protocol):
    """A layer that makes logits."""

    @property
    def weight(self) -> Any:
        """A matrix [V, ...]."""


class TransformersModel(Protocol):
    """What is asked of a model; those of Transformers have it."""

    def get_output_embeddings(self) -> OutputLayer | None: ...


StudentModel = TransformersModel | int
"""A model of Transformers, or the rows of the output layer of any other."""


def check_tokenizer(dataset: LabelDataset, tokenizer: StudentTokenizer) -> None:
    """Check by content that a student's tokenizer names every id as the teacher's does.

    A tokenizer with the teacher's tokens and further ones behind them fits. Sizes say nothing: a foreign tokenizer of
    the same size is refused, and an output layer with padding rows is nothing to a tokenizer.

    Warns:
        UserWarning: the student ends a text with another token than the teacher's responses end with.

    Raises:
        ValueError: the tokenizer is another one, or the dataset does not say which one the teacher has.
    """
    fields = dataset.header.fingerprint_fields
    wanted = fields.get("tokenizer")
    if wanted is None:
        raise ValueError(
            f"{dataset!r}: does not say which tokenizer its teacher, {dataset.header.teacher}, has, so that no "
            f"student's can be checked. Its labels have to be made again by a labelgen that records it."
        )
    vocabulary = sorted((token_id, token) for token, token_id in tokenizer.get_vocab().items())
    if wanted not in _prefix_hashes(vocabulary):
        raise ValueError(
            f"the student's tokenizer of {len(vocabulary):,} tokens is not the teacher's, {dataset.header.teacher}. "
            f"The same ids stand for other tokens{_example(dataset, tokenizer)}. Soft labels cannot be used with it; "
            f"train on the records' text, or take the teacher's tokenizer."
        )
    stop_ids, end = fields.get("stop_ids"), getattr(tokenizer, "eos_token_id", None)
    if stop_ids and end is not None and end not in stop_ids:
        warnings.warn(
            f"the student's tokenizer ends a text with token {end}, the teacher's responses end with {stop_ids}: "
            f"let the student's generation stop at {stop_ids}, which is what it learns to write",
            stacklevel=2,
        )


def check_model(dataset: LabelDataset, model: StudentModel) -> int:
    """Check that a student's output layer has a row for each id; return the ids that labels for it may hold.

    A head with padding rows is fine, on either side: where the student has fewer rows than the teacher, a look at the
    first records shows whether the teacher believed anything of the rows that are missing.

    Warns:
        UserWarning: it has fewer rows; candidates beyond them will count as tail.

    Raises:
        ValueError: labels are about tokens that the student has no row for.
    """
    num_rows, teacher_rows = output_rows(model), dataset.header.vocab_size
    if num_rows >= teacher_rows:
        return teacher_rows
    records = list(itertools.islice(dataset, _NUM_LOOKED_AT))
    highest = max((int(record.input_ids.max(initial=0)) for record in records), default=0)
    lost = _mass_beyond(records, num_rows)
    if highest >= num_rows or lost > _MAX_LOST_MASS:
        raise ValueError(
            f"the student's output layer has {num_rows:,} rows, the teacher's {teacher_rows:,}, and the rows between "
            f"are used: the first records go up to id {highest:,}, and {lost:.1%} of the teacher's mass is there. "
            f"Take a student with the teacher's tokenizer, or resize its output layer to its tokenizer's length."
        )
    warnings.warn(
        f"the student's output layer has {num_rows:,} rows, the teacher's {teacher_rows:,}: those between are padding, "
        f"with {lost:.1e} of the teacher's mass. Candidates there count as tail.",
        stacklevel=2,
    )
    return num_rows


def output_rows(model: StudentModel) -> int:
    """Return the rows of a model's output layer: the columns of its logits.

    Raises:
        TypeError: it is neither a number nor a model that says.
    """
    if isinstance(model, int):
        return model
    find_layer = getattr(model, "get_output_embeddings", None)
    layer = None if find_layer is None else find_layer()
    if layer is None:
        raise TypeError(
            f"{type(model).__name__} does not say how many rows its output layer has; give that number as model="
        )
    return int(layer.weight.shape[0])


def _prefix_hashes(vocabulary: Sequence[tuple[int, str]]) -> Iterable[str]:
    """Yield the hash of the first tokens of a vocabulary, for every number of them, all of them first.

    It is how the fingerprint's `tokenizer` is made: sha256 of the canonical JSON of [id, token] pairs by rising id.
    """
    yield hashlib.sha256(canonical_json(vocabulary)).hexdigest()
    so_far = hashlib.sha256(b"[")
    for place, pair in enumerate(vocabulary):
        so_far.update((b"," if place else b"") + canonical_json(pair))
        whole = so_far.copy()
        whole.update(b"]")
        yield whole.hexdigest()


def _example(dataset: LabelDataset, tokenizer: StudentTokenizer) -> str:
    """Return how a record reads with a tokenizer, and how it should; nothing where there is no such record."""
    for record in itertools.islice(dataset, _NUM_LOOKED_AT):
        if record.text is None or not len(record.labels):
            continue
        try:
            got = tokenizer.decode(record.target_ids[:8].tolist())
        except (KeyError, IndexError, OverflowError, TypeError, ValueError):
            got = "nothing: it has no such ids"
        if not record.text.strip().startswith(got.strip()):
            return f" (record {record.record_id} begins {record.text[:40]!r}, with this tokenizer {got[:40]!r})"
    return ""


def _mass_beyond(records: Sequence[LabelRecord], num_rows: int) -> float:
    """Return the mean probability a label that candidates from num_rows on have."""
    lost = sum(
        float(np.exp(record.logprobs[record.token_ids >= num_rows].astype(np.float64)).sum()) for record in records
    )
    return lost / max(1, sum(len(record.labels) for record in records))
