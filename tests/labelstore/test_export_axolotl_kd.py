"""Axolotl's distillation columns: by their description, and, where axolotl is installed, by its own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelstore.dataset import LabelDataset, open_dataset
from labelstore.export import export_dataset
from labelstore.export.axolotl_kd import target_logprobs_of
from labelstore.selection import Selection
from make_records import VOCAB_SIZE, make_dataset, make_labels, make_record

SELECTIONS = {
    "top_k": Selection(top_k=8),
    "keep_mass": Selection(keep_mass=0.7, max_k=40),
    "draws": Selection(draws=30),
    "head_and_draws": Selection(top_k=4, draws=20),
}


def load_rows(path: Path, cache_dir: Path) -> Any:
    from datasets import load_dataset

    return load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(cache_dir))


@pytest.fixture(params=SELECTIONS, ids=str)
def exported(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[LabelDataset, Any]:
    dataset = open_dataset(make_dataset(tmp_path / "labels", selection=SELECTIONS[request.param]))
    summary = export_dataset(dataset, tmp_path / "kd.parquet", target="axolotl-kd")
    assert summary.num_records == len(dataset)
    return dataset, load_rows(tmp_path / "kd.parquet", tmp_path / "cache")


def test_each_row_stands_where_the_students_logits_stand(exported: tuple[LabelDataset, Any]) -> None:
    dataset, rows = exported
    for record, row in zip(dataset, rows, strict=True):
        num_tokens = len(record.input_ids)
        assert row["input_ids"] == record.input_ids.tolist()
        assert row["attention_mask"] == [1] * num_tokens
        position_of = {position: n for n, position in enumerate(record.positions.tolist())}
        shares = target_logprobs_of(record.labels, dataset.header.selection)
        for i in range(num_tokens):
            assert row["labels"][i] == (record.input_ids[i] if i in position_of else -100)
            if (n := position_of.get(i + 1)) is None:
                assert row["target_token_ids"][i] == row["target_logprobs"][i] == row["target_mask"][i] == []
                continue
            start, stop = record.candidate_offsets[n : n + 2]
            assert row["target_token_ids"][i] == record.token_ids.reshape(-1)[start:stop].tolist()
            assert row["target_logprobs"][i] == shares[start:stop].tolist()
            assert row["target_mask"][i] == [1] * (stop - start)


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
def test_the_shares_of_a_label_add_up_to_one(selection: Selection) -> None:
    labels = make_labels(np.arange(50, dtype=np.int32), selection=selection)
    shares = np.exp(target_logprobs_of(labels, selection).astype(np.float64))
    totals = np.add.reduceat(shares, labels.candidate_offsets[:-1])
    np.testing.assert_allclose(totals, 1, atol=1e-5)


def test_draws_stand_with_their_share_of_the_draws_and_a_head_with_its_probability() -> None:
    labels = make_labels(np.arange(50, dtype=np.int32), selection=SELECTIONS["draws"])
    assert labels.draw_counts is not None
    np.testing.assert_allclose(
        np.exp(target_logprobs_of(labels, SELECTIONS["draws"])), labels.draw_counts / 30, rtol=1e-5
    )
    labels = make_labels(np.arange(50, dtype=np.int32), selection=SELECTIONS["head_and_draws"])
    assert labels.draw_counts is not None
    is_head = labels.draw_counts == 0
    shares = np.exp(target_logprobs_of(labels, SELECTIONS["head_and_draws"]))
    np.testing.assert_allclose(shares[is_head], np.exp(labels.logprobs.reshape(-1)[is_head]), rtol=1e-5)


def test_what_has_no_column_is_said(tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "labels", codec="standard"))
    losses = "\n".join(export_dataset(dataset, tmp_path / "kd.parquet", target="axolotl-kd").losses)
    for part in ("tail mass", "mean kept mass 0.", "quantized", "kd_temperature 1.0", f"{VOCAB_SIZE} rows"):
        assert part in losses
    assert "K of its own" not in losses
    ragged = open_dataset(make_dataset(tmp_path / "ragged", selection=SELECTIONS["keep_mass"]))
    losses = "\n".join(export_dataset(ragged, tmp_path / "ragged.parquet", target="axolotl-kd").losses)
    assert "K of its own" in losses and "quantized" not in losses


def test_records_without_labels_are_left_out_and_counted(tmp_path: Path) -> None:
    from labelstore.codecs import codec_named
    from labelstore.dataset_writer import DatasetWriter
    from make_records import make_header

    writer = DatasetWriter(tmp_path / "labels", make_header(), codec=codec_named("open"))
    records = [make_record(0), make_record(1, num_labels=0), make_record(2)]
    writer.publish_block("000000", records, num_prompts=3, num_rejected=0, recorded={})
    summary = export_dataset(open_dataset(tmp_path / "labels"), tmp_path / "kd.parquet", target="axolotl-kd")
    assert summary.left_out == {"have no labels": 1}
    assert load_rows(tmp_path / "kd.parquet", tmp_path / "cache").num_rows == summary.num_records == 2


@pytest.mark.filterwarnings("default")  # axolotl's own
def test_axolotls_own_collator_and_loss_see_a_student_that_is_the_teacher(exported: tuple[LabelDataset, Any]) -> None:
    pytest.importorskip("axolotl", reason="pins other versions of torch and transformers; see docs/sharing.md")
    import torch
    from axolotl.integrations.kd.collator import DataCollatorForKD
    from axolotl.integrations.kd.kernels.liger import LigerFusedLinearKLTopKLogprobLoss
    from axolotl.utils.data.wrappers import _is_dataset_already_tokenized
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    dataset, rows = exported
    assert _is_dataset_already_tokenized(rows)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0})), pad_token="a")
    batch = DataCollatorForKD(tokenizer)([dict(row) for row in rows])
    assert batch["target_token_ids"].shape[:2] == batch["input_ids"].shape

    def loss_of(shift: int) -> float:
        """Return axolotl's loss of a student whose logits[p - 1 + shift] are the label of position p."""
        logits = torch.full((*batch["input_ids"].shape, VOCAB_SIZE), -30.0)
        for r, record in enumerate(dataset):
            shares = target_logprobs_of(record.labels, dataset.header.selection)
            for n, position in enumerate(record.positions.tolist()):
                start, stop = record.candidate_offsets[n : n + 2]
                if position - 1 + shift < logits.shape[1]:
                    ids = torch.from_numpy(record.token_ids.reshape(-1)[start:stop].astype(np.int64))
                    logits[r, position - 1 + shift, ids] = torch.from_numpy(shares[start:stop].copy())
        loss = LigerFusedLinearKLTopKLogprobLoss(
            0.0, 1.0, 1.0, 0.0, compute_ce_loss=False, compiled=False, normalize_topk=False
        )
        fields = [batch[name] for name in ("target_token_ids", "target_logprobs", "target_mask")]
        value = loss(torch.eye(VOCAB_SIZE), logits, *fields, true_labels=batch["labels"])
        return float(value) / dataset.num_labels

    assert abs(loss_of(0)) < 1e-3
    assert loss_of(1) > 1  # else the test could not fail
