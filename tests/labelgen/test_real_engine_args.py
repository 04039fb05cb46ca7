"""Adapters, quantized weights, speculative decoding and vLLM's own arguments, each with a real teacher.

Each engine is its own: they differ in what they load.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from parity import FLOAT32_LIMITS, compare_with_reference

import labelgen
import labelstore
from labelgen.prompts.prompt_fields import Task
from labelgen.rescore.own_teacher import find_changes, load_own_teacher
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.sampling import SamplingChoice
from labelgen.teachers.transformers_teacher import TransformersTeacher
from labelgen.teachers.vllm_teacher import VLLMTeacher
from labelstore.dataset import LabelDataset
from labelstore.selection import Selection
from teachers import fetch_teacher

TOP_K = 32


def label(root: Path, engine: EngineSettings, *, teacher: Path | None = None) -> LabelDataset:
    """Let SmolLM2, loaded as `engine` says, answer and end by reading its answers again."""
    prompts = root / "prompts.jsonl"
    rows = [{"id": f"p{i}", "prompt": text} for i, text in enumerate(["One, two, three,", "The sea is", "def f(x):\n"])]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = labelgen.run(
        labelgen.RunSpec(
            task="generate",
            sources=(str(prompts),),
            output_dir=root / "labels",
            teacher=str(teacher or fetch_teacher("smollm2")),
            selection=Selection(top_k=TOP_K),
            codec="exact",
            max_tokens=24,
            sampling=SamplingChoice(temperature=0.5),
            engine=dataclasses.replace(engine, max_model_len=256),
        )
    )
    if engine.adapter is None:
        assert summary.rescored is not None and summary.rescored.problems == ()
    else:
        assert summary.rescored is None  # the engine cannot
    return labelstore.open_dataset(root / "labels")


def save_adapter(folder: Path, matrices: Mapping[str, NDArray[np.float32]], *, rank: int, alpha: int) -> Path:
    from safetensors.numpy import save_file

    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(
        {f"base_model.model.{name}.weight": matrix for name, matrix in matrices.items()},
        folder / "adapter_model.safetensors",
    )
    return folder


@pytest.mark.more_engines
@pytest.mark.timeout(1200)
def test_labels_of_an_adapted_teacher_are_those_of_the_merged_weights(tmp_path: Path) -> None:
    import torch

    rank, alpha, rng = 3, 6, np.random.default_rng(0)
    reference = TransformersTeacher(str(fetch_teacher("smollm2")), selection=Selection(top_k=TOP_K), max_model_len=256)
    matrices: dict[str, NDArray[np.float32]] = {}
    for layer in (0, 7):
        for name in ("q_proj", "v_proj"):
            module = reference._model.get_submodule(f"model.layers.{layer}.self_attn.{name}")
            rows, columns = module.weight.shape
            down = rng.normal(size=(rank, columns)).astype(np.float32) / np.float32(20)
            up = rng.normal(size=(rows, rank)).astype(np.float32) / np.float32(20)
            matrices[f"model.layers.{layer}.self_attn.{name}.lora_A"] = down
            matrices[f"model.layers.{layer}.self_attn.{name}.lora_B"] = up
            with torch.no_grad():
                module.weight += torch.from_numpy(alpha / rank * up @ down)
    adapter = save_adapter(tmp_path / "adapter", matrices, rank=rank, alpha=alpha)
    dataset = label(tmp_path, EngineSettings(adapter=str(adapter)))
    assert compare_with_reference(dataset, reference.full_logprobs).failures(FLOAT32_LIMITS) == []
    plain = TransformersTeacher(str(fetch_teacher("smollm2")), selection=Selection(top_k=TOP_K), max_model_len=256)
    assert compare_with_reference(dataset, plain.full_logprobs).failures(FLOAT32_LIMITS)  # it does something
    header = dataset.header
    assert len(header.fingerprint_fields["adapter"]) == 64
    refused: list[tuple[Task, SamplingChoice]] = [
        ("score", SamplingChoice()),
        ("generate", SamplingChoice(bad_words=(" sea",))),
    ]
    for task, sampling in refused:
        spec = labelgen.RunSpec(
            task=task,
            sources=(str(tmp_path / "prompts.jsonl"),),
            output_dir=tmp_path / task,
            teacher=str(fetch_teacher("smollm2")),
            sampling=sampling,
            engine=EngineSettings(adapter=str(adapter), max_model_len=256),
        )
        with pytest.raises(ValueError, match="no log-probabilities of given text with --adapter; merge the adapter"):
            labelgen.run(spec)
    places: dict[str, Any] = {
        "teacher": None,
        "chat_template": None,
        "log_path": tmp_path / "engine.log",
        "gpu_memory_utilization": 0.9,
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "expert_parallel": False,
    }
    with pytest.raises(ValueError, match="the dataset's teacher had an adapter; say with --adapter where it is"):
        load_own_teacher(header, adapter=None, **places)
    assert find_changes(header, load_own_teacher(header, adapter=str(adapter), **places).facts) == []
    first = next(iter(matrices))
    other = save_adapter(
        tmp_path / "other", {**matrices, first: matrices[first] * np.float32(2)}, rank=rank, alpha=alpha
    )
    (change,) = find_changes(header, load_own_teacher(header, adapter=str(other), **places).facts)
    assert change.startswith("another model: adapter is ")


@pytest.mark.more_engines
@pytest.mark.timeout(1200)
def test_labels_of_speculative_decoding_are_the_teachers_own(tmp_path: Path) -> None:
    speculation = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
    dataset = label(tmp_path, EngineSettings(engine_args={"speculative_config": speculation}))
    reference = TransformersTeacher(str(fetch_teacher("smollm2")), selection=Selection(top_k=TOP_K), max_model_len=256)
    assert compare_with_reference(dataset, reference.full_logprobs).failures(FLOAT32_LIMITS) == []
    assert dataset.entries[0].recorded["speculative_decoding"] == "ngram"
    assert dataset.entries[0].recorded["engine_args"] == {"speculative_config": speculation}


@pytest.mark.more_engines
@pytest.mark.timeout(1200)
def test_a_quantized_teacher_labels_and_says_so(tmp_path: Path) -> None:
    teacher = quantize_to_int8(fetch_teacher("smollm2"), tmp_path / "int8")
    dataset = label(tmp_path, EngineSettings(), teacher=teacher)
    assert dataset.header.fingerprint_fields["quantization"] == "compressed-tensors"
    reference = TransformersTeacher(str(fetch_teacher("smollm2")), selection=Selection(top_k=TOP_K), max_model_len=256)
    figures = compare_with_reference(dataset, reference.full_logprobs)
    assert figures.failures(FLOAT32_LIMITS)  # its labels are its own
    assert figures.num_argmax_differ < figures.num_positions / 4  # and near those of the whole weights (7 of 72)


def quantize_to_int8(model_dir: Path, folder: Path) -> Path:
    """Write a model with all linear layers in int8: a scale for each row, activations scaled as they come."""
    from safetensors.numpy import load_file, save_file

    folder.mkdir()
    tensors: dict[str, NDArray[Any]] = {}
    for path in sorted(model_dir.glob("*.safetensors")):
        for name, weight in load_file(path).items():
            if not name.endswith("_proj.weight"):
                tensors[name] = weight
                continue
            scale = np.abs(weight).max(axis=1, keepdims=True) / 127
            tensors[name] = np.rint(weight / scale).astype(np.int8)
            tensors[name.replace(".weight", ".weight_scale")] = scale.astype(np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for path in model_dir.iterdir():
        if path.suffix != ".safetensors" and path.is_file() and "safetensors" not in path.name:
            (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((model_dir / "config.json").read_bytes())
    scheme: dict[str, Any] = {"num_bits": 8, "type": "int", "symmetric": True}
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {**scheme, "strategy": "channel", "dynamic": False},
                "input_activations": {**scheme, "strategy": "token", "dynamic": True},
            }
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.engine
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("engine_args", "message"),
    [
        (
            {"max_num_sequences": 4},
            "--engine-arg max_num_sequences: vLLM has no such argument; did you mean max_num_seqs",
        ),
        ({"max_num_seqs": "many"}, "--engine-arg max_num_seqs: vLLM refuses 'many': .*invalid"),
        ({"kv_cache_dtype": "fp9"}, "--engine-arg kv_cache_dtype: vLLM refuses 'fp9': .*invalid choice"),
        ({"enable_prefix_caching": "no"}, "--engine-arg enable_prefix_caching: must be true or false, got 'no'"),
        ({"dtype": "float16"}, "--engine-arg dtype: give --dtype"),
        ({"logprobs_mode": "raw_logits"}, "--engine-arg logprobs_mode: is refused: labelgen sets it"),
        ({"kv_sharing_fast_prefill": True}, "log-probabilities of given text would be wrong"),
        ({"max_num_batched_tokens": 10**9}, "--engine-arg max_num_batched_tokens=1000000000: .* at most"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_engine_argument_that_cannot_be_is_named(engine_args: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(tmp_path, engine_args)


def load(tmp_path: Path, engine_args: dict[str, Any], selection: Selection | None = None) -> VLLMTeacher:
    return VLLMTeacher(
        str(fetch_teacher("smollm2")),
        selection=selection or Selection(top_k=4),
        settings=EngineSettings(max_model_len=256, engine_args=engine_args),
        log_path=tmp_path / "engine.log",
        for_scoring=True,
    )


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_engine_arguments_are_part_of_the_fingerprint_unless_they_change_no_label(tmp_path: Path) -> None:
    given = {
        "max_num_seqs": 7,
        "enable_prefix_caching": False,
        "mamba_cache_mode": "none",
        "hf_overrides": {"rope_theta": 5e3},
    }
    facts = load(tmp_path, given).facts
    assert facts.fingerprint_fields["engine_args"] == {
        "mamba_cache_mode": "none"
    }  # nobody said that it changes nothing
    assert facts.fingerprint_fields["config_overrides"] == {"rope_theta": 5e3}
    assert facts.recorded["engine_args"] == {"enable_prefix_caching": False, "max_num_seqs": 7}
    assert facts.recorded["prefix_caching"] is False and facts.recorded["speculative_decoding"] is None


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_speculation_whose_labels_would_not_be_the_teachers_is_refused(tmp_path: Path) -> None:
    ngram = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}
    synthetic = {**ngram, "rejection_sample_method": "synthetic", "synthetic_acceptance_length": 1.5}
    with pytest.raises(ValueError, match="tokens are accepted that the teacher would not have written"):
        load(tmp_path, {"speculative_config": synthetic})
    with pytest.raises(ValueError, match="draws and entropy are not captured from it"):
        load(tmp_path, {"speculative_config": ngram}, Selection(draws=4))
