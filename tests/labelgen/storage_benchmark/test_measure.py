"""What is measured: bytes that add up to the files on disk, and rows for each method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labelgen.storage_benchmark.capture import Capture, LabelsWanted, capture_texts, read_capture
from labelgen.storage_benchmark.coding import TrainedCodec, train_model
from labelgen.storage_benchmark.measure import Workload, join_labels, measure_random_access, measure_selection
from labelgen.storage_benchmark.plots import _pareto_front
from labelgen.storage_benchmark.rivals import REFERENCE
from labelgen.storage_benchmark.texts import Document
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.teacher import Teacher
from labelstore.codecs import CODECS
from labelstore.selection import Selection
from make_records import make_labels

CAPTURED = Selection(top_k=256, draws=50)


def make_capture(root: Path) -> Capture:
    documents = [
        Document(
            name=f"document {number}", text=f"{number} and some words " * 5, split="test" if number % 2 else "train"
        )
        for number in range(6)
    ]
    capture = Capture(teacher="fake", kind="words", path=root / "fake-default/words")
    capture_texts(
        capture,
        documents,
        teacher=lambda: FakeTeacher(selection=CAPTURED),
        wanted=LabelsWanted(test=150, train=250),
    )
    return capture


def test_a_capture_keeps_its_splits_and_is_not_made_twice(tmp_path: Path) -> None:
    capture = make_capture(tmp_path)
    records = read_capture(capture)
    assert [record.prompt_id for record in records["test"]] == ["document 1", "document 3"]
    assert [record.prompt_id for record in records["train"]] == ["document 0", "document 2", "document 4"]

    def teacher() -> Teacher:
        raise AssertionError("the capture is there already")

    capture_texts(capture, [], teacher=teacher, wanted=LabelsWanted())


def test_documents_that_are_all_in_one_split_are_refused(tmp_path: Path) -> None:
    capture = Capture(teacher="fake", kind="words", path=tmp_path / "words")
    documents = [Document(name="a", text="some words", split="train")]
    with pytest.raises(ValueError, match="take more documents"):
        capture_texts(
            capture, documents, teacher=lambda: FakeTeacher(selection=CAPTURED), wanted=LabelsWanted(test=5, train=5)
        )


@pytest.mark.parametrize("selection", [Selection(top_k=16), Selection(keep_mass=0.9), Selection(draws=12)], ids=str)
def test_every_method_has_a_row_over_the_same_labels(selection: Selection, tmp_path: Path) -> None:
    workload = Workload.of(make_capture(tmp_path)).cut(selection)
    models = {name: train_model(name, workload.train, header=workload.header) for name in CODECS}
    rows = {row.method: row for row in measure_selection(workload, models, scratch_dir=tmp_path, num_repeats=1)}
    assert set(CODECS) < set(rows) and REFERENCE in rows
    assert len({(row.num_labels, row.candidates_per_label) for row in rows.values()}) == 1
    for row in rows.values():
        assert row.bytes_per_label > 0
        assert (row.truncation_kl_nats is None) == (row.draw_kl_nats is not None) == (selection.draws is not None)
        assert row.top1_agreement in (None, 1.0)
    streams = rows["open"].bytes_per_label_by_stream
    assert rows["open"].bytes_per_label == pytest.approx(sum(streams.values()) - streams["hard"])
    assert rows["open"].codec_kl_nats is not None and rows["open"].codec_kl_nats.worst < 1e-6


def test_single_records_are_timed_over_a_dataset_of_the_wanted_size(tmp_path: Path) -> None:
    workload = Workload.of(make_capture(tmp_path)).cut(Selection(top_k=8))
    speed = measure_random_access([workload], TrainedCodec("open", b""), scratch_dir=tmp_path, num_labels=1_000)
    assert speed.num_labels >= 1_000 and speed.labels_per_second > 0


def test_joined_labels_are_those_of_the_parts() -> None:
    parts = [make_labels(np.zeros(n, dtype=np.int32), top_k=k, seed=n) for n, k in ((3, 4), (2, 5))]
    joined = join_labels(parts)
    assert np.diff(joined.candidate_offsets).tolist() == [4, 4, 4, 5, 5]
    np.testing.assert_array_equal(joined.tail_mass, np.concatenate([part.tail_mass for part in parts]))


def test_the_front_holds_what_nothing_beats() -> None:
    assert _pareto_front([(3, 1.0), (1, 5.0), (2, 5.0), (2.5, 2.0), (4, 1.5)]) == [(1, 5.0), (2.5, 2.0), (3, 1.0)]
