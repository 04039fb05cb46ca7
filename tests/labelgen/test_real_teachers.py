"""The proof that labels are right, with vLLM and two real teachers, against the full softmax of a reference.

Each teacher's engine is started once; all tests of this file share what it made.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from check_teacher import check_teacher
from numpy.typing import NDArray
from parity import FLOAT32_LIMITS, ParityFigures, compare_with_reference, format_figures
from parity_workload import label_workload
from test_engine_life import descendants

import labelgen
import labelstore
from labelgen.cli.render_rescored import rescored_rows
from labelgen.job.progress import NullWatcher, RunProgress
from labelgen.prompts.chat_template import ChatTemplate
from labelgen.prompts.scored_chat import encode_turns
from labelgen.prompts.snapshot import PromptSnapshot
from labelgen.prompts.token_spans import positions_in
from labelgen.prompts.tokenizer import HFTokenizer
from labelgen.rescore.limits import Limits
from labelgen.rescore.rescoring import rescore_dataset
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.full_softmax import full_softmax_labels
from labelgen.teachers.sampling import SamplingChoice
from labelgen.teachers.teacher import Answer, GenerateRequest
from labelgen.teachers.transformers_teacher import TransformersTeacher
from labelgen.teachers.vllm_teacher import VLLMTeacher
from labelstore.codecs import codec_named
from labelstore.dataset_writer import DatasetWriter
from labelstore.labels import Labels
from labelstore.record import LabelRecord
from labelstore.selection import Selection
from teachers import fetch_teacher

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

TOP_K = 64
MAX_MODEL_LEN = 512
ROWS = {"smollm2": 49_152, "gemma": 262_144}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One teacher's labels, and the reference to compare them with."""

    name: str
    teacher: VLLMTeacher
    reference: TransformersTeacher
    generated_dir: Path
    scored_dir: Path

    @property
    def generated(self) -> list[LabelRecord]:
        return list(labelstore.open_dataset(self.generated_dir))

    @property
    def scored(self) -> list[LabelRecord]:
        return list(labelstore.open_dataset(self.scored_dir))

    def compare(self, records: list[LabelRecord]) -> ParityFigures:
        return compare_with_reference(records, self.reference.full_logprobs)


@pytest.fixture(scope="module", params=["smollm2", "gemma"])
def proof(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proof]:
    name = request.param
    model_dir, work_dir = fetch_teacher(name), tmp_path_factory.mktemp(name)
    settings = EngineSettings(max_model_len=MAX_MODEL_LEN)
    with VLLMTeacher(
        str(model_dir),
        selection=Selection(top_k=TOP_K),
        settings=settings,
        log_path=work_dir / "engine.log",
        for_scoring=True,
    ) as teacher:
        generated_dir, scored_dir = label_workload(teacher, name, work_dir=work_dir)
        yield Proof(
            name=name,
            teacher=teacher,
            reference=TransformersTeacher(
                str(model_dir), selection=Selection(top_k=TOP_K), max_model_len=MAX_MODEL_LEN
            ),
            generated_dir=generated_dir,
            scored_dir=scored_dir,
        )


def test_generated_labels_equal_the_references_softmax(proof: Proof, capsys: pytest.CaptureFixture[str]) -> None:
    records = proof.generated
    figures = proof.compare(records)
    report(capsys, proof, "generated", figures)
    assert figures.num_records == 24 and figures.num_positions > 500
    assert figures.failures(FLOAT32_LIMITS) == []


def test_scored_labels_equal_the_references_softmax(proof: Proof, capsys: pytest.CaptureFixture[str]) -> None:
    records = proof.scored
    figures = proof.compare(records)
    report(capsys, proof, "scored", figures)
    assert figures.num_positions > 1500
    assert any(record.document_offset and record.document_offset > 400 for record in records), "no second window"
    assert figures.failures(FLOAT32_LIMITS) == []


MARKED_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{% if m.tool_calls %}\n<tool_call>{{ m.tool_calls | tojson }}</tool_call>{% endif %}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris. "},
    {"role": "user", "content": "Is it large?"},
    {"role": "assistant", "content": "It is the largest city of France."},
]
CALLS: list[dict[str, Any]] = [
    {"role": "user", "content": "What is the weather?"},
    {"role": "assistant", "content": "Let me see", "tool_calls": [{"name": "weather", "arguments": {"city": "Paris"}}]},
    {"role": "tool", "content": "rain"},
    {"role": "assistant", "content": "It rains."},
]


def test_chats_and_completions_equal_the_references_softmax_where_they_are_labelled(
    proof: Proof, tmp_path: Path
) -> None:
    rows: list[dict[str, object]] = [
        {"id": "pair", "prompt": "The capital of France", "completion": " is Paris, and it is large."},
        {"id": "seam", "prompt": "The capital of France is ", "completion": "Paris."},
    ]
    if proof.teacher.tokenizer.has_chat_template:
        rows.append({"id": "chat", "messages": CHAT})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = labelgen.RunSpec(
        task="score",
        sources=(str(tmp_path / "rows.jsonl"),),
        output_dir=tmp_path / "out",
        teacher=proof.name,
        selection=Selection(top_k=TOP_K),
        codec="exact",
    )
    summary = labelgen.run(spec, teacher=proof.teacher)
    assert summary.num_rejected == 0 and summary.rescored is not None and summary.rescored.agrees
    assert labelstore.verify_dataset(spec.output_dir).findings == []
    records = {record.prompt_id: record for record in labelstore.open_dataset(spec.output_dir)}
    assert len(records) == len(rows)
    assert proof.compare(list(records.values())).failures(FLOAT32_LIMITS) == []
    decode = proof.teacher.tokenizer.decode
    assert decode(records["pair"].target_ids) == " is Paris, and it is large." and records["pair"].text is not None
    seam = records["seam"]
    assert decode(seam.target_ids) == "Paris."
    prompt_ids = proof.teacher.tokenizer.encode_text("The capital of France is ", with_special_tokens=True)
    np.testing.assert_array_equal(seam.input_ids[: seam.positions[0]], prompt_ids)
    if "chat" in records:
        chat = records["chat"]
        assert [decode(chat.input_ids[start:stop]) for start, stop in chat.spans.tolist()] == [
            "Paris. <|im_end|>",
            "It is the largest city of France.<|im_end|>",
        ]
        assert chat.span_kinds == ("assistant", "assistant")


def test_turns_are_the_same_by_a_templates_marks_and_by_rendered_prefixes() -> None:
    model_dir = fetch_teacher("smollm2")
    marked, plain = (
        HFTokenizer(model_dir, chat_template=ChatTemplate(text=text))
        for text in (
            MARKED_TEMPLATE,
            MARKED_TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", ""),
        )
    )
    assert marked.generation_marks(CHAT) and plain.generation_marks(CHAT) is None
    for chat in (CHAT, CALLS):
        ids, spans = encode_turns(chat, marked, tools=None, end_ids={2})
        plain_ids, plain_spans = encode_turns(chat, plain, tools=None, end_ids={2})
        np.testing.assert_array_equal(ids, plain_ids)
        assert spans == plain_spans
        mask = np.zeros(len(ids), dtype=int)
        mask[positions_in(spans)] = 1
        encoded = marked._tokenizer.apply_chat_template(
            chat, return_assistant_tokens_mask=True, return_dict=True, tokenize=True
        )
        assert encoded["input_ids"] == ids.tolist() and encoded["assistant_masks"] == mask.tolist()
    assert [span.kind for span in spans] == ["assistant", "tool_call", "assistant"]
    call = spans[1]
    assert marked.decode(ids[call.start : call.stop]).startswith("<tool_call>")


def test_a_second_teacher_labels_the_same_ids(proof: Proof, tmp_path: Path) -> None:
    """The second one is the same model in another engine: ids, spans and nearly the labels are equal."""
    spec = labelgen.RunSpec(
        task="score",
        sources=(str(proof.generated_dir),),
        output_dir=tmp_path / "out",
        teacher=proof.name,
        selection=Selection(top_k=TOP_K),
        codec="exact",
        limit=6,
        rescore_at_end=0,
    )
    labelgen.run(spec, teacher=proof.reference)
    source, again = proof.generated, list(labelstore.open_dataset(spec.output_dir))
    assert [record.record_id for record in again] == [record.record_id for record in source[: len(again)]]
    assert len(again) >= 6
    for left, right in zip(source, again, strict=False):
        np.testing.assert_array_equal(left.input_ids, right.input_ids)
        np.testing.assert_array_equal(left.spans, right.spans)
        assert left.span_kinds == right.span_kinds and left.finish_reason == right.finish_reason
        np.testing.assert_allclose(left.target_logprobs, right.target_logprobs, rtol=0, atol=1e-2)


def report(capsys: pytest.CaptureFixture[str], proof: Proof, kind: str, figures: ParityFigures) -> None:
    with capsys.disabled():
        print(f"\n{format_figures([(f'{proof.name}, {kind}', figures)])}")


def test_datasets_are_sound_and_say_what_they_are(proof: Proof) -> None:
    for root in (proof.generated_dir, proof.scored_dir):
        report = labelstore.verify_dataset(root)
        assert report.findings == []
        header = labelstore.open_dataset(root).header
        assert header.vocab_size == ROWS[proof.name]
        recorded = labelstore.open_dataset(root).entries[0].recorded
        assert recorded["engine"] == "vllm" and recorded["device"] == "cpu" and recorded["vllm_runner"] == "v1"
    fields = labelstore.open_dataset(proof.generated_dir).header.fingerprint_fields
    names = "weights adapter quantization dtype head_dtype kv_cache_dtype config_overrides tokenizer chat_template"
    names += " chat_template_args stop_ids sampling run_seed selection max_model_len max_tokens"
    for name in names.split():
        assert name in fields, name
    assert fields["dtype"] == fields["head_dtype"] == "float32"
    recorded = labelstore.open_dataset(proof.generated_dir).entries[0].recorded
    assert fields["stop_ids"] == [int(token_id) for token_id in recorded["stop_id_origins"]]
    assert set(recorded["stop_id_origins"].values()) <= {"generation_config", "tokenizer"}
    assert set(recorded["sampling_origins"]) == set(fields["sampling"]) - {"stop"}
    assert recorded["capture"] == "arrays"


def test_ids_of_the_upper_half_of_a_large_vocabulary_occur(proof: Proof) -> None:
    # Two peers cut ids to 17 bits. Where the vocabulary has more, such ids must be among the candidates.
    highest = max(int(record.token_ids.max()) for record in [*proof.generated, *proof.scored])
    assert highest < ROWS[proof.name]
    if proof.name == "gemma":
        above = np.concatenate([record.token_ids.reshape(-1) > 131_072 for record in proof.generated])
        assert above.sum() > 100


def test_the_prompt_part_is_what_the_tokenizers_own_template_gives(proof: Proof) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(fetch_teacher(proof.name)))
    for record in proof.generated:
        start = int(record.spans[0, 0])
        if record.messages is not None:
            encoded = tokenizer.apply_chat_template(
                [{"role": m["role"], "content": m["content"]} for m in record.messages],
                tokenize=True,
                add_generation_prompt=True,
            )
            wanted = encoded["input_ids"]
        else:
            wanted = tokenizer(record.prompt)["input_ids"]
            assert wanted[0] == tokenizer.bos_token_id and tokenizer.bos_token_id not in wanted[1:]
        assert record.input_ids[:start].tolist() == wanted


def test_a_response_keeps_its_end_exactly_if_the_teacher_wrote_it(proof: Proof) -> None:
    stop_ids = set(proof.teacher.facts.stop_ids)
    reasons = set()
    for record in proof.generated:
        response = record.input_ids[record.spans[0, 0] :].tolist()
        assert (response[-1] in stop_ids) == (record.finish_reason == "stop")
        assert not stop_ids & set(response[:-1])
        reasons.add(record.finish_reason)
        assert record.text is not None and "<|im_end|>" not in record.text
    if proof.name == "smollm2":
        assert reasons == {"stop", "length"}


def test_requests_that_a_caller_left_behind_do_not_meet_the_next_ones(proof: Proof) -> None:
    sampling, _ = SamplingChoice().resolve({})

    def requests(text: str, max_tokens: int) -> list[GenerateRequest]:
        ids = proof.teacher.tokenizer.encode_text(text, with_special_tokens=True)
        return [
            GenerateRequest(
                request_id=f"000000/{i}/0", prompt_ids=ids, sampling=sampling, max_tokens=max_tokens + i, seed=i
            )
            for i in range(6)
        ]

    answers = proof.teacher.label(requests("One two three", 1))
    next(answers)
    answers.close()  # type: ignore[attr-defined]  # as a full disk or Ctrl-C does
    wanted = requests("A wholly different beginning of a text", 12)
    got = {answer.request_id: answer for answer in proof.teacher.label(wanted)}
    for request in wanted:
        answer = got[request.request_id]
        assert isinstance(answer, Answer) and answer.first_label == len(request.prompt_ids)
        np.testing.assert_array_equal(answer.input_ids[: answer.first_label], request.prompt_ids)
        record = LabelRecord(
            prompt_id="p",
            input_ids=answer.input_ids,
            spans=np.array([[answer.first_label, len(answer.input_ids)]], dtype=np.int32),
            span_kinds=("text",),
            labels=answer.labels,
        )
        assert proof.compare([record]).failures(FLOAT32_LIMITS) == []


def test_vllm_keeps_the_protocol(proof: Proof) -> None:
    check_teacher(proof.teacher, top_k=TOP_K, generates=True, tolerance_nats=1e-3)


def test_transformers_keeps_the_protocol(proof: Proof) -> None:
    check_teacher(proof.reference, top_k=TOP_K, generates=False, tolerance_nats=1e-4)


def test_jobs_end_by_proving_their_labels(proof: Proof, capsys: pytest.CaptureFixture[str]) -> None:
    for root, num_records in ((proof.generated_dir, 24), (proof.scored_dir, len(proof.scored))):
        rescored = labelstore.open_dataset(root).rescored
        assert rescored is not None and rescored.problems == ()
        assert rescored.num_records == num_records and rescored.num_argmax_different == 0
        assert rescored.largest_nats < 1e-3  # the codec is exact: all of it is the noise of the engine
        assert rescored.kl_nats < 1e-6
        with capsys.disabled():
            print(f"\n{proof.name}, {root.name}: {rescored_rows(rescored)['rescored']}")


def test_rescoring_tells_what_is_wrong_with_a_damaged_copy(proof: Proof, tmp_path: Path, unchecked: None) -> None:
    records = [record for record in proof.generated if len(record.labels) > 10][:6]

    def relabelled(record: LabelRecord, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> LabelRecord:
        logits = change(proof.reference.full_logprobs(record.input_ids)[record.positions - 1])
        logprobs = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
        labels = full_softmax_labels(logprobs.astype(np.float32), record.target_ids, Selection(top_k=TOP_K))
        return dataclasses.replace(record, labels=labels)

    def problems_of(name: str, damaged: Sequence[LabelRecord]) -> str:
        dataset = labelstore.open_dataset(proof.generated_dir)
        writer = DatasetWriter(tmp_path / name, dataset.header, codec=codec_named("exact"))
        writer.publish_block("000000", damaged, num_prompts=8, num_rejected=0, recorded={})
        rescored = rescore_dataset(
            labelstore.open_dataset(tmp_path / name),
            proof.teacher,
            num_records=len(damaged),
            limits=Limits.of(dataset.header.fingerprint_fields, dataset.rescored),
            rng=np.random.default_rng(0),
            snapshot=PromptSnapshot(proof.generated_dir),
        )
        return "; ".join(rescored.problems)

    assert problems_of("as it was", records) == ""
    assert problems_of("from the reference", [relabelled(record, lambda logits: logits) for record in records]) == ""
    for offset in (1, -1):
        problem = problems_of(f"shifted {offset}", [shifted(record, offset) for record in records])
        assert f"of {len(records)} of {len(records)} records are shifted by {offset:+d}" in problem
    assert "are those of another temperature, 0.60" in problems_of(
        "cold", [relabelled(record, lambda logits: logits / np.float32(0.6)) for record in records]
    )
    assert problems_of(
        "rounded",
        [relabelled(record, lambda logits: logits.astype(np.float16).astype(np.float32)) for record in records],
    ).startswith("another precision")
    noise = np.random.default_rng(0).normal(size=ROWS[proof.name]).astype(np.float32)
    assert problems_of(
        "other model", [relabelled(record, lambda logits: logits + noise) for record in records]
    ).startswith("another model")
    other_ids = [
        relabelled(
            dataclasses.replace(
                record, input_ids=np.where(record.input_ids > 100, record.input_ids + 1, record.input_ids)
            ),
            lambda logits: logits,
        )
        for record in records
    ]
    assert problems_of("other tokenizer", other_ids).startswith("another tokenizer: the ids of 6 of 6 records")
    leads = proof.teacher.tokenizer.lead_ids if proof.name == "gemma" else records[0].input_ids[:1]
    doubled = [
        relabelled(
            dataclasses.replace(record, input_ids=np.insert(record.input_ids, 0, leads), spans=record.spans + 1),
            lambda logits: logits,
        )
        for record in records
    ]
    wanted = "a doubled BOS" if proof.name == "gemma" else "another template"
    assert problems_of("doubled", doubled) == f"{wanted}: the prompts of 6 of 6 records " + (
        "begin with the tokenizer's special tokens twice"
        if proof.name == "gemma"
        else "are not what the teacher's makes of the snapshot's prompts"
    )


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a writer take records that contradict themselves."""
    monkeypatch.setattr("labelstore.shard_writer.find_problems", lambda *_, **__: [])


# The same comparison must fail on damaged copies; if one passes, the proof is worthless.


def cut(labels: Labels, start: int, stop: int, *, offset: int = 0) -> Labels:
    """Return the labels [start, stop) of labels with constant K, moved by `offset` towards later tokens."""
    take = slice(start - offset, stop - offset)
    return Labels(
        token_ids=labels.token_ids[take],
        logprobs=labels.logprobs[take],
        candidate_offsets=np.arange(stop - start + 1, dtype=np.int64) * TOP_K,
        target_logprobs=labels.target_logprobs[take],
        target_ranks=labels.target_ranks[take],
        tail_mass=labels.tail_mass[take],
    )


def shifted(record: LabelRecord, offset: int) -> LabelRecord:
    start, stop = record.spans[0].tolist()
    spans = np.array([[start + 1, stop - 1]], dtype=np.int32)
    return dataclasses.replace(record, spans=spans, labels=cut(record.labels, 1, stop - start - 1, offset=offset))


@pytest.mark.parametrize("offset", [-1, 1])
def test_labels_shifted_by_one_fail(proof: Proof, offset: int) -> None:
    records = [record for record in proof.generated if len(record.labels) > 10][:4]
    assert proof.compare([shifted(record, 0) for record in records]).failures(FLOAT32_LIMITS) == []
    assert len(proof.compare([shifted(record, offset) for record in records]).failures(FLOAT32_LIMITS)) >= 5


def test_ids_encoded_again_from_text_fail(proof: Proof) -> None:
    damaged = []
    for record in proof.generated:
        start = int(record.spans[0, 0])
        text = proof.teacher.tokenizer.decode(record.target_ids)
        again = proof.teacher.tokenizer.encode_text(text, with_special_tokens=False)
        count = min(len(again), len(record.labels))
        if not np.array_equal(again, record.target_ids) and count:
            input_ids = np.concatenate([record.input_ids[:start], again[:count]])
            spans = np.array([[start, start + count]], dtype=np.int32)
            labels = cut(record.labels, 0, count)
            damaged.append(dataclasses.replace(record, input_ids=input_ids, spans=spans, labels=labels))
    assert damaged, "no record whose text encodes to other ids"
    assert proof.compare(damaged).failures(FLOAT32_LIMITS)


def test_logprobs_after_temperature_fail(proof: Proof) -> None:
    def heated(record: LabelRecord) -> LabelRecord:
        full = proof.reference.full_logprobs(record.input_ids)[record.positions - 1] / 0.9
        full -= np.log(np.exp(full.astype(np.float64)).sum(axis=1, keepdims=True)).astype(np.float32)
        logprobs = np.take_along_axis(full, record.token_ids.astype(np.int64), axis=1)
        logprobs = -np.sort(-logprobs, axis=1)
        return dataclasses.replace(record, labels=dataclasses.replace(record.labels, logprobs=logprobs))

    assert proof.compare([heated(record) for record in proof.generated[:4]]).failures(FLOAT32_LIMITS)


def test_candidates_of_two_records_swapped_fail(proof: Proof) -> None:
    one, other = [record for record in proof.generated if len(record.labels) > 10][:2]
    count = min(len(one.labels), len(other.labels))

    def with_labels_of(record: LabelRecord, source: LabelRecord) -> LabelRecord:
        start = int(record.spans[0, 0])
        spans = np.array([[start, start + count]], dtype=np.int32)
        return dataclasses.replace(record, spans=spans, labels=cut(source.labels, 0, count))

    assert proof.compare([with_labels_of(one, one), with_labels_of(other, other)]).failures(FLOAT32_LIMITS) == []
    swapped = [with_labels_of(one, other), with_labels_of(other, one)]
    assert len(proof.compare(swapped).failures(FLOAT32_LIMITS)) >= 5


# Benchmarks that need an engine run here, with tiny inputs, so that they cannot rot.


def write_prompts(path: Path, count: int) -> Path:
    path.write_text("".join(json.dumps({"id": f"p{i}", "prompt": f"The number {i} is"}) + "\n" for i in range(count)))
    return path


def test_the_throughput_benchmark_runs(proof: Proof, tmp_path: Path) -> None:
    import throughput

    text = tmp_path / "text.txt"
    text.write_text("A short text to score, twice as long as it would need to be.\n")
    specs = throughput.make_specs(
        proof.teacher.facts.name,
        proof.teacher.selection,
        prompts=str(write_prompts(tmp_path / "prompts.jsonl", 2)),
        texts=[str(text)],
        max_tokens=2,
        work_dir=tmp_path,
    )
    plain = {kind: specs[kind] for kind in ("generate", "score")}  # the other kinds: test_real_generation.py
    rows = throughput.summarize(throughput.measure(throughput.Workload(proof.teacher, plain), 1))
    assert len(rows) == len(throughput.GENERATE_VARIANTS) + len(throughput.SCORE_VARIANTS)
    assert "| generate | labelgen, on disk |" in throughput.format_rows(rows)


def test_the_selections_benchmark_runs(proof: Proof, tmp_path: Path) -> None:
    import selections

    source = write_prompts(tmp_path / "prompts.jsonl", 2)
    try:
        for selection in (Selection(top_k=4), Selection(keep_mass=0.5)):
            row = selections.measure(proof.teacher, selection, tmp_path / "out", source=source, max_tokens=2)
            assert row["labels"] == 4 and row["bytes_per_label"] > 0
    finally:
        proof.teacher.select(Selection(top_k=TOP_K))


# The last test of each teacher: it leaves no engine to the others.


def test_a_killed_engine_is_started_again_and_the_job_goes_on(proof: Proof, tmp_path: Path) -> None:
    # Only what this process started: other engines may run on the machine.
    (engine,) = [pid for pid, name in descendants(os.getpid()).items() if name.startswith("VLLM::EngineCore")]

    class Killer(NullWatcher):
        killed_at = 0.0
        noticed_after = 0.0
        death = ""

        def advance(self, progress: RunProgress, /) -> None:
            if not self.killed_at:
                self.killed_at = time.monotonic()
                os.kill(engine, signal.SIGKILL)

        def note(self, message: str, /) -> None:
            if message.startswith("the engine died"):
                self.death, self.noticed_after = message, time.monotonic() - self.killed_at

    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(write_prompts(tmp_path / "prompts.jsonl", 8)),),
        output_dir=tmp_path / "out",
        teacher=proof.teacher.facts.name,
        selection=Selection(top_k=TOP_K),
        responses=8,
        max_tokens=8,
    )
    watcher = Killer()
    summary = labelgen.run(spec, teacher=proof.teacher, watcher=watcher)
    assert watcher.death.startswith("the engine died (its process ") and "was killed with SIGKILL" in watcher.death
    assert watcher.noticed_after < 20
    assert summary.counts.num_records == 64 and summary.num_rejected == 0
    proof.teacher.close()
    assert not [name for name in descendants(os.getpid()).values() if name.startswith("VLLM::")]
