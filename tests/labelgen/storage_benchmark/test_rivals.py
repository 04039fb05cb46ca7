"""The rivals' sizes by hand, and against the tools that they stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labelgen.storage_benchmark import rivals
from labelstore.labels import Labels, top_k_labels
from make_records import make_labels


def labels_of(token_ids: list[list[int]], logprobs: list[list[float]]) -> Labels:
    return top_k_labels(
        token_ids=np.array(token_ids, dtype=np.int32),
        logprobs=np.array(logprobs, dtype=np.float32),
        target_logprobs=np.zeros(len(token_ids), dtype=np.float32),
        target_ranks=np.ones(len(token_ids), dtype=np.int32),
    )


@pytest.mark.parametrize(("vocab_size", "bits"), [(262_144, 18), (262_145, 19), (49_152, 16)])
def test_bit_packed_ids_take_the_bits_of_the_vocabulary(vocab_size: int, bits: int) -> None:
    labels = make_labels(np.zeros(10, dtype=np.int32), top_k=8)
    assert rivals.bit_packed_bytes(labels, vocab_size=vocab_size) == 10 * 8 * (bits + 16) / 8


def test_the_entropy_bound_by_hand() -> None:
    # Four ids equally often: 2 bits each; two values equally often: 1 bit each; two candidates: 1 bit less a label.
    labels = labels_of([[0, 1], [2, 3]], [[-1.0, -2.0], [-1.0, -2.0]])
    assert rivals.entropy_bound_bytes(labels) == pytest.approx((4 * 2 + 4 * 1 - 2 * 1) / 8)


def test_values_on_the_grid_are_eighths() -> None:
    gridded = rivals.on_grid(labels_of([[0, 1]], [[-0.07, -1.3]]))
    np.testing.assert_array_equal(gridded.logprobs, [[-0.125, -1.25]])


def test_the_published_settings_take_what_they_were_measured_to_take() -> None:
    # Over 262,144 rows: 127, 200, 344 and 428 bytes a label.
    sizes = [setting.bytes_per_label(vocab_size=262_144) for setting in rivals.curve_settings()]
    assert sizes == [126.5, 200, 344, 428]


@pytest.mark.parametrize("form", rivals.LIST_FORMATS, ids=lambda form: form.name)
def test_lists_come_back(form: rivals.ListFormat, tmp_path: Path) -> None:
    parts = [make_labels(np.zeros(n, dtype=np.int32), top_k=8, seed=n) for n in (5, 9)]
    form.write(parts, tmp_path / "lists.parquet")
    ids, logprobs = form.read(tmp_path / "lists.parquet")
    np.testing.assert_array_equal(ids, np.concatenate([part.token_ids.reshape(-1) for part in parts]))
    expected = np.concatenate([part.logprobs.reshape(-1) for part in parts])
    np.testing.assert_allclose(logprobs.astype(np.float32), expected, rtol=1e-3)


def test_lists_as_datasets_writes_are_as_large_as_those_that_it_writes(tmp_path: Path) -> None:
    import datasets

    parts = [make_labels(np.zeros(300, dtype=np.int32), top_k=32, seed=seed) for seed in range(4)]
    rivals.LIST_FORMATS[0].write(parts, tmp_path / "ours.parquet")
    features = datasets.Features(
        {
            "token_ids": datasets.Sequence(datasets.Sequence(datasets.Value("int64"))),
            "logprobs": datasets.Sequence(datasets.Sequence(datasets.Value("float32"))),
        }
    )
    rows = {name: [getattr(part, name).tolist() for part in parts] for name in features}
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "theirs.parquet")
    ours, theirs = ((tmp_path / f"{who}.parquet").stat().st_size for who in ("ours", "theirs"))
    assert ours == pytest.approx(theirs, rel=0.05)


def test_the_full_distribution_takes_two_bytes_a_row() -> None:
    labels = make_labels(np.zeros(3, dtype=np.int32))
    assert rivals.full_float16_bytes(labels, vocab_size=262_144) == 3 * 524_288
