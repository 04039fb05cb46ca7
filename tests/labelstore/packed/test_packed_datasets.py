from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import labelstore
from labelgen.teachers.full_softmax import full_softmax_labels
from labelstore.codecs import codec_named
from labelstore.codecs.packed.encoder import LabelEncoder
from labelstore.codecs.packed.model import Model
from labelstore.dataset_writer import DatasetWriter
from labelstore.errors import DamagedDatasetError
from labelstore.record import LabelRecord
from labelstore.selection import Selection
from make_packed_records import PACKED_CODECS, Kind, assert_same_arrays, kl_of_kept, packed_records, train
from make_packed_records import decode_both_ways as decode
from make_records import VOCAB_SIZE, make_header, make_record

SELECTIONS = {
    "top-k": Selection(top_k=8),
    "keep-mass": Selection(keep_mass=0.9, max_k=40),
    "draws": Selection(draws=12, entropy=True),
    "top-k and draws": Selection(top_k=4, draws=12),
}


def records_of(selection: Selection, numbers: range, *, num_labels: int = 40) -> list[LabelRecord]:
    records = []
    for number in numbers:
        record = make_record(number, num_labels=num_labels)
        logits = 3 * np.random.default_rng(number).normal(size=(num_labels, VOCAB_SIZE))
        logprobs = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
        labels = full_softmax_labels(logprobs, record.target_ids, selection, seed=number)
        records.append(make_record(number, num_labels=num_labels, labels=labels))
    return records


def write(root: Path, codec: str, selection: Selection, *blocks: list[LabelRecord]) -> Path:
    writer = DatasetWriter(root, make_header(selection=selection), codec=codec_named(codec))
    for number, records in enumerate(blocks):
        writer.publish_block(f"{number:06d}", records, num_prompts=len(records), num_rejected=0, recorded={})
    writer.finish()
    return root


@pytest.mark.parametrize("codec", PACKED_CODECS)
@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_dataset_is_sound_and_reads_the_same_without_numba(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, selection: str
) -> None:
    chosen = SELECTIONS[selection]
    kind = Kind(has_draws=chosen.draws is not None, has_entropy=chosen.entropy)
    empty = make_record(99, num_labels=0, labels=packed_records([[]], kind)[0].labels)
    write(tmp_path, codec, chosen, [*records_of(chosen, range(3)), empty], records_of(chosen, range(3, 9)))
    assert labelstore.verify_dataset(tmp_path).findings == []
    compiled = list(labelstore.open_dataset(tmp_path))
    monkeypatch.setattr("labelstore.codecs.packed.codec.has_numba", lambda: False)
    plain = list(labelstore.open_dataset(tmp_path))
    assert len(plain) == 10
    for left, right in zip(compiled, plain, strict=True):
        assert_same_arrays(left.labels, right.labels)


def test_labels_are_read_but_not_written_where_numba_is_missing(tmp_path: Path) -> None:
    root = write(tmp_path / "made", "standard", Selection(top_k=8), [make_record(0), make_record(1)])
    program = f"""
import sys
sys.modules["numba"] = None  # as if it were not installed
from pathlib import Path
import labelstore
assert [len(record.labels) for record in labelstore.open_dataset({str(root)!r})] == [12, 12]
from labelstore.codecs import codec_named
from labelstore.dataset_writer import DatasetWriter
from make_records import make_header
DatasetWriter(Path({str(tmp_path / "open")!r}), make_header(), codec=codec_named("open"))
try:
    DatasetWriter(Path({str(tmp_path / "packed")!r}), make_header(), codec=codec_named("standard"))
except ImportError as error:
    print(error)
"""
    code = f"import sys; sys.path[:] = {sys.path!r}\n{program}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "need numba to write labels" in done.stdout and "pip install 'labelgen[fast]'" in done.stdout
    assert not (tmp_path / "packed").exists()  # refused before anything is begun


def test_a_first_block_of_one_size_does_not_fix_the_size_of_ragged_labels(tmp_path: Path) -> None:
    selection = Selection(keep_mass=0.9, max_k=40)
    ragged = records_of(selection, range(3, 6))
    assert len({size for record in ragged for size in np.diff(record.candidate_offsets).tolist()}) > 1
    write(tmp_path, "standard", selection, [make_record(number) for number in range(3)], ragged)
    assert labelstore.verify_dataset(tmp_path).findings == []


@pytest.mark.parametrize("has_numba", [True, False])
def test_a_damaged_record_in_a_shard_with_right_hashes_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_numba: bool
) -> None:
    """Bytes that were damaged before they were hashed: in memory, or by somebody who made the hashes again."""
    encode = LabelEncoder.encode

    def damaged(self: LabelEncoder, record: LabelRecord) -> bytes:
        data = encode(self, record)
        return data[:-1] + bytes([data[-1] ^ 1]) if record.prompt_id == "prompt-2" else data

    with monkeypatch.context() as patch:
        patch.setattr(LabelEncoder, "encode", damaged)
        patch.setattr("labelstore.shard_writer.MAX_RECORDS_PER_ROW_GROUP", 2)
        write(tmp_path, "standard", Selection(top_k=8), [make_record(number) for number in range(4)])
    monkeypatch.setattr("labelstore.codecs.packed.codec.has_numba", lambda: has_numba)
    dataset = labelstore.open_dataset(tmp_path)
    message = r"data/000000-0-\w+\.parquet: row group 1: record 2: the packed labels do not have their checksum"
    with pytest.raises(DamagedDatasetError, match=message):
        dataset[2]
    assert [dataset[number].prompt_id for number in (0, 1, 3)] == ["prompt-0", "prompt-1", "prompt-3"]
    findings = labelstore.verify_dataset(tmp_path).findings
    assert any("row group 1: record 2" in str(finding) for finding in findings)


@pytest.mark.parametrize(("codec", "most"), [("standard", 4.5e-4), ("small", 1.8e-3)])
def test_the_mean_kl_of_labels_that_training_never_saw_is_within_the_promise(codec: str, most: float) -> None:
    selection = Selection(top_k=32)
    seen, unseen = records_of(selection, range(20), num_labels=100), records_of(selection, range(50, 60))
    model = Model.from_bytes(train(codec, seen, VOCAB_SIZE, is_constant_size=True))
    encoder = LabelEncoder(model)
    decoded = decode(model, [encoder.encode(record) for record in unseen], [record.target_ids for record in unseen])
    kls = []
    for record, labels in zip(unseen, decoded, strict=True):
        assert not isinstance(labels, ValueError)
        kls.append(kl_of_kept(record.labels, labels) * record.labels.kept_mass)
    assert most / 3 < np.concatenate(kls).mean() <= most


def test_permuted_ids_take_the_same_bytes() -> None:
    kind = Kind()
    records = packed_records([[16] * 150] * 8, kind)
    order = np.random.default_rng(4).permutation(kind.vocab_size).astype(np.int32)
    sizes = []
    for ids in (np.arange(kind.vocab_size, dtype=np.int32), order):
        permuted = [_with_ids(record, ids) for record in records]
        model = train("standard", permuted, kind.vocab_size, is_constant_size=True)
        encoder = LabelEncoder(Model.from_bytes(model))
        sizes.append((len(model), sum(len(encoder.encode(record)) for record in permuted)))
    (model_before, before), (model_after, after) = sizes
    assert abs(after - before) < 0.01 * before
    assert abs(model_after - model_before) < 0.02 * model_before


def _with_ids(record: LabelRecord, ids: np.ndarray[Any, np.dtype[np.int32]]) -> LabelRecord:
    fields = {name: getattr(record.labels, name) for name in type(record.labels).__slots__}
    labels = type(record.labels)(**{**fields, "token_ids": ids[record.token_ids]})
    return make_record(0, num_labels=len(labels), input_ids=ids[record.input_ids], spans=record.spans, labels=labels)
