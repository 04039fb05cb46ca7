"""What shapes a response never bends its labels: with vLLM and a real teacher, against the reference's full softmax.

One engine is shared by all tests of this file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity import FLOAT32_LIMITS, compare_with_reference

import labelgen
import labelstore
from labelgen.prompts.chat_template import ChatTemplate
from labelgen.prompts.token_spans import TokenSpan
from labelgen.teachers.constraint import Constraint
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.sampling import SamplingChoice
from labelgen.teachers.teacher import Answer, ScoreRequest
from labelgen.teachers.transformers_teacher import TransformersTeacher
from labelgen.teachers.vllm_teacher import VLLMTeacher
from labelstore.record import LabelRecord
from labelstore.selection import Selection
from teachers import fetch_teacher

pytestmark = [pytest.mark.more_engines, pytest.mark.timeout(1200)]

TOP_K = 64
TEMPLATE = """{% for tool in tools or [] %}<|im_start|>system
tool {{ tool.function.name }}<|im_end|>
{% endfor %}{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}<|im_start|>assistant

"""  # Jinja drops the last line break
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
CHATS = [
    [{"role": "user", "content": "Name a fruit."}],
    [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris"},
        {"role": "user", "content": "And of Italy?"},
    ],
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """An engine, a reference, and a folder for what they make."""

    teacher: VLLMTeacher
    reference: TransformersTeacher
    root: Path

    def generate(self, name: str, **changes: Any) -> list[LabelRecord]:
        """Let the teacher answer the chats; see that every label is what the reference says."""
        prompts = self.root / "chats.jsonl"
        rows = [{"id": f"c{i}", "messages": chat, "tools": [TOOL]} for i, chat in enumerate(CHATS)]
        prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
        spec = labelgen.RunSpec(
            task="generate",
            sources=(str(prompts),),
            output_dir=self.root / name,
            teacher=self.teacher.facts.name,
            selection=Selection(top_k=TOP_K),
            codec="exact",
            **{"max_tokens": 24, **changes},
        )
        summary = labelgen.run(spec, teacher=self.teacher)
        assert summary.rescored is not None and summary.rescored.problems == ()
        records = list(labelstore.open_dataset(self.root / name))
        assert compare_with_reference(records, self.reference.full_logprobs).failures(FLOAT32_LIMITS) == []
        return records

    def recorded(self, name: str) -> dict[str, Any]:
        return dict(labelstore.open_dataset(self.root / name).entries[0].recorded)

    def text_of(self, token_id: int) -> str:
        return self.teacher.tokenizer.decode([int(token_id)])


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    model_dir, root = str(fetch_teacher("smollm2")), tmp_path_factory.mktemp("generation")
    with VLLMTeacher(
        model_dir,
        selection=Selection(top_k=TOP_K),
        settings=EngineSettings(max_model_len=256),
        log_path=root / "engine.log",
        chat_template=ChatTemplate(text=TEMPLATE),
    ) as teacher:
        teacher.start()
        yield Desk(
            teacher=teacher, reference=TransformersTeacher(model_dir, selection=Selection(top_k=TOP_K)), root=root
        )


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "sweet": {"type": "boolean"}},
    "required": ["name", "sweet"],
    "additionalProperties": False,
}


def is_of_schema(text: str) -> bool:
    value = json.loads(text)
    return isinstance(value, dict) and set(value) == {"name", "sweet"} and isinstance(value["sweet"], bool)


@pytest.mark.parametrize(
    ("name", "constraint", "is_kept"),
    [
        ("json", Constraint(json_schema=json.dumps(SCHEMA)), is_of_schema),
        ("regex", Constraint(regex="[0-9]{3}-[0-9]{2}"), lambda text: bool(re.fullmatch("[0-9]{3}-[0-9]{2}", text))),
        ("choice", Constraint(choices=("plum", "quince")), lambda text: text in ("plum", "quince")),
    ],
    ids=["json", "regex", "choice"],
)
def test_labels_of_a_constrained_response_hold_what_was_forbidden(
    desk: Desk, name: str, constraint: Constraint, is_kept: Callable[[str], bool]
) -> None:
    sampling = SamplingChoice(temperature=0.7, constraint=constraint)
    records = desk.generate(name, sampling=sampling, max_tokens=60, responses=2)
    assert len(records) == 4
    assert desk.recorded(name)["scored_after_writing"] is True
    for record in records:
        assert record.finish_reason == "stop" and record.text is not None and is_kept(record.text), record.text
        # The first token had to be one of a few: what the teacher would rather have said is among the candidates.
        first = record.positions[0]
        assert record.target_ranks[0] > 1
        favourite = desk.text_of(record.token_ids[0, 0])
        assert favourite not in ('{"', "{", "p", "pl", "plum", "q", "quince") and not favourite.isdigit()
        assert record.tail_mass[0] < 0.9
        # An unconstrained reading of the same ids says the same.
        span = TokenSpan(start=int(first), stop=len(record.input_ids), kind="assistant")
        request = ScoreRequest(request_id="again", input_ids=record.input_ids, spans=(span,))
        (again,) = desk.teacher.label([request])
        assert isinstance(again, Answer)
        np.testing.assert_allclose(again.labels.logprobs, record.logprobs, rtol=0, atol=1e-3)


def test_bad_words_and_bias_shape_the_text_and_no_label(desk: Desk) -> None:
    greedy = SamplingChoice(temperature=0)
    plain = desk.generate("plain", sampling=greedy)
    word = desk.text_of(plain[0].target_ids[0]).strip()
    wanted = desk.teacher.tokenizer.encode_text(" banana", with_special_tokens=False)
    bad = desk.generate("bad-words", sampling=SamplingChoice(temperature=0, bad_words=(word,)))
    assert word and bad[0].text is not None and not bad[0].text.startswith(word)
    assert bad[0].token_ids[0, 0] == plain[0].target_ids[0]  # forbidden, and the teacher's favourite all the same
    np.testing.assert_allclose(bad[0].logprobs[0], plain[0].logprobs[0], rtol=0, atol=1e-3)
    biased = desk.generate("biased", sampling=SamplingChoice(temperature=0, logit_bias={int(wanted[0]): 100.0}))
    assert set(biased[0].target_ids.tolist()) == {int(wanted[0])}
    assert biased[0].target_ranks[0] > 1
    np.testing.assert_allclose(biased[0].logprobs[0], plain[0].logprobs[0], rtol=0, atol=1e-3)
    fields = labelstore.open_dataset(desk.root / "biased").header.fingerprint_fields
    assert fields["sampling"]["logit_bias"] == {str(int(wanted[0])): 100.0}
    assert desk.recorded("plain")["scored_after_writing"] is False


def test_least_lengths_stop_ids_and_stop_strings(desk: Desk) -> None:
    one_word = desk.generate("ends", sampling=SamplingChoice(temperature=0), max_tokens=200)
    natural = len(one_word[1].labels)
    assert one_word[1].finish_reason == "stop" and natural < 30
    (end,) = desk.teacher.facts.stop_ids
    longer = desk.generate("longer", sampling=SamplingChoice(temperature=0, min_tokens=natural + 5), max_tokens=200)[1]
    assert len(longer.labels) >= natural + 5
    assert longer.target_ids[natural - 1] != end  # it was not allowed to end here
    assert longer.token_ids[natural - 1, 0] == end and longer.target_ranks[natural - 1] > 1  # and would have
    stop_id = int(one_word[0].target_ids[3])
    stopped = desk.generate("stop-id", sampling=SamplingChoice(temperature=0, stop_ids=(stop_id,)))[0]
    assert stopped.finish_reason == "stop"
    assert (
        stopped.target_ids.tolist() == one_word[0].target_ids[: stopped.target_ids.tolist().index(stop_id) + 1].tolist()
    )
    assert desk.recorded("stop-id")["stop_id_origins"] == {
        str(token_id): origin
        for token_id, origin in sorted({stop_id: "option", end: desk.teacher.facts.stop_ids[end]}.items())
    }
    word = desk.text_of(one_word[0].target_ids[4]).strip()
    cut = desk.generate("stop", sampling=SamplingChoice(temperature=0, stop=(word,)))[0]
    assert cut.finish_reason == "stop" and cut.text is not None and word not in cut.text
    assert cut.input_ids.tolist() == one_word[0].input_ids[: len(cut.input_ids)].tolist()  # ids keep the stop string


def test_turns_and_tools_reach_the_teacher_and_responses_differ(desk: Desk) -> None:
    records = desk.generate("responses", sampling=SamplingChoice(temperature=1.0), responses=3)
    assert [record.record_id for record in records] == [f"c{i}#{n}" for i in range(2) for n in range(3)]
    for chat, of_chat in zip(CHATS, (records[:3], records[3:]), strict=True):
        assert len({record.text for record in of_chat}) == 3
        for record in of_chat:
            start = int(record.spans[0, 0])
            wanted = "<|im_start|>system\ntool look_up<|im_end|>\n"
            wanted += "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in chat)
            assert desk.teacher.tokenizer.decode(record.input_ids[:start]) == wanted + "<|im_start|>assistant\n"
            assert record.messages is not None and [dict(m) for m in record.messages] == chat
            assert record.kept["tools"] == [TOOL]


def test_a_response_whose_beginning_is_given_is_labelled_behind_it(desk: Desk) -> None:
    plain = desk.generate("whole", sampling=SamplingChoice(temperature=0))
    tokenizer = desk.teacher.tokenizer
    begun = desk.generate("begun", sampling=SamplingChoice(temperature=0), prefill="My answer:")
    given = tokenizer.encode_text("My answer:", with_special_tokens=False).tolist()
    for record, alone in zip(begun, plain, strict=True):
        start, prompt_stop = int(record.spans[0, 0]), int(alone.spans[0, 0])
        assert record.input_ids[:start].tolist() == alone.input_ids[:prompt_stop].tolist() + given
        assert record.text is not None and not record.text.startswith("My answer")
    assert labelstore.open_dataset(desk.root / "begun").header.fingerprint_fields["prefill"] == "My answer:"


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (SamplingChoice(constraint=Constraint(regex="[0-9")), "vLLM refuses this sampling: "),
        (SamplingChoice(constraint=Constraint(json_schema='{"type": "no type"}')), "vLLM refuses this sampling: "),
        (SamplingChoice(logit_bias={49_152: 1.0}), "vLLM refuses this sampling: .*49152.* in logit_bias"),
        (SamplingChoice(stop_ids=(49_152,)), "vLLM refuses this sampling: .*49152.* in stop_token_ids"),
        (SamplingChoice(temperature=3.0), "vLLM refuses this sampling: temperature must be in"),
    ],
    ids=["regex", "schema", "bias", "stop id", "temperature"],
)
def test_a_sampling_that_cannot_be_is_refused_before_anything_is_written(
    desk: Desk, sampling: SamplingChoice, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        desk.generate("refused", sampling=sampling)
    assert not (desk.root / "refused").exists()


def test_the_throughput_benchmark_has_reasoning_and_constraints(desk: Desk, tmp_path: Path) -> None:
    import throughput

    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"messages": CHATS[0]}) + "\n")
    specs = throughput.make_specs(
        desk.teacher.facts.name,
        desk.teacher.selection,
        prompts=str(prompts),
        texts=[str(prompts)],
        max_tokens=4,
        work_dir=tmp_path,
        think_tokens=throughput.THINK_TOKENS,
    )
    kinds = {kind: specs[kind] for kind in ("reasoning", "constrained")}
    rows = throughput.summarize(throughput.measure(throughput.Workload(desk.teacher, kinds), 1))
    assert [(row["task"], row["variant"]) for row in rows] == [
        (kind, variant) for kind in kinds for variant in ("no logprobs", "labelgen, on disk")
    ]
    (record,) = labelstore.open_dataset(specs["reasoning"].output_dir)
    assert record.span_kinds[0] == "reasoning"
