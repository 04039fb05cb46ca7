"""Another precision of a real teacher labels what the first one wrote: the same ids, other labels, near ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import labelgen
import labelstore
from labelgen.teachers.engine_settings import EngineSettings
from labelstore.selection import Selection
from teachers import fetch_teacher

pytestmark = [pytest.mark.more_engines, pytest.mark.timeout(1800)]

QUESTIONS = ["What is the capital of France?", "Name three colours.", "Why is the sky blue?"]


def test_bfloat16_labels_the_ids_that_float32_wrote(tmp_path: Path) -> None:
    rows = [{"id": f"q{i}", "messages": [{"role": "user", "content": text}]} for i, text in enumerate(QUESTIONS)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    teacher = str(fetch_teacher("smollm2"))
    labelgen.run(
        labelgen.RunSpec(
            task="generate",
            sources=(str(tmp_path / "prompts.jsonl"),),
            output_dir=tmp_path / "float32",
            teacher=teacher,
            engine=EngineSettings(dtype="float32", max_model_len=256),
            max_tokens=24,
            responses=2,
            selection=Selection(top_k=16),
            codec="exact",
        )
    )
    summary = labelgen.run(
        labelgen.RunSpec(
            task="score",
            sources=(str(tmp_path / "float32"),),
            output_dir=tmp_path / "bfloat16",
            teacher=teacher,
            engine=EngineSettings(dtype="bfloat16", max_model_len=256),
            selection=Selection(top_k=16),
        )
    )
    assert summary.rescored is not None and summary.rescored.agrees
    assert labelstore.verify_dataset(tmp_path / "bfloat16").findings == []
    first, second = labelstore.open_dataset(tmp_path / "float32"), labelstore.open_dataset(tmp_path / "bfloat16")
    assert [record.record_id for record in second] == [f"q{i}#{j}" for i in range(3) for j in range(2)]
    differences = []
    for left, right in zip(first, second, strict=True):
        np.testing.assert_array_equal(left.input_ids, right.input_ids)
        np.testing.assert_array_equal(left.spans, right.spans)
        assert left.span_kinds == right.span_kinds == ("assistant",) and left.text == right.text
        differences.append(np.abs(left.target_logprobs - right.target_logprobs))
    mean = float(np.concatenate(differences).mean())
    assert 1e-3 < mean < 0.2, "another precision is another teacher, but not another model"
    fields = [dataset.header.fingerprint_fields for dataset in (first, second)]
    assert fields[0]["tokenizer"] == fields[1]["tokenizer"] and fields[0]["dtype"] != fields[1]["dtype"]
    (source,) = second.entries[0].recorded["scored_datasets"]
    assert source["fingerprint"] == first.header.fingerprint
