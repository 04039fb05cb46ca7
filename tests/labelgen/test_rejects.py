from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_snapshot import ingest, write_rows

import labelgen
from labelgen.prompts.prompt_fields import PromptFields
from labelgen.prompts.rejects import RejectLimit
from labelgen.prompts.snapshot import PromptSnapshot
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.teacher import Answer, Refusal, Request
from labelstore.dataset import open_dataset
from labelstore.selection import Selection
from rejected_rows import rejected_rows


def test_a_limit_is_a_count_or_a_share() -> None:
    assert RejectLimit.parse("100") == RejectLimit(count=100) and str(RejectLimit.parse("100")) == "100"
    assert RejectLimit.parse("2.5%") == RejectLimit(share=0.025) and str(RejectLimit.parse("2.5%")) == "2.5%"
    for text in ("some", "-1", "100%", "1,5%", "%"):
        with pytest.raises(ValueError, match="--max-rejects must be a count"):
            RejectLimit.parse(text)


def test_a_share_counts_once_a_thousand_rows_were_seen() -> None:
    limit = RejectLimit.parse("10%")
    limit.check(num_rejected=999, num_rows=999, last="x")
    limit.check(num_rejected=100, num_rows=1_000, last="x")
    with pytest.raises(ValueError, match=r"101 of 1,000 prompts.*--max-rejects is 10%.*: p.jsonl:3: bad"):
        limit.check(num_rejected=101, num_rows=1_000, last="p.jsonl:3: bad")


def test_a_reading_that_has_gone_wrong_stops_early_and_goes_on_when_it_is_mended(tmp_path: Path) -> None:
    rows = [{"id": f"r{i}", "prompt" if i < 8 else "promt": f"question {i}"} for i in range(2_000)]
    source = write_rows(tmp_path / "p.jsonl", rows)
    with pytest.raises(ValueError, match=r"6 of 14 prompts are rejected, and --max-rejects is 5\."):
        ingest(tmp_path, source, max_rejects=RejectLimit(count=5))
    assert len(rejected_rows(tmp_path)) == 6
    write_rows(source, [{"id": row["id"], "prompt": f"question {i}"} for i, row in enumerate(rows)])
    ingest(tmp_path, source, max_rejects=RejectLimit(count=5))
    snapshot = PromptSnapshot(tmp_path)
    assert sum(snapshot.num_prompts(block) for block in snapshot.blocks) == 2_000


class Refusing(FakeTeacher):
    """Refuses all but the first answers."""

    num_answers = 5

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        for number, answer in enumerate(super().label(requests)):
            refusal = Refusal(request_id=answer.request_id, reason="out of paper")
            yield answer if number < self.num_answers else refusal


def make_spec(tmp_path: Path, **changes: Any) -> labelgen.RunSpec:
    values: dict[str, Any] = {
        "task": "generate",
        "sources": (str(tmp_path / "p.jsonl"),),
        "output_dir": tmp_path / "out",
        "teacher": "fake",
        "selection": Selection(top_k=4),
        "max_tokens": 8,
        "block_size": 30,
    }
    return labelgen.RunSpec(**{**values, **changes})


def write_prompts(path: Path, field: str = "prompt") -> None:
    path.write_text("".join(json.dumps({"id": i, field: f"question {i}"}) + "\n" for i in range(100)))


def fake(kind: type[FakeTeacher] = FakeTeacher) -> FakeTeacher:
    return kind(selection=Selection(top_k=4), max_model_len=64)


def test_a_teacher_that_refuses_everything_stops_the_job_and_loses_nothing(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl")
    spec = make_spec(tmp_path, max_rejects=RejectLimit(count=10))
    with pytest.raises(ValueError, match=r"11 of \d+ prompts are rejected.*The last one: response 0: out of paper"):
        labelgen.run(spec, teacher=fake(Refusing))
    summary = labelgen.run(spec, teacher=fake())
    assert summary.counts.num_records == 89 and summary.num_new_records == 84


def test_prompts_that_the_teacher_is_never_asked_count_too(tmp_path: Path) -> None:
    rows = [{"id": i, "prompt": "far too long " * 20 if i % 2 else f"question {i}"} for i in range(60)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="4 of 8 prompts are rejected, and --max-rejects is 3"):
        labelgen.run(make_spec(tmp_path, max_rejects=RejectLimit(count=3)), teacher=fake())
    summary = labelgen.run(make_spec(tmp_path), teacher=fake())
    assert (summary.counts.num_records, summary.num_rejected) == (30, 30)


def test_what_was_refused_is_tried_again_on_request_only(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl")
    assert labelgen.run(make_spec(tmp_path), teacher=fake(Refusing)).num_rejected == 95
    assert labelgen.run(make_spec(tmp_path), teacher=fake()).counts.num_records == 5
    again = labelgen.run(make_spec(tmp_path, retry_rejected=True), teacher=fake())
    assert (again.counts.num_records, again.num_rejected) == (100, 0)
    once_more = labelgen.run(make_spec(tmp_path, retry_rejected=True), teacher=fake())
    assert once_more.num_new_records == 0 and once_more.counts.num_records == 100
    records = [record.record_id for record in open_dataset(tmp_path / "out")]
    assert len(records) == len(set(records)) == 100
    untroubled = labelgen.run(make_spec(tmp_path, output_dir=tmp_path / "other"), teacher=fake())
    assert untroubled.counts.num_labels == again.counts.num_labels


def test_what_fails_again_is_rejected_again(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl")
    labelgen.run(make_spec(tmp_path), teacher=fake(Refusing))
    again = labelgen.run(make_spec(tmp_path, retry_rejected=True), teacher=fake(Refusing))
    assert (again.counts.num_records, again.num_rejected) == (10, 90)
    assert labelgen.run(make_spec(tmp_path, retry_rejected=True), teacher=fake()).counts.num_records == 100


def test_rows_that_were_no_prompts_are_read_again(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl", field="question")
    with pytest.raises(ValueError, match="all 100 rows are rejected"):
        labelgen.run(make_spec(tmp_path), teacher=fake())
    fields = PromptFields(prompt="question")
    summary = labelgen.run(make_spec(tmp_path, fields=fields, retry_rejected=True), teacher=fake())
    assert (summary.counts.num_records, summary.num_rejected) == (100, 0)
