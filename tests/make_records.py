"""Records for tests: drawn from a seeded distribution, so that ids, logprobs, ranks and tail masses agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from labelgen.teachers.full_softmax import full_softmax_labels
from labelstore.codecs import codec_named
from labelstore.dataset_writer import DatasetWriter
from labelstore.header import Header
from labelstore.labels import Labels
from labelstore.record import LabelRecord
from labelstore.selection import Selection

__all__ = ["VOCAB_SIZE", "make_dataset", "make_header", "make_labels", "make_record"]

VOCAB_SIZE = 500


def make_labels(
    targets: np.ndarray[Any, np.dtype[np.int32]],
    *,
    top_k: int = 8,
    seed: int = 0,
    selection: Selection | None = None,
) -> Labels:
    logits = 3 * np.random.default_rng(seed).normal(size=(len(targets), VOCAB_SIZE))
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return full_softmax_labels(logprobs.astype(np.float32), targets, selection or Selection(top_k=top_k), seed=seed)


def make_record(
    number: int = 0, *, num_labels: int = 12, top_k: int = 8, selection: Selection | None = None, **fields: Any
) -> LabelRecord:
    rng = np.random.default_rng(number)
    input_ids = rng.integers(0, VOCAB_SIZE, 4 + num_labels).astype(np.int32)
    defaults: dict[str, Any] = {
        "prompt_id": f"prompt-{number}",
        "input_ids": input_ids,
        "spans": np.array([[4, 4 + num_labels]] if num_labels else [], dtype=np.int32).reshape(-1, 2),
        "labels": make_labels(input_ids[4:], top_k=top_k, seed=number, selection=selection),
        "messages": [{"role": "user", "content": f"question {number}"}],
        "text": f"answer {number}",
        "finish_reason": "stop",
        "kept": {"category": "test"},
    }
    values = {**defaults, **fields}
    return LabelRecord(**{"span_kinds": ("completion",) * len(values["spans"]), **values})


def make_header(**fields: Any) -> Header:
    defaults: dict[str, Any] = {
        "task": "generate",
        "teacher": "fake",
        "vocab_size": VOCAB_SIZE,
        "selection": Selection(top_k=8),
        "fingerprint_fields": {"weights": "abc", "dtype": "float32"},
        "labelgen_version": "0.1.0",
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    return Header(**{**defaults, **fields})


def make_dataset(
    root: Path,
    *,
    num_blocks: int = 2,
    records_per_block: int = 3,
    codec: str = "open",
    selection: Selection | None = None,
    first_record: int = 0,
) -> Path:
    """Write a small finished dataset; return its folder."""
    header = make_header()
    if selection is not None:
        fields = {**header.fingerprint_fields, "selection": selection.to_json()}
        header = make_header(selection=selection, fingerprint_fields=fields)
    writer = DatasetWriter(root, header, codec=codec_named(codec))
    for block in range(num_blocks):
        first = first_record + block * records_per_block
        records = [make_record(first + i, num_labels=10 + i, selection=selection) for i in range(records_per_block)]
        writer.publish_block(
            f"{block:06d}", records, num_prompts=records_per_block, num_rejected=0, recorded={"engine": "fake"}
        )
    writer.finish()
    return root
