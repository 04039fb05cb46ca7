"""A budget of thinking with vLLM, and labels of thinking and answer against the reference's full softmax.

No reasoning teacher is at hand: special tokens of SmolLM2 that it never writes stand for think tokens, and the thinking
is opened by --prefill.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from parity import FLOAT32_LIMITS, compare_with_reference

import labelgen
import labelstore
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.sampling import SamplingChoice
from labelgen.teachers.transformers_teacher import TransformersTeacher
from labelstore.selection import Selection
from teachers import fetch_teacher

START, END, BUDGET = "<file_sep>", "<repo_name>", 9


@pytest.mark.more_engines
@pytest.mark.timeout(1200)
def test_a_thinking_that_uses_up_its_budget_is_ended_and_the_answer_follows(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"id": f"p{i}", "prompt": text} for i, text in enumerate(["Two and two", "A red", "The sea"])]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model_dir = str(fetch_teacher("smollm2"))
    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(prompts),),
        output_dir=tmp_path / "labels",
        teacher=model_dir,
        selection=Selection(top_k=32),
        codec="exact",
        max_tokens=24,
        sampling=SamplingChoice(temperature=0.7, max_think_tokens=BUDGET, min_tokens=BUDGET + 4),
        think_tokens=(START, END),
        prefill=START,
        engine=EngineSettings(max_model_len=256),
    )
    summary = labelgen.run(spec)
    assert summary.rescored is not None and summary.rescored.problems == ()
    dataset = labelstore.open_dataset(tmp_path / "labels")
    reference = TransformersTeacher(model_dir, selection=Selection(top_k=32), max_model_len=256)
    assert compare_with_reference(dataset, reference.full_logprobs).failures(FLOAT32_LIMITS) == []
    start_id, end_id = dataset.header.fingerprint_fields["think_tokens"]
    assert len(dataset) == 3
    for record in dataset:
        assert record.span_kinds == ("reasoning", "answer")
        (first, thought), (answered, stop) = record.spans.tolist()
        assert record.input_ids[first - 1] == start_id and record.input_ids[thought] == end_id
        assert thought - first == BUDGET and answered == thought + 1 and stop == len(record.input_ids)
        assert end_id not in record.target_ids  # forced: no label is about it
