"""A teacher made to trip us: more head rows than tokens, a template that renders BOS, a tokenizer that adds it too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity import FLOAT32_LIMITS, compare_with_reference

import labelgen
import labelstore
from labelgen.prompts.prompt import Prompt
from labelgen.prompts.tokenizer import HFTokenizer, encode_prompt
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.sampling import SamplingChoice
from labelgen.teachers.transformers_teacher import TransformersTeacher
from labelgen.teachers.vllm_teacher import VLLMTeacher
from labelstore.selection import Selection
from teachers import fetch_teacher

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

NUM_TOKENS = 49_152
NUM_ROWS = NUM_TOKENS + 64
BOS = "<|endoftext|>"
CHAT = [{"role": "user", "content": "What floats?"}]


@pytest.fixture(scope="module")
def odd_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo teacher with a padded head, and BOS both in the template and from the tokenizer."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, folder = str(fetch_teacher("smollm2")), tmp_path_factory.mktemp("odd") / "teacher"
    model = AutoModelForCausalLM.from_pretrained(source)
    model.resize_token_embeddings(NUM_ROWS)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.bos_token = BOS
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    bos_id = tokenizer.convert_tokens_to_ids(BOS)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bos_id)]
    )
    tokenizer.save_pretrained(folder)
    return folder


def test_bos_stands_once_however_it_comes(odd_teacher: Path) -> None:
    from transformers import AutoTokenizer

    reference, ours = AutoTokenizer.from_pretrained(str(odd_teacher)), HFTokenizer(odd_teacher)
    bos_id = reference.convert_tokens_to_ids(BOS)
    chat = Prompt(prompt_id="a", source="s", line=1, content_hash="", messages=CHAT)
    wanted = reference.apply_chat_template(CHAT, tokenize=True, add_generation_prompt=True)["input_ids"]
    assert wanted.count(bos_id) == 1 and wanted[0] == bos_id
    assert encode_prompt(chat, ours).tolist() == wanted
    rendered = reference.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert reference(rendered)["input_ids"].count(bos_id) == 2, "the trap is not set"
    assert (
        encode_prompt(Prompt(prompt_id="b", source="s", line=1, content_hash="", prompt=rendered), ours).tolist()
        == wanted
    )
    plain = encode_prompt(Prompt(prompt_id="c", source="s", line=1, content_hash="", prompt="Ice"), ours).tolist()
    assert plain == reference("Ice")["input_ids"] and plain.count(bos_id) == 1


def test_a_padded_head_keeps_its_rows_and_its_labels_are_right(
    odd_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As little memory as on a node with a huge vocabulary: windows are scored in several chunks.
    monkeypatch.setattr("labelgen.teachers.vllm_config._free_memory_bytes", lambda _: 0)
    chats = tmp_path / "chats.jsonl"
    rows = [{"id": f"c{i}", "messages": [{"role": "user", "content": f"What is {i} and {i}?"}]} for i in range(6)]
    chats.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "text.txt").write_text("Ice floats on water because it is lighter. " * 100)
    settings = EngineSettings(max_model_len=600)
    common: dict[str, Any] = {
        "teacher": str(odd_teacher),
        "selection": labelstore.Selection(top_k=32),
        "codec": "exact",
    }
    with VLLMTeacher(
        str(odd_teacher),
        selection=Selection(top_k=32),
        settings=settings,
        log_path=tmp_path / "engine.log",
        for_scoring=True,
    ) as teacher:
        assert teacher.max_batched_tokens == 256
        generate = labelgen.RunSpec(
            task="generate",
            sources=(str(chats),),
            output_dir=tmp_path / "generated",
            max_tokens=24,
            sampling=SamplingChoice(temperature=0),
            **common,
        )
        score = labelgen.RunSpec(
            task="score", sources=(str(tmp_path / "text.txt"),), output_dir=tmp_path / "scored", **common
        )
        labelgen.run(generate, teacher=teacher)
        labelgen.run(score, teacher=teacher)
    reference = TransformersTeacher(str(odd_teacher), selection=Selection(top_k=32))
    assert len(HFTokenizer(odd_teacher).decode([5])) and reference.facts.vocab_size == NUM_ROWS
    bos_id = HFTokenizer(odd_teacher).lead_ids[0]
    for root in (generate.output_dir, score.output_dir):
        dataset = labelstore.open_dataset(root)
        assert dataset.header.vocab_size == NUM_ROWS
        assert labelstore.verify_dataset(root).is_sound
        assert compare_with_reference(dataset, reference.full_logprobs).failures(FLOAT32_LIMITS) == []
        for record in dataset:
            assert record.input_ids[0] == bos_id and bos_id not in record.input_ids[1:].tolist()[:-1]
    windows = list(labelstore.open_dataset(score.output_dir))
    labelled = np.concatenate([record.target_ids for record in windows])
    document = HFTokenizer(odd_teacher).encode_text((tmp_path / "text.txt").read_text(), with_special_tokens=False)
    np.testing.assert_array_equal(labelled, document)  # with BOS before each window, no token is left out
    assert len(windows) == 2 and len(windows[0].input_ids) == 599


def test_a_tokenizer_that_is_not_the_teachers_is_refused(odd_teacher: Path) -> None:
    ours, other = (HFTokenizer(path).fingerprint_fields for path in (odd_teacher, fetch_teacher("gemma")))
    assert ours["tokenizer"] != other["tokenizer"]
    assert ours["chat_template"] is not None and other["chat_template"] is None


@pytest.mark.parametrize("top_k", [NUM_TOKENS + 1])
def test_top_k_beyond_the_heads_rows_is_refused_before_the_engine_starts(top_k: int, tmp_path: Path) -> None:
    teacher_dir = str(fetch_teacher("smollm2"))
    with pytest.raises(ValueError, match=f"--top-k must be between 1 and the teacher's 49152 rows, got {top_k}"):
        VLLMTeacher(teacher_dir, selection=Selection(top_k=top_k), settings=EngineSettings(), log_path=tmp_path / "log")


def test_what_is_no_teacher_is_refused_with_the_reason(tmp_path: Path) -> None:
    def load(name: str, **settings: Any) -> VLLMTeacher:
        return VLLMTeacher(
            name, selection=Selection(top_k=4), settings=EngineSettings(**settings), log_path=tmp_path / "log"
        )

    with pytest.raises(ValueError, match="no such folder; give a folder or a hub name"):
        load(str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has no config.json, so it is not a model"):
        load(str(tmp_path / "empty"))
    (tmp_path / "empty/config.json").write_text("{}")
    with pytest.raises(ValueError, match="has no weights"):
        load(str(tmp_path / "empty"))
    (tmp_path / "empty/model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="holds no tokenizer"):
        load(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"--teacher .*: vLLM cannot run it: "):
        load(str(fetch_teacher("smollm2")), max_model_len=100_000)


def test_chats_for_a_teacher_without_a_template_are_refused_before_the_engine_starts(tmp_path: Path) -> None:
    source = tmp_path / "p.jsonl"
    source.write_text(json.dumps({"messages": CHAT}) + "\n")
    spec = labelgen.RunSpec(
        task="generate", sources=(str(source),), output_dir=tmp_path / "out", teacher=str(fetch_teacher("gemma"))
    )
    with pytest.raises(ValueError, match=r"the prompts are chats, and --teacher .* has no chat template"):
        labelgen.run(spec)
