"""A job from prompts to dataset, with the fake teacher."""

from __future__ import annotations

import dataclasses
import io
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import labelgen
import labelstore
from labelgen.job.part import Part
from labelgen.job.progress import RunProgress, RunSummary
from labelgen.prompts.prompt_fields import PromptFields
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.teacher import Answer, EngineError, GenerateRequest, Refusal, Request
from labelstore.labels import Labels
from labelstore.selection import Selection
from rejected_rows import rejected_rows


class Watcher:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []
        self.progress: list[RunProgress] = []

    def stage(self, message: str, /) -> None:
        self.stages.append(message)

    def note(self, message: str, /) -> None:
        self.notes.append(message)

    def advance(self, progress: RunProgress, /) -> None:
        self.progress.append(progress)


class ShufflingTeacher(FakeTeacher):
    """Answers far out of order, as an engine does."""

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        rng = random.Random(0)
        held: list[Answer | Refusal] = []
        for answer in super().label(requests):
            held.append(answer)
            if len(held) > 15:
                yield held.pop(rng.randrange(len(held)))
        rng.shuffle(held)
        yield from held


def write_prompts(path: Path, count: int = 10, start: int = 0) -> Path:
    rows = [
        {"id": f"r{i}", "messages": [{"role": "user", "content": f"question {i}"}], "topic": i % 3}
        for i in range(start, start + count)
    ]
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def make_spec(tmp_path: Path, **changes: Any) -> labelgen.RunSpec:
    values: dict[str, Any] = {
        "task": "generate",
        "sources": (str(tmp_path / "p.jsonl"),),
        "output_dir": tmp_path / "out",
        "teacher": "fake",
        "selection": labelstore.Selection(top_k=8),
        "codec": "open",  # compared bit for bit
        "block_size": 4,
        "max_tokens": 9,
        "rescore_at_end": 0,  # requests are counted here
    }
    return labelgen.RunSpec(**{**values, **changes})


def run(spec: labelgen.RunSpec, teacher: FakeTeacher | None = None, watcher: Watcher | None = None) -> RunSummary:
    return labelgen.run(
        spec, teacher=teacher or FakeTeacher(selection=Selection(top_k=8), max_model_len=64), watcher=watcher
    )


def contents(root: Path) -> list[Any]:
    return [
        (record.record_id, record.input_ids.tolist(), record.token_ids.tolist(), record.logprobs.tolist())
        for record in labelstore.open_dataset(root)
    ]


def test_a_job_labels_every_prompt_in_order(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl")
    watcher = Watcher()
    summary = run(make_spec(tmp_path, fields=PromptFields(columns=("topic",))), watcher=watcher)
    dataset = labelstore.open_dataset(tmp_path / "out")
    assert [record.prompt_id for record in dataset] == [f"r{i}" for i in range(10)]
    assert summary.counts.num_records == summary.num_new_records == 10
    assert summary.counts.num_labels == summary.num_new_labels == dataset.num_labels
    assert watcher.progress[-1].num_requests == 10 and watcher.progress[-1].total_prompts == 10
    record = dataset[4]
    assert record.kept == {"topic": 1}
    teacher = FakeTeacher(selection=Selection(top_k=8))
    prompt_ids = teacher.tokenizer.encode_chat([{"role": "user", "content": "question 4"}])
    np.testing.assert_array_equal(record.input_ids[: len(prompt_ids)], prompt_ids)
    assert record.spans.tolist() == [[len(prompt_ids), len(record.input_ids)]]
    # The label of position p is what the teacher believes after the token at p - 1.
    full = teacher.full_logprobs(record.input_ids)
    for label, position in enumerate(record.positions.tolist()):
        np.testing.assert_array_equal(record.logprobs[label], full[position - 1][record.token_ids[label]])
        assert record.target_logprobs[label] == full[position - 1, record.input_ids[position]]
    assert labelstore.verify_dataset(tmp_path / "out").is_sound


def test_neither_order_nor_block_size_changes_a_label(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl", 40)
    run(make_spec(tmp_path, responses=3))
    shuffled = make_spec(tmp_path, responses=3, output_dir=tmp_path / "shuffled", block_size=7)
    run(shuffled, ShufflingTeacher(selection=Selection(top_k=8), max_model_len=64))
    assert contents(tmp_path / "out") == contents(tmp_path / "shuffled")
    responses = [record for record in labelstore.open_dataset(tmp_path / "out") if record.prompt_id == "r5"]
    assert [record.response_index for record in responses] == [0, 1, 2]
    assert len({record.input_ids.tobytes() for record in responses}) == 3


def test_a_finished_dataset_is_left_alone_and_new_prompts_are_new_blocks(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl")
    run(make_spec(tmp_path))
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    watcher = Watcher()
    summary = run(make_spec(tmp_path), watcher=watcher)
    assert summary.num_new_labels == 0 and watcher.notes == ["everything is labelled already; nothing to do"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()} == files
    write_prompts(tmp_path / "p.jsonl", 3, start=10)
    summary = run(make_spec(tmp_path))
    assert summary.num_new_records == 3 and summary.counts.num_records == 13
    assert [record.prompt_id for record in labelstore.open_dataset(tmp_path / "out")] == [f"r{i}" for i in range(13)]


class DyingTeacher(FakeTeacher):
    """Dies after so many answers."""

    lifetime = 6

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        for number, answer in enumerate(super().label(requests)):
            if number == self.lifetime:
                raise EngineError("the engine is gone")
            yield answer


def test_an_interrupted_job_goes_on_with_the_missing_blocks(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl", 20)
    with pytest.raises(EngineError, match="the engine is gone"):
        run(make_spec(tmp_path), DyingTeacher(selection=Selection(top_k=8), max_model_len=64))
    half = contents(tmp_path / "out")
    assert [record_id for record_id, *_ in half] == ["r0#0", "r1#0", "r2#0", "r3#0"]
    assert not (tmp_path / "out/manifest.json").exists()
    watcher = Watcher()
    summary = run(make_spec(tmp_path), watcher=watcher)
    assert watcher.notes[:2] == [
        "1 blocks are labelled already; going on with 4",
        "2 responses of unfinished blocks are in the journal",
    ]
    assert "the last job failed" in watcher.notes[2] and "(1 were in flight, 0 were not yet" in watcher.notes[2]
    assert summary.num_new_records == 14
    run(make_spec(tmp_path, output_dir=tmp_path / "whole"))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_resumed_job_asks_for_nothing_twice_and_gives_the_same_bits(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl", 12)
    asked: list[str] = []

    class Dying(DyingTeacher):
        lifetime = 10

        def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
            def watched() -> Iterator[Request]:
                for request in requests:
                    asked.append(request.request_id)
                    yield request

            yield from super().label(watched())

    spec = make_spec(tmp_path, block_size=12, responses=2, journal_dir=tmp_path / "fast-disk")
    for _ in range(2):
        with pytest.raises(EngineError):
            run(spec, Dying(selection=Selection(top_k=8), max_model_len=64))
    assert len(list((tmp_path / "fast-disk").rglob("000000-*.parquet"))) == 2
    assert run(spec, Dying(selection=Selection(top_k=8), max_model_len=64)).num_new_records == 4
    again = [name for name in set(asked) if asked.count(name) > 1]
    assert len(set(asked)) == 24 and len(again) == 2, "only what was in flight at each death is asked for again"
    assert not list((tmp_path / "fast-disk").rglob("*.parquet"))
    run(make_spec(tmp_path, responses=2, output_dir=tmp_path / "whole"))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    entry = next((tmp_path / "out/.labelgen/entries").iterdir())
    assert json.loads(entry.read_text())["num_refused"] == 0


def test_a_killed_job_gives_the_same_shards_with_a_codec_that_learns(tmp_path: Path) -> None:
    # Its model is trained on the first block; a job that goes on must not train another one on a later block.
    write_prompts(tmp_path / "p.jsonl", 24)
    spec = make_spec(tmp_path, codec="standard", block_size=6)

    class Dying(DyingTeacher):
        lifetime = 9

    for _ in range(2):
        with pytest.raises(EngineError):
            run(spec, Dying(selection=Selection(top_k=8), max_model_len=64))
    run(spec)
    run(make_spec(tmp_path, codec="standard", block_size=6, output_dir=tmp_path / "whole"))
    resumed, whole = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "data").iterdir()} for name in ("out", "whole")
    )
    assert resumed == whole and len(whole) == 4


def test_refusals_survive_a_death_and_are_counted_once(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl", 4)

    class Refusing(FakeTeacher):
        lifetime = 7

        def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
            for number, request in enumerate(requests):
                if number == self.lifetime:
                    raise EngineError("the engine is gone")
                if request.request_id in ("000000/0/1", "000000/1/0", "000000/1/1"):
                    # Another reason each time, as a process id would be: it must not be logged twice.
                    yield Refusal(request_id=request.request_id, reason=f"poison, process {self.lifetime}")
                else:
                    yield from super().label([request])

    class RefusingLonger(Refusing):
        lifetime = 99

    spec = make_spec(tmp_path, responses=2)
    arguments: dict[str, Any] = {"selection": Selection(top_k=8), "max_model_len": 64}
    with pytest.raises(EngineError):
        run(spec, Refusing(**arguments))
    watcher = Watcher()
    summary = run(spec, RefusingLonger(**arguments), watcher=watcher)
    assert "4 responses of unfinished blocks are in the journal, and 3 refusals" in watcher.notes
    assert summary.counts.num_records == 5 and summary.num_rejected == 3
    rejected = rejected_rows(tmp_path / "out")
    assert [(row["id"], row["reason"]) for row in rejected] == [
        ("r0", "response 1: poison, process 7"),
        ("r1", "response 0: poison, process 7"),
        ("r1", "response 1: poison, process 7"),
    ]
    (entry,) = labelstore.open_dataset(tmp_path / "out").entries
    assert (entry.num_prompts, entry.num_rejected, entry.num_refused) == (4, 1, 1)


def test_standard_input_may_be_empty_when_a_job_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_prompts(tmp_path / "p.jsonl", 20).read_bytes()
    spec = make_spec(tmp_path, sources=("-",))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    with pytest.raises(EngineError):
        run(spec, DyingTeacher(selection=Selection(top_k=8), max_model_len=64))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert run(spec).counts.num_records == 20


def test_parts_refuse_what_each_of_them_would_do_again(tmp_path: Path) -> None:
    part = Part(number=1, count=2)
    with pytest.raises(ValueError, match=r"--part: nothing tells whether the standard input was read already"):
        run(make_spec(tmp_path, sources=("-",), part=part))
    with pytest.raises(ValueError, match=r"--retry-rejected .* give it without --part"):
        make_spec(tmp_path, part=part, retry_rejected=True)
    assert not (tmp_path / "out").exists()


def test_other_settings_are_refused_while_only_the_journal_has_labels(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl", 20)
    spec = make_spec(tmp_path, block_size=20)
    with pytest.raises(EngineError):
        run(spec, DyingTeacher(selection=Selection(top_k=8), max_model_len=64))
    with pytest.raises(labelstore.FingerprintError, match="run_seed: 0 there, 9 now"):
        run(make_spec(tmp_path, block_size=20, seed=9))
    assert run(spec).num_new_records == 14


def test_a_damaged_segment_costs_its_responses_and_no_more(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl", 20)
    spec = make_spec(tmp_path, block_size=20)
    with pytest.raises(EngineError):
        run(spec, DyingTeacher(selection=Selection(top_k=8), max_model_len=64))
    (segment,) = (tmp_path / "out/.labelgen/journal").iterdir()
    segment.write_bytes(segment.read_bytes()[:-1])
    watcher = Watcher()
    assert run(spec, watcher=watcher).num_new_records == 20
    assert any(f"a segment of the journal is set aside: {segment.name}" in note for note in watcher.notes)
    assert segment.with_name(f"{segment.name}.damaged").exists()


def test_a_job_that_died_before_its_first_label_binds_nobody(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl")

    class NeverStarting(FakeTeacher):
        def start(self) -> None:
            raise EngineError("out of memory")

    with pytest.raises(EngineError, match="out of memory"):
        run(make_spec(tmp_path), NeverStarting(selection=labelstore.Selection(top_k=8), max_model_len=512))
    smaller = FakeTeacher(selection=labelstore.Selection(top_k=8), max_model_len=64)
    assert run(make_spec(tmp_path), smaller).num_new_records == 10
    assert labelstore.open_dataset(tmp_path / "out").header.fingerprint_fields["max_model_len"] == 64


def test_a_teacher_that_keeps_something_else_is_refused(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl")
    with pytest.raises(ValueError, match="the teacher captures top_k=3, the spec asks for top_k=8"):
        run(make_spec(tmp_path), FakeTeacher(selection=labelstore.Selection(top_k=3)))


def test_other_settings_are_refused_and_nothing_changes(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl")
    run(make_spec(tmp_path))
    before = contents(tmp_path / "out")
    with pytest.raises(labelstore.FingerprintError, match="run_seed: 0 there, 9 now"):
        run(make_spec(tmp_path, seed=9))
    with pytest.raises(labelstore.FingerprintError, match="weights: fake-0 there, fake-1 now"):
        run(make_spec(tmp_path), FakeTeacher(selection=Selection(top_k=8), max_model_len=64, seed=1))
    with pytest.raises(labelstore.FingerprintError, match="max_model_len: 64 there, 65 now"):
        run(make_spec(tmp_path), FakeTeacher(selection=Selection(top_k=8), max_model_len=65))
    assert contents(tmp_path / "out") == before


def test_bad_rows_and_prompts_are_rejected_and_the_job_goes_on(tmp_path: Path) -> None:
    source = write_prompts(tmp_path / "p.jsonl", 5)
    with source.open("a") as file:
        file.write("not json\n")
        file.write(json.dumps({"id": "long", "prompt": "x" * 64}) + "\n")
        file.write(json.dumps({"id": "fits", "prompt": "x" * 63}) + "\n")
        file.write(json.dumps({"id": "r1", "prompt": "another"}) + "\n")
    summary = run(make_spec(tmp_path))
    assert summary.counts.num_records == 6 and summary.num_rejected == 3
    rejected = {row["line"]: row for row in rejected_rows(tmp_path / "out")}
    assert "is not JSON" in rejected[6]["reason"]
    assert rejected[7]["id"] == "long"
    assert (
        "the prompt has 64 tokens, and the teacher's context of 64 tokens must hold a response too"
        in (rejected[7]["reason"])
    )
    assert "is that of" in rejected[9]["reason"]
    fits = labelstore.open_dataset(tmp_path / "out")[5]
    assert fits.prompt_id == "fits" and len(fits.input_ids) == 64 and fits.finish_reason == "length"
    assert run(make_spec(tmp_path)).num_rejected == 3  # told once, however often the job runs


class RefusingTeacher(FakeTeacher):
    """Cannot answer one request."""

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        for request in requests:
            if request.request_id.startswith("000000/1/"):
                yield Refusal(request_id=request.request_id, reason="poison")
            else:
                yield from super().label([request])


def test_a_prompt_that_the_engine_refuses_is_rejected_by_name(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl", 5)
    summary = run(make_spec(tmp_path), RefusingTeacher(selection=Selection(top_k=8), max_model_len=64))
    assert summary.counts.num_records == 4 and summary.num_rejected == 1
    reject = rejected_rows(tmp_path / "out")[0]
    assert reject["id"] == "r1" and reject["line"] == 2 and reject["reason"] == "response 0: poison"


class ShiftingTeacher(FakeTeacher):
    """Gives each label to the token before the one that it is about."""

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        for answer in super().label(requests):
            assert isinstance(answer, Answer)
            shifted = {
                name: np.roll(getattr(answer.labels, name), 1, axis=0)
                for name in ("token_ids", "logprobs", "target_logprobs", "target_ranks", "tail_mass")
            }
            labels = Labels(candidate_offsets=answer.labels.candidate_offsets, **shifted)
            yield dataclasses.replace(answer, labels=labels)


def test_labels_that_contradict_their_tokens_end_the_job_and_are_not_published(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl", 8)
    spec = make_spec(tmp_path, selection=labelstore.Selection(top_k=1000))
    with pytest.raises(EngineError, match=r"the labels of 8 of 8 answers contradict themselves; .*'r7#0': position"):
        labelgen.run(spec, teacher=ShiftingTeacher(selection=Selection(top_k=1000), max_model_len=64))
    assert len(labelstore.open_dataset(tmp_path / "out")) == 0


def test_one_answer_that_contradicts_itself_is_rejected_and_the_job_goes_on(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl", 8)

    class OddTeacher(ShiftingTeacher):
        def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
            for request in requests:
                if request.request_id == "000001/1/0":
                    yield from ShiftingTeacher.label(self, [request])
                else:
                    yield from FakeTeacher.label(self, [request])

    selection = labelstore.Selection(top_k=1000)
    summary = labelgen.run(
        make_spec(tmp_path, selection=selection), teacher=OddTeacher(selection=selection, max_model_len=64)
    )
    assert summary.counts.num_records == 7 and summary.num_rejected == 1
    reject = rejected_rows(tmp_path / "out")[0]
    assert reject["id"] == "r5" and "the labels of record 'r5#0' contradict themselves: position" in reject["reason"]
    assert labelstore.verify_dataset(tmp_path / "out").is_sound


def test_no_usable_row_is_an_error_that_says_where_the_reasons_are(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"question": "hi"}\n')
    with pytest.raises(ValueError, match=r"all 1 rows are rejected; the reasons are in .*rejected/"):
        run(make_spec(tmp_path))
    (tmp_path / "p.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match="there are no rows"):
        run(make_spec(tmp_path))


def test_scored_documents_are_cut_into_windows_that_cover_them(tmp_path: Path) -> None:
    text = "".join(f"Line {i} of the document.\n" for i in range(20))
    (tmp_path / "doc.txt").write_text(text)
    (tmp_path / "tiny.txt").write_text("x")
    spec = make_spec(
        tmp_path, task="score", sources=(str(tmp_path / "doc.txt"), str(tmp_path / "tiny.txt")), block_size=1
    )
    summary = run(spec)
    dataset = labelstore.open_dataset(tmp_path / "out")
    assert len(dataset) > 5 and summary.num_rejected == 1  # one token has nothing before it
    document = FakeTeacher(selection=Selection(top_k=8)).tokenizer.encode_text(text, with_special_tokens=False)
    labelled = np.concatenate([record.target_ids for record in dataset])
    np.testing.assert_array_equal(labelled, document[1:])
    offset = 1
    for record in dataset:
        assert record.document_offset == offset and record.prompt_id == str(tmp_path / "doc.txt")
        assert record.finish_reason is None and len(record.input_ids) <= 63
        offset += len(record.labels)
    assert "".join(record.text or "" for record in dataset) == text[1:]


def test_a_low_kept_mass_and_cut_responses_are_warned_of(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl")
    notes = " ".join(run(make_spec(tmp_path)).notes)
    assert "were cut at --max-tokens" in notes and "a larger --top-k or --keep-mass keeps more" in notes


def test_plain_prompts_for_a_chat_teacher_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "What is rain?"}\n')
    assert "--chat asks them as chats" in " ".join(run(make_spec(tmp_path)).notes)


def test_the_teacher_gets_requests_ahead_of_the_block_at_hand(tmp_path: Path) -> None:
    # One straggler in the first block must not keep the engine from the prompts of the next blocks.
    write_prompts(tmp_path / "p.jsonl", 12)
    drawn: list[str] = []

    class HoldingTeacher(FakeTeacher):
        def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
            held: list[Request] = []
            for request in requests:
                assert isinstance(request, GenerateRequest)
                drawn.append(request.request_id)
                if request.request_id == "000000/0/0":
                    held.append(request)
                else:
                    yield from super().label([request])
            yield from super().label(held)

    run(make_spec(tmp_path), HoldingTeacher(selection=Selection(top_k=8), max_model_len=64))
    assert len(drawn) == 12
    assert [record.prompt_id for record in labelstore.open_dataset(tmp_path / "out")] == [f"r{i}" for i in range(12)]
