"""The benchmarks run, with tiny inputs, so that they cannot rot; what they measure is judged by people."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest


def test_driver_capacity_runs(tmp_path: Path) -> None:
    import driver_capacity

    figures = driver_capacity.measure(num_labels=600, top_k=16, response_tokens=50, block_size=4, root=tmp_path)
    assert figures["labels"] == 600 and figures["labels_per_second"] > 0


@pytest.mark.engine
def test_capture_cost_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import capture_cost

    monkeypatch.setattr(capture_cost, "NUM_POSITIONS", 8)
    monkeypatch.setattr(capture_cost, "NUM_ROUNDS", 1)
    monkeypatch.setattr(capture_cost, "NUM_CALLS", 1)
    monkeypatch.setattr(capture_cost, "TOP_KS", (4,))
    monkeypatch.setattr("sys.argv", ["capture_cost.py"])
    capture_cost.main()
    assert '"top_k": 4' in capsys.readouterr().out


@pytest.mark.engine
def test_engine_busy_runs_and_a_simulated_engine_never_waits(tmp_path: Path) -> None:
    import engine_busy

    figures = {
        in_waves: engine_busy.measure_simulated(
            num_prompts=120,
            num_slots=8,
            step_seconds=0.01,
            top_k=16,
            work_dir=tmp_path / str(in_waves),
            in_waves=in_waves,
        )
        for in_waves in (False, True)
    }
    assert figures[False]["labels"] == figures[True]["labels"] > 1000
    # The clock goes on by processor time and simulated steps: a busy machine changes nothing.
    assert figures[False]["busy_share"] >= 0.97 and figures[False]["filled_share_while_unfed"] >= 0.97
    assert figures[True]["filled_share_while_unfed"] < 0.7, "the measure does not see an engine that waits"


@pytest.mark.engine
def test_feeding_order_runs() -> None:
    import feeding_order

    steps = [
        feeding_order.measure(num_prompts=24, num_slots=4, block_size=12, long_first=long_first)
        for long_first in (False, True)
    ]
    assert steps[1] <= steps[0]


@pytest.mark.engine
def test_driver_profile_runs() -> None:
    import driver_profile

    figures = driver_profile.measure(num_prompts=10, num_slots=4, top_k=4)
    assert figures["labels"] > 40
    idle = {stage for stage, seconds in figures["seconds"].items() if seconds == 0}
    assert idle <= {"journal"}, "a stage is not where it was"  # a short job's blocks never wait for the disk


def test_open_encodings_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import open_encodings

    from make_records import make_dataset

    monkeypatch.setattr("sys.argv", ["open_encodings.py", str(make_dataset(tmp_path))])
    open_encodings.main()
    assert "| logprobs | BYTE_STREAM_SPLIT |" in capsys.readouterr().out


def test_row_groups_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import row_groups

    from make_records import make_dataset

    monkeypatch.setattr("sys.argv", ["row_groups.py", str(make_dataset(tmp_path))])
    row_groups.main()
    assert "| open | 2^16 |" in capsys.readouterr().out


def test_the_storage_benchmark_runs(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from labelgen.storage_benchmark.__main__ import main

    texts = tmp_path / "texts"
    texts.mkdir()
    rng = np.random.default_rng(0)
    for number in range(20):
        words = rng.integers(0, 300, 600)
        (texts / f"{number}.txt").write_text(" ".join(f"word{word}" for word in words))
    arguments = ["--teacher", "fake", "--smoke", "--texts", f"words={texts}", "--also", "fake:words:bfloat16"]
    folders = ["-o", str(tmp_path / "result"), "--cache", str(tmp_path / "cache")]
    result = CliRunner().invoke(main, [*arguments, *folders], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (tables,) = (tmp_path / "result").glob("storage-*.md")
    assert "| fake | words | k=64 |" in tables.read_text()
    assert len(list((tmp_path / "result").glob("storage-*.png"))) == 4


def test_reading_for_training_runs(tmp_path: Path) -> None:
    import reading_for_training

    from make_student import make_tokenizer, make_training_dataset

    dataset = make_training_dataset(tmp_path / "labels", num_records=10)
    rows = reading_for_training.measure(dataset, make_tokenizer(), num_rounds=1)
    assert len(rows) == 5 and all(row["labels_per_second"] > 0 for row in rows)


@pytest.mark.engine
def test_student_gain_runs_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tiny teacher labels random words with its full softmax; students of every method learn from it."""
    from student_gain.__main__ import Benchmark
    from student_gain.label_sets import read_captures
    from student_gain.methods import METHODS
    from student_gain.report import write_report
    from student_gain.student import Recipe

    captured = capture_words(tmp_path)
    said: list[str] = []
    recipe = Recipe(hidden_size=16, num_layers=1, num_heads=2, max_length=32, num_steps=3)
    benchmark = Benchmark(
        captured=read_captures(captured, ["words"]),
        teacher_dir=tmp_path / "teacher",
        work_dir=tmp_path / "work",
        recipe=recipe,
        held_out_records=2,
        say=said.append,
    )
    result = benchmark.run(METHODS, num_seeds=2)
    assert len(result["runs"]) == 2 * len(METHODS) == len(said) - 1
    # The teacher knows itself: its full distributions are those of the records that are compared.
    assert result["teacher_itself"]["kl_nats"] == 0 and result["teacher_itself"]["top1_agreement"] == 1
    assert all(run["kl_nats"] > 0 for run in result["runs"])
    write_report(result, images_dir=tmp_path, is_result=False, command="")
    assert "| k=64, exact |" in capsys.readouterr().out and (tmp_path / "student-gain.png").exists()
    said.clear()
    assert benchmark.run(METHODS, num_seeds=2)["runs"] == result["runs"] and len(said) == 1, "trained again"


def capture_words(root: Path) -> Path:
    """Let a tiny random teacher label texts as the storage benchmark does; return the folder of captures."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    from labelgen.storage_benchmark.capture import CAPTURED, Capture, LabelsWanted, capture_texts
    from labelgen.storage_benchmark.texts import Document, Split
    from labelgen.teachers.transformers_teacher import TransformersTeacher
    from make_student import tiny_model

    words = Tokenizer(WordLevel({f"word{n}": n for n in range(400)}, unk_token="word0"))
    words.pre_tokenizer = Whitespace()
    tiny_model(vocab_size=400).save_pretrained(root / "teacher")
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(str(root / "teacher"))
    rng = np.random.default_rng(0)
    splits: list[Split] = ["train", "train", "train", "test", "test"]
    documents = [
        Document(name=str(number), text=" ".join(f"word{word}" for word in rng.integers(0, 400, 40)), split=split)
        for number, split in enumerate(splits)
    ]
    capture = Capture(teacher=str(root / "teacher"), kind="words", path=root / "captures" / "words")
    teacher = TransformersTeacher(str(root / "teacher"), selection=CAPTURED)
    capture_texts(capture, documents, teacher=lambda: teacher, wanted=LabelsWanted(test=80, train=120))
    return root / "captures"


def test_many_blocks_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import many_blocks

    monkeypatch.setattr("sys.argv", ["many_blocks.py", "--blocks", "20", "--parts", "2"])
    many_blocks.main()
    assert '"num_blocks": 20' in capsys.readouterr().out


@pytest.mark.more_engines
def test_replicas_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import replicas

    # A replica's process finds its teacher by the module's name.
    searched = [str(Path(replicas.__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, searched)))
    figures = replicas.measure(tmp_path / "job", replicas=1, num_blocks=2, step_seconds=0.001)
    assert figures["records"] == 2 * replicas.BLOCK_SIZE and figures["seconds"] > 0
