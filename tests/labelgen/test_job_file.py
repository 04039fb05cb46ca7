from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from labelgen.cli import main
from labelgen.cli.job_file import render_job_file
from labelgen.job.job_options import job_options
from labelgen.job.spec import RunSpec

EVERY_OPTION: dict[str, Any] = {
    "prompts": ["a.jsonl", "b.csv"],
    "output": "labels",
    "block_size": 7,
    "journal_dir": "/tmp/journal",
    "flush_seconds": 5.0,
    "grace_seconds": 2.0,
    "replicas": 2,
    "ray": "auto",
    "max_rejects": "2.5%",
    "teacher": "owner/name",
    "dtype": "bfloat16",
    "head_dtype": "float32",
    "max_model_len": 99,
    "gpu_memory_utilization": 0.5,
    "tensor_parallel_size": 2,
    "pipeline_parallel_size": 3,
    "expert_parallel": True,
    "adapter": "owner/adapter",
    "engine_arg": {"max_num_seqs": 8, "kv_cache_dtype": "fp8"},
    "id_field": "key",
    "template": {"text": "Q: {question}\nA:"},
    "column": ["topic", "level"],
    "rescore_at_end": 5,
    "sample_prompts": 100,
    "sample_seed": 3,
    "top_k": 5,
    "draws": 6,
    "entropy": True,
    "label_spans": "answer",
    "keep_positions": "every:4",
    "codec": "small",
    "system": "Be brief.",
    "chat": True,
    "chat_template": {"text": "{{ messages }}"},
    "chat_template_arg": {"enable_thinking": False, "style": "x=y"},
    "responses": 3,
    "max_tokens": 11,
    "temperature": 0.5,
    "sampling_top_p": 0.9,
    "sampling_top_k": 40,
    "sampling_min_p": 0.01,
    "stop": ["\n\n", "END"],
    "stop_id": [7, 9],
    "min_tokens": 2,
    "prefill": "Well,",
    "think_tokens": ["<think>", "</think>"],
    "max_think_tokens": 6,
    "regex": "[a-z]+",
    "bad_word": ["never"],
    "logit_bias": {"5": -100.0},
    "seed": 4,
}


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """The specs that commands come to; no job is begun."""
    seen: list[RunSpec] = []

    def take(spec: RunSpec) -> None:
        seen.append(spec)
        raise ValueError("seen")

    monkeypatch.setattr("labelgen.job.runner.Job", take)
    return seen


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_a_job_file_says_all_that_the_command_line_can(tmp_path: Path, specs: list[RunSpec]) -> None:
    path = write(tmp_path / "job.yaml", EVERY_OPTION)
    call("generate", "-c", path)
    assert job_options(specs[0]) == EVERY_OPTION


def test_no_option_is_left_out() -> None:
    others = {
        "prompt_field",
        "messages_field",
        "limit",
        "keep_mass",
        "min_k",
        "max_k",
        "json_schema",
        "choice",
    }  # they exclude some of these
    options = {
        max(parameter.opts, key=len).lstrip("-").replace("-", "_") for parameter in main.commands["generate"].params
    }
    assert (
        options - {"config", "dry_run", "yaml", "json", "quiet", "retry_rejected", "part"} == set(EVERY_OPTION) | others
    )


def test_flags_and_arguments_go_before_the_file(tmp_path: Path, specs: list[RunSpec]) -> None:
    path = write(tmp_path / "job.yaml", {**EVERY_OPTION, "max-tokens": 12, "stop": "END"})
    call("generate", "c.jsonl", "-c", path, "--max-tokens", 13, "--column", "other", "-o", tmp_path / "out")
    (spec,) = specs
    assert spec.sources == ("c.jsonl",) and spec.output_dir == tmp_path / "out"
    assert spec.max_tokens == 13 and spec.fields.columns == ("other",)
    assert spec.sampling.stop == ("END",)


def test_a_written_job_file_reads_back_as_the_same_job(tmp_path: Path, specs: list[RunSpec]) -> None:
    options: list[dict[str, Any]] = [
        EVERY_OPTION,
        {"prompts": ["-"], "output": "labels", "teacher": "t", "messages_field": "m", "keep_mass": 0.9, "limit": 5},
        {"prompts": ["-"], "output": "labels", "teacher": "t", "json_schema": {"text": '{"type": "object"}'}},
        {"prompts": ["-"], "output": "labels", "teacher": "t", "choice": ["yes", "no"]},
    ]
    for number, given in enumerate(options):
        call("generate", "-c", write(tmp_path / f"{number}.yaml", given))
        first = specs[-1]
        text = render_job_file(main.commands["generate"], job_options(first), version="1")
        call("generate", "-c", write(tmp_path / f"{number}-again.yaml", text))
        assert specs[-1] == first
        assert "# The K most likely tokens." in text and "# Responses" in text


def test_a_job_file_may_score(tmp_path: Path, specs: list[RunSpec]) -> None:
    path = write(tmp_path / "job.yaml", {"texts": "a.txt", "output": "labels", "teacher": "t", "text_field": "body"})
    call("score", "-c", path)
    assert specs[0].task == "score" and specs[0].fields.text == "body"
    assert {"texts": ["a.txt"], "text_field": "body"}.items() <= job_options(specs[0]).items()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"tpo_k": 5}, "generate knows no 'tpo_k'; did you mean 'top_k'?"),
        ({"texts": ["a"]}, "generate knows no 'texts'"),
        ({"json": True}, "generate knows no 'json'"),
        ({"top_k": "many"}, "'many' is not a valid integer"),
        ({"template": "/no/such/file"}, "/no/such/file: cannot be read as text"),
        ({"chat_template_arg": "thinking"}, "must be name=value"),
        (["a list"], "must map names of options to values"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_job_file_says_what_is_wrong(tmp_path: Path, content: Any, message: str) -> None:
    result = call("generate", "a.jsonl", "-o", "out", "--teacher", "t", "-c", write(tmp_path / "job.yaml", content))
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.replace("\n", " ").split())


def test_chat_template_arguments_are_json_or_text(specs: list[RunSpec]) -> None:
    given = {"enable_thinking": "false", "level": "3", "name": "plain text"}
    arguments = [part for name, value in given.items() for part in ("--chat-template-arg", f"{name}={value}")]
    call("generate", "a.jsonl", "-o", "out", "--teacher", "t", *arguments)
    assert (
        json.dumps(specs[0].chat_template.arguments) == '{"enable_thinking": false, "level": 3, "name": "plain text"}'
    )
