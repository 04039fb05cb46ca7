"""The training examples run, on the CPU, with a tiny random student: they learn, and go on where they stopped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelstore.torch.losses import forward_kl
from make_student import make_tokenizer, make_training_dataset, tiny_model

ROOT = Path(__file__).resolve().parents[2]

# What Transformers and torch warn of when a model is saved or trained on a CPU is not ours.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_training_dataset(tmp_path / "demo-labels", num_records=24)
    tiny_model().save_pretrained(tmp_path / "student")
    tokenizer = make_tokenizer()
    tokenizer.pad_token = "word0"
    tokenizer.save_pretrained(str(tmp_path / "student"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_plain_loop_learns_and_goes_on_to_the_exact_step(here: Path) -> None:
    import train_student

    options: dict[str, Any] = {"max_length": 64, "batch_size": 4, "learning_rate": 1e-2, "num_epochs": 3}
    whole = train_student.train("demo-labels", "student", here / "whole", **options)
    assert len(whole) == 18 and np.mean(whole[-6:]) < np.mean(whole[:6]) - 0.2
    parts = train_student.train("demo-labels", "student", here / "parts", max_steps=7, **options)
    parts += train_student.train("demo-labels", "student", here / "parts", **options)
    assert parts == pytest.approx(whole, rel=1e-5)
    assert (here / "parts/model.safetensors").exists()


def test_the_trainer_learns(here: Path) -> None:
    import train_with_trainer

    losses = train_with_trainer.train(
        "demo-labels",
        "student",
        here / "output",
        max_length=64,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        num_train_epochs=3,
        logging_steps=6,
        report_to="none",
        use_cpu=True,
    )
    assert len(losses) == 3 and losses[-1] < losses[0] - 0.2
    assert (here / "output/model.safetensors").exists()


def test_a_packed_student_learns_and_hardly_a_token_is_padding(here: Path) -> None:
    import train_packed

    losses, padding = train_packed.train(
        "demo-labels", "student", here / "output", num_epochs=3, batch_size=8, row_length=64, learning_rate=1e-2
    )
    assert len(losses) == 9 and np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1
    assert 0 < padding < 0.3
    assert (here / "output/model.safetensors").exists()


def test_trl_learns_the_hard_labels(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import train_with_trl

    monkeypatch.setenv("HF_DATASETS_CACHE", str(here / "cache"))
    losses = train_with_trl.train(
        "demo-labels",
        "student",
        here / "output",
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        num_train_epochs=3,
        logging_steps=6,
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    assert len(losses) == 3 and losses[-1] < losses[0] - 0.2
    assert (here / "output/model.safetensors").exists()


def test_trl_is_given_the_labelled_tokens_alone() -> None:
    import train_with_trl

    row = {"input_ids": [5, 6, 7, 8, 9], "spans": [{"start": 1, "stop": 2}, {"start": 3, "stop": 5}]}
    assert train_with_trl.with_labels(row)["labels"] == [-100, 6, -100, 8, 9]


def test_the_python_in_the_training_page_runs(here: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/training.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/training.md", "exec"), namespace)
    assert namespace["loss"].item() > 0 and namespace["forward_kl"] is forward_kl
    assert namespace["stream"].num_records == 24
