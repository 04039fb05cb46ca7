from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_snapshot import ingest, write_rows

import labelgen
from labelgen.prompts.rejects import RejectLimit
from labelgen.prompts.snapshot import PromptSnapshot
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.teacher import Answer, Refusal
from labelstore.selection import Selection


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
    assert len((tmp_path / ".labelgen/rejected.jsonl").read_text().splitlines()) == 6
    write_rows(source, [{"id": row["id"], "prompt": f"question {i}"} for i, row in enumerate(rows)])
    ingest(tmp_path, source, max_rejects=RejectLimit(count=5))
    snapshot = PromptSnapshot(tmp_path)
    assert sum(snapshot.num_prompts(block) for block in snapshot.blocks) == 2_000


def test_a_teacher_that_refuses_everything_stops_the_job_and_loses_nothing(tmp_path: Path) -> None:
    class Refusing(FakeTeacher):
        def label(self, requests):  # type: ignore[no-untyped-def]
            for number, answer in enumerate(super().label(requests)):
                assert isinstance(answer, Answer)
                yield answer if number < 5 else Refusal(request_id=answer.request_id, reason="out of paper")

    source = tmp_path / "p.jsonl"
    source.write_text("".join(json.dumps({"id": i, "prompt": f"question {i}"}) + "\n" for i in range(100)))
    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(source),),
        output_dir=tmp_path / "out",
        teacher="fake",
        selection=Selection(top_k=4),
        max_tokens=8,
        max_rejects=RejectLimit(count=10),
    )
    with pytest.raises(ValueError, match=r"11 of \d+ prompts are rejected.*The last one: out of paper"):
        labelgen.run(spec, teacher=Refusing(selection=spec.selection, max_model_len=64))
    summary = labelgen.run(spec, teacher=FakeTeacher(selection=spec.selection, max_model_len=64))
    assert summary.counts.num_records == 89 and summary.num_new_records == 84
