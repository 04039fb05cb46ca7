"""Soft labels of some positions only: which ones, what stays whole, and that nothing else changes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import labelgen
import labelstore
from labelgen.job.kept_positions import KeptPositions
from labelgen.teachers.fake import FakeTeacher
from labelstore.dataset import LabelDataset
from labelstore.record import LabelRecord
from labelstore.selection import Selection


def label(root: Path, *, codec: str = "exact", selection: Selection | None = None, **changes: Any) -> LabelDataset:
    selection = selection or Selection(top_k=8)
    prompts = root / "prompts.jsonl"
    prompts.parent.mkdir(exist_ok=True)
    prompts.write_text("".join(json.dumps({"id": f"p{i}", "prompt": f"prompt {i}"}) + "\n" for i in range(12)))
    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(prompts),),
        output_dir=root / "labels",
        teacher="fake",
        selection=selection,
        codec=codec,
        max_tokens=30,
        **changes,
    )
    labelgen.run(spec, teacher=FakeTeacher(selection=selection))
    report = labelstore.verify_dataset(root / "labels")
    assert report.findings == []
    return labelstore.open_dataset(root / "labels")


def rows_of(record: LabelRecord) -> list[int]:
    return [int(row) for row in np.searchsorted(record.span_positions, record.positions)]


@pytest.mark.parametrize("codec", ["open", "exact", "standard"])
@pytest.mark.parametrize("rule", ["every:3", "entropy:0.25"])
def test_kept_labels_are_those_of_the_whole_record_and_hard_labels_stay(tmp_path: Path, rule: str, codec: str) -> None:
    whole = label(tmp_path / "whole", codec=codec)
    kept = label(tmp_path / "kept", codec=codec, keep_positions=KeptPositions.parse(rule))
    assert len(kept) == len(whole) and kept.num_labels < 0.5 * whole.num_labels
    for record, all_of in zip(kept, whole, strict=True):
        np.testing.assert_array_equal(record.input_ids, all_of.input_ids)
        np.testing.assert_array_equal(record.spans, all_of.spans)
        np.testing.assert_array_equal(record.span_positions, all_of.positions)
        rows = rows_of(record)
        assert 1 <= len(rows) == len(record.labels)
        # Candidates that a codec made equal may change places.
        np.testing.assert_array_equal(np.sort(record.token_ids), np.sort(all_of.token_ids[rows]))
        np.testing.assert_array_equal(record.target_ranks, all_of.target_ranks[rows])
        np.testing.assert_allclose(
            record.logprobs, all_of.logprobs[rows], rtol=0, atol=1e-6 if codec != "standard" else 1
        )
    assert kept.header.fingerprint != whole.header.fingerprint
    assert kept.header.fingerprint_fields["keep_positions"] == rule


def test_one_in_n_begins_elsewhere_in_each_record(tmp_path: Path) -> None:
    records = list(label(tmp_path, keep_positions=KeptPositions.parse("every:4")))
    long = [rows_of(record) for record in records if len(record.span_positions) > 8]
    assert all(set(np.diff(rows)) == {4} for rows in long)
    assert len({rows[0] for rows in long}) > 1 and all(rows[0] < 4 for rows in long)


@pytest.mark.parametrize("has_entropy", [False, True])
def test_a_share_by_entropy_keeps_where_the_teacher_is_least_sure(tmp_path: Path, has_entropy: bool) -> None:
    # With nearly all of the vocabulary kept, the candidates' entropy is that of the distribution.
    selection = Selection(top_k=999, entropy=has_entropy)
    whole = label(tmp_path / "whole", selection=Selection(top_k=8, entropy=True))
    kept = label(tmp_path / "kept", selection=selection, keep_positions=KeptPositions.parse("entropy:0.2"))
    for record, all_of in zip(kept, whole, strict=True):
        assert all_of.entropy is not None
        rows = rows_of(record)
        assert len(rows) == int(np.ceil(0.2 * len(all_of.labels)))
        others = np.delete(all_of.entropy, rows)
        assert len(others) == 0 or all_of.entropy[rows].min() >= others.max() - 1e-3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("every:1", "--keep-positions every:N keeps one label in N, N at least 2; got 1"),
        ("every:2.5", "got 2.5"),
        ("entropy:1", "--keep-positions entropy:SHARE keeps a share between 0 and 1, got 1"),
        ("first:3", "--keep-positions must be every:N or entropy:SHARE, such as every:4, got 'first:3'"),
        ("every", "got 'every'"),
        ("every:nan", "got 'every:nan'"),
    ],
)
def test_a_rule_that_cannot_be_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KeptPositions.parse(text)


def test_draws_do_not_say_how_sure_a_teacher_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--keep-positions entropy: draws do not say how sure the teacher is"):
        label(tmp_path, selection=Selection(draws=5), keep_positions=KeptPositions.parse("entropy:0.5"))
    kept = label(
        tmp_path, selection=Selection(draws=5, entropy=True), keep_positions=KeptPositions.parse("entropy:0.5")
    )
    assert all(record.draw_counts is not None and record.draw_counts.sum() == 5 * len(record.labels) for record in kept)


def test_label_positions_that_cannot_be_are_refused(tmp_path: Path) -> None:
    record = next(iter(label(tmp_path, keep_positions=KeptPositions.parse("every:4"))))
    assert record.label_positions is not None and len(record.label_positions) > 1
    cases: list[tuple[Any, str]] = [
        (record.label_positions[::-1].copy(), "must rise and lie in the spans"),
        (np.append(record.label_positions[:-1], np.int32(0)), "must rise and lie in the spans, got 0"),
        (record.label_positions[1:], "label_positions need as many labels"),
        (record.label_positions.astype(np.int64), "must be int32"),
    ]
    for wrong, message in cases:
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(record, label_positions=wrong)
