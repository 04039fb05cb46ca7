"""A model folder that brings code of its own: nothing of it runs, and nobody is asked whether it may."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from labelgen.cli import main
from labelgen.prompts.tokenizer import HFTokenizer
from labelstore.codecs import codec_named
from labelstore.dataset_writer import DatasetWriter
from make_records import make_header, make_record


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n"
    (folder / "evil.py").write_text(code)
    auto_map = {"AutoTokenizer": ["evil.Evil", None], "AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto_map}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Evil", "auto_map": auto_map}))
    return folder


def test_a_tokenizers_own_code_is_refused(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    with pytest.raises(ValueError, match="holds no tokenizer that transformers can load"):
        HFTokenizer(model_dir)
    assert not (tmp_path / "ran").exists()


def test_inspecting_a_dataset_loads_no_code_of_the_teacher_that_it_names(model_dir: Path, tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path / "data", make_header(teacher=str(model_dir)), codec=codec_named("open"))
    writer.publish_block("000000", [make_record(0)], num_prompts=1, num_rejected=0, recorded={})
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "data"), "--record", "0"], input="y\n")
    assert shown.exit_code == 0 and "#" in shown.output, "ids, for want of a tokenizer"
    assert not (tmp_path / "ran").exists()
