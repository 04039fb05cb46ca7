"""What the proof of parity labels: short answers, and texts of several kinds. Shared by tests and benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import labelgen
from labelgen.teachers.teacher import Teacher

__all__ = ["label_workload"]

ROOT = Path(__file__).resolve().parent.parent
_PROMPTS = {"smollm2": "chats.jsonl", "gemma": "texts.jsonl"}  # Gemma's base model has no chat template


def label_workload(
    teacher: Teacher, name: str, *, work_dir: Path, num_prompts: int = 24, max_tokens: int = 40
) -> tuple[Path, Path]:
    """Let a started demo teacher generate and score; return the folders of the two datasets."""
    generate = labelgen.RunSpec(
        task="generate",
        sources=(str(ROOT / "examples/prompts" / _PROMPTS[name]),),
        output_dir=work_dir / "generated",
        teacher=teacher.facts.name,
        codec="exact",
        max_tokens=max_tokens,
        limit=num_prompts,
        block_size=8,
    )
    score = labelgen.RunSpec(
        task="score",
        sources=_documents(work_dir),
        output_dir=work_dir / "scored",
        teacher=teacher.facts.name,
        codec="exact",
    )
    labelgen.run(generate, teacher=teacher)
    labelgen.run(score, teacher=teacher)
    return work_dir / "generated", work_dir / "scored"


def _documents(work_dir: Path) -> tuple[str, ...]:
    """Return English prose, source code and many languages: a little less than 2,000 tokens."""
    work_dir.mkdir(parents=True, exist_ok=True)
    licence = work_dir / "licence.txt"
    licence.write_text((ROOT / "LICENSE").read_text()[:5000])
    chats = [json.loads(line) for line in (ROOT / "examples/prompts/chats.jsonl").read_text().splitlines()]
    languages = work_dir / "languages.jsonl"
    text = "\n".join(chat["messages"][0]["content"] for chat in chats if chat["category"] == "other_language")
    languages.write_text(json.dumps({"id": "languages", "text": text}) + "\n")
    return (str(licence), str(ROOT / "examples/demo.py"), str(languages))
