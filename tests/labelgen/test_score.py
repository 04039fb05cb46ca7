"""Everything that can be scored, with the fake teacher: what is labelled, what is refused, what is kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import labelgen
import labelstore
from labelgen.cli import main
from labelgen.job.progress import RunSummary
from labelgen.teachers.fake import FakeTeacher
from labelstore.errors import FingerprintError
from labelstore.record import LabelRecord
from labelstore.selection import Selection
from rejected_rows import rejected_rows

TOP_K = Selection(top_k=4)
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Yes, one."},
    {"role": "tool", "content": "7"},
    {"role": "assistant", "content": "Seven."},
]
ROWS: list[dict[str, Any]] = [
    {"id": "text", "text": "All of this is read. " * 12},
    {"id": "pair", "prompt": "Two and two? ", "completion": "Four."},
    {"id": "chat", "messages": CHAT},
]


def run(root: Path, *rows: dict[str, Any], seed: int = 0, **settings: Any) -> RunSummary:
    source = root.parent / f"{root.name}.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run_of(root, str(source), seed=seed, **settings)


def run_of(
    root: Path, source: str, *, teacher: FakeTeacher | None = None, seed: int = 0, **settings: Any
) -> RunSummary:
    spec = labelgen.RunSpec(
        task="score", sources=(source,), output_dir=root, teacher="fake", selection=TOP_K, codec="exact", **settings
    )
    return labelgen.run(spec, teacher=teacher or FakeTeacher(selection=TOP_K, max_model_len=100, seed=seed))


def records_of(root: Path) -> dict[str, LabelRecord]:
    return {record.record_id: record for record in labelstore.open_dataset(root)}


def labelled(record: LabelRecord) -> list[tuple[str, str]]:
    tokenizer = FakeTeacher(selection=TOP_K).tokenizer
    return [
        (tokenizer.decode(record.input_ids[start:stop]), kind)
        for (start, stop), kind in zip(record.spans.tolist(), record.span_kinds, strict=True)
    ]


def test_each_kind_of_row_has_its_labels_and_no_other(tmp_path: Path) -> None:
    summary = run(tmp_path / "out", *ROWS)
    assert summary.rescored is not None and summary.rescored.agrees and summary.num_rejected == 0
    assert labelstore.verify_dataset(tmp_path / "out").findings == []
    records = records_of(tmp_path / "out")
    assert list(records) == ["text@1", "text@99", "text@184", "pair#0", "chat#0"]
    assert labelled(records["pair#0"]) == [("Four.", "completion")] and records["pair#0"].text == "Four."
    assert records["pair#0"].prompt == "Two and two? "
    assert labelled(records["chat#0"]) == [("Yes, one.", "assistant"), ("Seven.", "assistant")]
    assert records["chat#0"].messages == CHAT and records["chat#0"].text is None
    windows = [record for record in records.values() if record.prompt_id == "text"]
    assert "".join(text for record in windows for text, _ in labelled(record)) == ROWS[0]["text"][1:]
    teacher = FakeTeacher(selection=TOP_K)
    for record in records.values():
        expected = teacher.full_logprobs(record.input_ids)[record.positions - 1]
        np.testing.assert_array_equal(record.token_ids[:, 0], expected.argmax(axis=1))


@pytest.mark.parametrize(
    ("label_spans", "kept"),
    [
        ("assistant", {"chat#0": ["Yes, one.", "Seven."]}),
        ("last", {"chat#0": ["Seven."]}),
        ("completion", {"pair#0": ["Four."]}),
    ],
)
def test_label_spans_choose_and_rows_without_such_a_span_are_rejects(
    tmp_path: Path, label_spans: Any, kept: dict[str, list[str]]
) -> None:
    summary = run(tmp_path / "out", *ROWS, label_spans=label_spans)
    got = {name: [text for text, _ in labelled(record)] for name, record in records_of(tmp_path / "out").items()}
    assert got == kept and summary.num_rejected == 2
    for row in rejected_rows(tmp_path / "out"):
        assert f"--label-spans {label_spans}: there is none of" in row["reason"]
    assert any("what it has is text" in row["reason"] for row in rejected_rows(tmp_path / "out"))


def test_label_spans_that_no_row_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--label-spans answer labels answer, and what is to be scored has only text"):
        run(tmp_path / "out", ROWS[0], label_spans="answer")
    run(tmp_path / "chats", ROWS[2])
    with pytest.raises(FingerprintError, match="label_spans: all there, last now"):
        run(tmp_path / "chats", ROWS[2], label_spans="last")


def test_a_stride_is_refused_before_anything_is_read_and_is_in_the_fingerprint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--stride must be in \[1, 98\] for windows of 99 tokens, got 99"):
        run(tmp_path / "out", ROWS[0], stride=99)
    run(tmp_path / "out", ROWS[0], stride=50)
    assert list(records_of(tmp_path / "out")) == ["text@1", "text@99", "text@149", "text@199", "text@249"]
    assert labelstore.open_dataset(tmp_path / "out").header.fingerprint_fields["stride"] == 50


def test_what_is_too_long_to_be_read_whole_is_a_reject(tmp_path: Path) -> None:
    summary = run(tmp_path / "out", {"prompt": "a" * 90, "completion": "b" * 20}, ROWS[1])
    assert summary.num_rejected == 1
    (rejected,) = rejected_rows(tmp_path / "out")
    assert "it has 110 tokens, and the teacher's context of 100" in rejected["reason"]


def test_another_teacher_labels_the_same_ids(tmp_path: Path) -> None:
    run(tmp_path / "first", *ROWS)
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"id": "p", "prompt": "Once"}) + "\n")
    teacher = FakeTeacher(selection=TOP_K, max_model_len=100, seed=1)
    labelgen.run(
        labelgen.RunSpec(
            task="generate",
            sources=(str(tmp_path / "prompts.jsonl"),),
            output_dir=tmp_path / "student",
            teacher="fake",
            selection=TOP_K,
            responses=3,
            max_tokens=9,
            codec="exact",
        ),
        teacher=teacher,
    )
    for name, task in (("first", "score"), ("student", "generate")):
        summary = run_of(tmp_path / f"{name}-again", str(tmp_path / name), seed=5)
        assert summary.rescored is not None and summary.rescored.agrees
        source, again = labelstore.open_dataset(tmp_path / name), labelstore.open_dataset(tmp_path / f"{name}-again")
        assert [record.record_id for record in again] == [record.record_id for record in source]
        for left, right in zip(source, again, strict=True):
            np.testing.assert_array_equal(left.input_ids, right.input_ids)
            np.testing.assert_array_equal(left.spans, right.spans)
            for field in ("span_kinds", "text", "prompt", "messages", "finish_reason", "kept"):
                assert getattr(left, field) == getattr(right, field)
            assert not np.array_equal(left.logprobs, right.logprobs)
        assert again.entries[0].recorded["scored_datasets"] == [
            {"location": str(tmp_path / name), "fingerprint": source.header.fingerprint, "teacher": "fake"}
        ]
        assert source.header.task == task and again.header.task == "score"
        assert run_of(tmp_path / f"{name}-again", str(tmp_path / name), seed=5).num_new_labels == 0


def test_a_sequence_that_is_too_long_does_not_take_its_siblings_along(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"id": "p", "prompt": "Once"}) + "\n")
    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(tmp_path / "prompts.jsonl"),),
        output_dir=tmp_path / "first",
        teacher="fake",
        selection=TOP_K,
        responses=8,
        max_tokens=400,
    )
    # A vocabulary this small ends some responses early.
    labelgen.run(spec, teacher=FakeTeacher(selection=TOP_K, vocab_size=257, max_model_len=500))
    lengths = {record.record_id: len(record.input_ids) for record in labelstore.open_dataset(tmp_path / "first")}
    limit = sorted(lengths.values())[3]
    teacher = FakeTeacher(selection=TOP_K, vocab_size=257, max_model_len=limit + 1)
    run_of(tmp_path / "again", str(tmp_path / "first"), teacher=teacher)
    wanted = [name for name, length in lengths.items() if length <= limit]
    assert 0 < len(wanted) < 8 and list(records_of(tmp_path / "again")) == wanted


def test_ids_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    run(tmp_path / "first", *ROWS)
    teacher = FakeTeacher(selection=TOP_K, max_model_len=100)
    facts = teacher.facts
    fields = {**facts.fingerprint_fields, "tokenizer": "other bytes"}
    teacher._facts = dataclasses.replace(facts, fingerprint_fields=fields)
    with pytest.raises(
        ValueError, match=r"id -> token map is another one than this teacher's \(bytes, here other bytes"
    ):
        run_of(tmp_path / "again", str(tmp_path / "first"), teacher=teacher)
    assert not (tmp_path / "again").exists()


def test_options_of_fields_mean_nothing_to_a_dataset(tmp_path: Path) -> None:
    from labelgen.prompts.prompt_fields import PromptFields

    run(tmp_path / "first", *ROWS)
    with pytest.raises(ValueError, match="a dataset's sequences are given as they are"):
        run_of(tmp_path / "again", str(tmp_path / "first"), fields=PromptFields(text="body"))


def test_inspect_shows_each_span_with_its_kind(tmp_path: Path) -> None:
    run(tmp_path / "out", ROWS[2])
    result = CliRunner().invoke(main, ["inspect", str(tmp_path / "out"), "--record", "0"])
    assert result.exit_code == 0, result.output
    shown = " ".join(result.output.split())
    assert shown.count("labelled, assistant: ") == 2
    values = json.loads(CliRunner().invoke(main, ["inspect", str(tmp_path / "out"), "--record", "0", "--json"]).output)
    assert values["span_kinds"] == ["assistant", "assistant"] and len(values["spans"]) == 2


def test_chats_can_be_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "labelgen.job.runner.load_teacher", lambda spec: FakeTeacher(selection=spec.selection, max_model_len=100)
    )
    (tmp_path / "chats.jsonl").write_text(
        "".join(json.dumps({"messages": [*CHAT, {"role": "user", "content": f"{i}"}]}) + "\n" for i in range(30))
    )
    arguments = ["plan", str(tmp_path / "chats.jsonl"), "--score", "--probe", "30", "--probe-top-k", "4"]
    arguments += ["--label-spans", "assistant", "--teacher", "fake", "--json", "--quiet"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["labels"] == 30 * len("Yes, one.Seven.") and plan["prompts"] == 30
