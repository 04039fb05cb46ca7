"""Collators: records become a batch, padded or packed. What a DataLoader takes as `collate_fn`.

A record longer than a row is cut at its end, with its labels. It is never cut at its start: a label is the teacher's
belief given all that stands before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from labelstore.dataset import LabelDataset
from labelstore.packing import pack_sequences
from labelstore.record import LabelRecord
from labelstore.student_checks import StudentModel, StudentTokenizer, check_model, check_tokenizer
from labelstore.torch.batch import IGNORED, Batch
from labelstore.torch.stack_labels import stack_labels

__all__ = ["Collator", "PackingCollator", "PaddingCollator"]


class Collator(Protocol):
    """Makes a batch of records."""

    def __call__(self, records: Sequence[LabelRecord], /) -> Batch: ...


class PaddingCollator:
    """One record a row, with padding behind it up to the longest of the batch."""

    def __init__(
        self,
        dataset: LabelDataset,
        *,
        tokenizer: StudentTokenizer,
        model: StudentModel,
        max_length: int,
        pad_token_id: int = 0,
        pad_to_multiple_of: int = 1,
    ) -> None:
        """Check that the student's tokenizer and output layer fit the labels; of both, only the rows' number is kept.

        `max_length` is in tokens. The padding is masked, so that any id will do.

        Raises:
            ValueError: the student cannot learn these labels, or a length is too small.
        """
        if pad_to_multiple_of < 1:
            raise ValueError(f"pad_to_multiple_of must be at least 1, got {pad_to_multiple_of}")
        self._layout = _Layout(dataset, tokenizer, model, max_length=max_length, pad_token_id=pad_token_id)
        self._max_length = max_length
        self._multiple = pad_to_multiple_of

    def __call__(self, records: Sequence[LabelRecord]) -> Batch:
        """Return the batch [B, L] of B records.

        Raises:
            ValueError: there are no records, or one has ids that the student cannot name.
        """
        rows = [[place] for place in range(len(records))]
        longest = max((len(record.input_ids) for record in records), default=0)
        row_length = -(-min(longest, self._max_length) // self._multiple) * self._multiple
        return self._layout.batch(records, rows, row_length=row_length, is_packed=False)


class PackingCollator:
    """Several records a row, in as few rows of `row_length` tokens as first-fit decreasing finds.

    No record sees another one, where the model is given the batch's `position_ids` (Transformers), or an attention
    kernel its `cu_seqlens`. What a row has left is padding, a sequence of its own.
    """

    def __init__(
        self,
        dataset: LabelDataset,
        *,
        tokenizer: StudentTokenizer,
        model: StudentModel,
        row_length: int,
        pad_token_id: int = 0,
    ) -> None:
        """Check that the student's tokenizer and output layer fit the labels; of both, only the rows' number is kept.

        Raises:
            ValueError: the student cannot learn these labels, or a row is too short.
        """
        self._layout = _Layout(dataset, tokenizer, model, max_length=row_length, pad_token_id=pad_token_id)
        self._row_length = row_length

    def __call__(self, records: Sequence[LabelRecord]) -> Batch:
        """Return the batch [B, row_length] of some records, in as many rows B as they need.

        Raises:
            ValueError: there are no records, or one has ids that the student cannot name.
        """
        lengths = [min(len(record.input_ids), self._row_length) for record in records]
        rows = pack_sequences(lengths, row_length=self._row_length)
        return self._layout.batch(records, rows, row_length=self._row_length, is_packed=True)


class _Layout:
    """Lays records out in rows of tokens."""

    def __init__(
        self,
        dataset: LabelDataset,
        tokenizer: StudentTokenizer,
        model: StudentModel,
        *,
        max_length: int,
        pad_token_id: int,
    ) -> None:
        if max_length < 2:
            raise ValueError(
                f"rows must have at least 2 tokens, one to read and one that is labelled, got {max_length}"
            )
        check_tokenizer(dataset, tokenizer)
        self._selection = dataset.header.selection
        self._vocab_size = check_model(dataset, model)
        self._max_length = max_length
        self._pad_token_id = pad_token_id

    def batch(
        self, records: Sequence[LabelRecord], rows: Sequence[Sequence[int]], *, row_length: int, is_packed: bool
    ) -> Batch:
        """Return the batch whose rows hold the records of these places, one behind the other."""
        if not records:
            raise ValueError("a batch needs at least one record, got none")
        shape = (len(rows), row_length)
        input_ids = np.full(shape, self._pad_token_id, dtype=np.int64)
        position_ids, is_token = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        starts, lengths, edges = [], [], [0]
        laid = [records[place] for row in rows for place in row]
        for row, places in enumerate(rows):
            column = 0
            for record in (records[place] for place in places):
                length = min(len(record.input_ids), self._max_length)
                part = slice(column, column + length)
                input_ids[row, part] = record.input_ids[:length]
                position_ids[row, part] = np.arange(length)
                is_token[row, part] = 1
                starts.append(row * row_length + column)
                lengths.append(length)
                column += length
                edges.append(row * row_length + column)
            if column < row_length:
                # From 0 on: Transformers begins a sequence where position ids do not go on.
                position_ids[row, column:] = np.arange(row_length - column) if is_packed else 0
                edges.append((row + 1) * row_length)
        soft = stack_labels(
            laid, starts=starts, lengths=lengths, selection=self._selection, vocab_size=self._vocab_size
        )
        labels = np.full(shape[0] * shape[1], IGNORED, dtype=np.int64)
        for record, start, length in zip(laid, starts, lengths, strict=True):
            hard = record.span_positions
            hard = hard[: np.searchsorted(hard, length)]
            labels[start + hard] = record.input_ids[hard]
        return Batch(
            input_ids=torch.from_numpy(input_ids),
            position_ids=torch.from_numpy(position_ids),
            attention_mask=torch.from_numpy(is_token),
            labels=torch.from_numpy(labels.reshape(shape)),
            cu_seqlens=torch.tensor(edges, dtype=torch.int32),
            soft=soft,
            record_ids=tuple(record.record_id for record in laid),
            num_cut_labels=sum(len(record.labels) for record in records) - len(soft),
            is_packed=is_packed,
        )
