"""Batches hold what the records hold: every label beside the row of logits that it belongs to, padded or packed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelstore.dataset import LabelDataset
from labelstore.labels import top_k_labels
from labelstore.packing import pack_sequences
from labelstore.record import LabelRecord
from labelstore.selection import Selection
from labelstore.torch import IGNORED, Batch, PackingCollator, PaddingCollator
from labelstore.torch.losses import forward_kl, student_logprobs
from make_records import VOCAB_SIZE, make_labels, make_record
from make_student import make_tokenizer, make_training_dataset, tiny_model

SELECTIONS = [
    Selection(top_k=8),
    Selection(keep_mass=0.7, max_k=40),
    Selection(draws=12, entropy=True),
    Selection(top_k=4, draws=6),
]


def assert_holds(batch: Batch, records: list[LabelRecord], *, max_length: int) -> None:
    """Compare a batch with its records, label by label, in plain Python."""
    by_id = {record.record_id: record for record in records}
    assert sorted(batch.record_ids) == sorted(by_id)
    flat_ids, label, cut = batch.input_ids.reshape(-1).tolist(), 0, 0
    hard = {}
    edges = [edge for edge in batch.cu_seqlens.tolist() if edge < len(flat_ids)]
    starts = [edge for edge in edges if batch.attention_mask.reshape(-1)[edge]]
    for record_id, start in zip(batch.record_ids, starts, strict=True):
        record = by_id[record_id]
        length = min(len(record.input_ids), max_length)
        assert flat_ids[start : start + length] == record.input_ids[:length].tolist()
        assert batch.position_ids.reshape(-1)[start : start + length].tolist() == list(range(length))
        for n, position in enumerate(record.positions.tolist()):
            if position >= length:
                cut += 1
                continue
            assert batch.soft.rows[label] == start + position - 1
            assert batch.soft.target_ids[label] == record.target_ids[n] == flat_ids[start + position]
            hard[start + position] = int(record.target_ids[n])
            first, stop = record.candidate_offsets[n], record.candidate_offsets[n + 1]
            is_there = batch.soft.token_ids[label] >= 0
            for got, wanted in (
                (batch.soft.token_ids, record.token_ids),
                (batch.soft.logprobs, record.logprobs),
                (batch.soft.draw_counts, record.draw_counts),
            ):
                assert (got is None) == (wanted is None)
                if got is not None and wanted is not None:
                    assert got[label][is_there].tolist() == wanted.reshape(-1)[first:stop].tolist()
            assert batch.soft.logprobs[label][~is_there].eq(-torch.inf).all()
            assert batch.soft.tail_mass[label] == record.tail_mass[n]
            if record.entropy is not None:
                assert batch.soft.entropy is not None and batch.soft.entropy[label] == record.entropy[n]
            label += 1
    assert label == len(batch.soft) and cut == batch.num_cut_labels
    labels = batch.labels.reshape(-1)
    assert {place: int(labels[place]) for place in labels.ne(IGNORED).nonzero()[:, 0].tolist()} == hard


@pytest.fixture(scope="module", params=SELECTIONS, ids=str)
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LabelDataset:
    return make_training_dataset(tmp_path_factory.mktemp("labels") / "a", num_records=12, selection=request.param)


@pytest.mark.parametrize("max_length", [100, 13, 2])
def test_a_padded_batch_holds_its_records(dataset: LabelDataset, max_length: int) -> None:
    collate = PaddingCollator(
        dataset,
        tokenizer=make_tokenizer(),
        model=VOCAB_SIZE,
        max_length=max_length,
        pad_token_id=7,
        pad_to_multiple_of=8,
    )
    batch = collate(dataset[:5])
    assert_holds(batch, dataset[:5], max_length=max_length)
    assert batch.input_ids.shape[1] % 8 == 0
    assert (batch.input_ids[batch.attention_mask == 0] == 7).all()


@pytest.mark.parametrize("row_length", [100, 34, 13])
def test_a_packed_batch_holds_its_records(dataset: LabelDataset, row_length: int) -> None:
    batch = PackingCollator(dataset, tokenizer=make_tokenizer(), model=VOCAB_SIZE, row_length=row_length)(list(dataset))
    assert_holds(batch, list(dataset), max_length=row_length)
    lengths = batch.cu_seqlens.diff()
    assert batch.cu_seqlens[0] == 0 and batch.cu_seqlens[-1] == batch.input_ids.numel() and (lengths > 0).all()
    assert (batch.position_ids.reshape(-1)[batch.cu_seqlens[:-1]] == 0).all()
    assert batch.input_ids.shape[1] == row_length


@given(lengths=st.lists(st.integers(0, 50), max_size=60))
def test_packing_is_first_fit_decreasing(lengths: list[int]) -> None:
    rows = pack_sequences(lengths, row_length=50)
    assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
    # The rule in its plainest form.
    plain: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        fitting = [row for row in plain if sum(lengths[other] for other in row) + lengths[place] <= 50]
        if fitting:
            fitting[0].append(place)
        else:
            plain.append([place])
    assert rows == sorted(sorted(row) for row in plain)


def test_a_sequence_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="sequence 1 has 9 tokens, a row 8: cut it first"):
        pack_sequences([3, 9], row_length=8)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_record_in_a_packed_row_gives_the_logits_and_loss_of_the_record_alone(tmp_path: Path, attention: str) -> None:
    dataset = make_training_dataset(tmp_path / "a", num_records=9)
    model = tiny_model()
    model.set_attn_implementation(attention)
    collators: list[Any] = [
        PackingCollator(dataset, tokenizer=make_tokenizer(), model=model, row_length=64),
        PaddingCollator(dataset, tokenizer=make_tokenizer(), model=model, max_length=64),
    ]
    losses = []
    for collate in collators:
        batch = collate(list(dataset))
        student = student_logprobs(model(**batch.model_inputs()).logits, batch.soft)
        losses.append(dict(_by_target(batch, forward_kl(student, batch.soft))))
    alone = {}
    for record in dataset:
        logits = model(input_ids=torch.tensor(record.input_ids[None]).long()).logits[0].double()
        mine = logits[record.positions - 1].log_softmax(1).gather(1, torch.tensor(record.token_ids).long())
        teacher, tail = torch.tensor(record.logprobs).double(), torch.tensor(record.tail_mass).double()
        kl = (teacher.exp() * (teacher - mine)).sum(1) + tail * (tail / (1 - mine.exp().sum(1))).log()
        alone[record.record_id] = kl.sum().item()
    for found in losses:
        assert found == pytest.approx(alone, rel=1e-4)


def _by_target(batch: Batch, losses: torch.Tensor) -> list[tuple[str, float]]:
    """Return the summed loss of each record."""
    is_start = batch.attention_mask.reshape(-1)[batch.cu_seqlens[:-1]] == 1
    edges = [*batch.cu_seqlens[:-1][is_start].tolist(), batch.input_ids.numel()]
    sums = [losses[(batch.soft.rows >= a) & (batch.soft.rows < b)].sum().item() for a, b in itertools.pairwise(edges)]
    return list(zip(batch.record_ids, sums, strict=True))


def test_labels_know_the_kind_of_their_span(tmp_path: Path) -> None:
    record = make_record(1, num_labels=10)
    spans = np.array([[4, 7], [9, 11], [11, 14]], dtype=np.int32)
    labels = make_labels(record.input_ids[[4, 5, 6, 9, 10, 11, 12, 13]])
    record = replace(record, spans=spans, span_kinds=("reasoning", "tool_call", "answer"), labels=labels)
    dataset = make_training_dataset(tmp_path / "a", [record, make_record(2, num_labels=3)])
    batch = PaddingCollator(dataset, tokenizer=make_tokenizer(), model=VOCAB_SIZE, max_length=13)(list(dataset))
    assert batch.soft.is_kind("answer").tolist() == [*[False] * 5, True, True, *[False] * 3]
    assert batch.soft.is_kind("reasoning", "tool_call").tolist() == [*[True] * 5, *[False] * 5]
    assert batch.soft.is_kind("completion").tolist() == [*[False] * 7, *[True] * 3]
    with pytest.raises(ValueError, match=r"one of text, completion, .*, got 'other'"):
        batch.soft.is_kind("other")  # type: ignore[arg-type]


def test_candidates_that_the_student_has_no_row_for_become_tail(tmp_path: Path) -> None:
    records = [make_record(n, num_labels=9) for n in range(3)]
    records = [_with_unlikely_candidate(record) for record in records]
    dataset = make_training_dataset(tmp_path / "a", records)
    with pytest.warns(UserWarning, match=r"has 450 rows, the teacher's 500: those between are padding"):
        collate = PaddingCollator(dataset, tokenizer=make_tokenizer(), model=450, max_length=50)
    soft, whole = (
        collate(records).soft,
        PaddingCollator(dataset, tokenizer=make_tokenizer(), model=500, max_length=50)(records).soft,
    )
    is_lost = whole.token_ids >= 450
    assert is_lost.any(dim=1).all() and soft.vocab_size == 450
    assert torch.equal(soft.token_ids, whole.token_ids.masked_fill(is_lost, -1))
    kept = soft.logprobs.double().exp().sum(1) + soft.tail_mass.double()
    torch.testing.assert_close(kept, torch.ones_like(kept), rtol=0, atol=1e-6)
    logits = torch.randn(3, 13, 450, generator=torch.Generator().manual_seed(0))
    assert (forward_kl(student_logprobs(logits, soft), soft) > 0).all()


def _with_unlikely_candidate(record: LabelRecord) -> LabelRecord:
    """Return a record of ids below 450, each label of which has an unlikely last candidate from 450 on."""
    ids = np.tile(np.arange(8, dtype=np.int32), (len(record.labels), 1))
    ids[:, -1] = 450 + np.arange(len(ids)) % 50
    logprobs = np.tile(np.log([0.3, 0.2, 0.1, 0.1, 0.05, 0.05, 0.05, 1e-6]).astype(np.float32), (len(ids), 1))
    labels = top_k_labels(
        token_ids=ids,
        logprobs=logprobs,
        target_logprobs=np.full(len(ids), -15, dtype=np.float32),
        target_ranks=np.full(len(ids), 9, dtype=np.int32),
    )
    return replace(record, input_ids=record.input_ids % 400 + 8, labels=labels)


def test_what_makes_no_batch_is_refused(tmp_path: Path) -> None:
    dataset = make_training_dataset(tmp_path / "a", num_records=2)
    collate = PaddingCollator(dataset, tokenizer=make_tokenizer(), model=VOCAB_SIZE, max_length=50)
    with pytest.raises(ValueError, match="a batch needs at least one record, got none"):
        collate([])
    with pytest.raises(
        ValueError, match="rows must have at least 2 tokens, one to read and one that is labelled, got 1"
    ):
        PackingCollator(dataset, tokenizer=make_tokenizer(), model=VOCAB_SIZE, row_length=1)
    with pytest.raises(ValueError, match="is not the teacher's"):
        PaddingCollator(dataset, tokenizer=make_tokenizer(prefix="other"), model=VOCAB_SIZE, max_length=50)
    with pytest.raises(ValueError, match="is not the teacher's"):
        PackingCollator(dataset, tokenizer=make_tokenizer(prefix="other"), model=VOCAB_SIZE, row_length=50)
    with pytest.raises(ValueError, match="pad_to_multiple_of must be at least 1, got 0"):
        PaddingCollator(dataset, tokenizer=make_tokenizer(), model=VOCAB_SIZE, max_length=5, pad_to_multiple_of=0)
