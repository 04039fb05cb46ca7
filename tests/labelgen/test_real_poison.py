"""A real engine that a prompt kills: started again, it labels all the others, and the prompt is rejected by name.

The poison is a real one. vLLM 0.32 on a CPU dies of a sampled prompt that it reads in chunks (vllm_config._batch_bounds
says why); labelgen sees to it that no prompt is. Here that is switched off.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import labelgen
import labelstore
from labelgen.job.progress import NullWatcher
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.sampling import SamplingChoice
from labelgen.teachers.teacher import Request
from labelgen.teachers.vllm_teacher import VLLMTeacher
from labelstore.selection import Selection
from rejected_rows import rejected_rows
from teachers import fetch_teacher

NUM_PROMPTS, POISON = 40, 17


class ChunkingTeacher(VLLMTeacher):
    """Reads prompts in chunks of 64 tokens, on a CPU too."""

    def __init__(self, *, log_path: Path) -> None:
        super().__init__(
            str(fetch_teacher("smollm2")),
            selection=Selection(top_k=8),
            settings=EngineSettings(max_model_len=512),
            log_path=log_path,
        )
        self._engine_args.enable_chunked_prefill = True
        for config in (self._engine_args, self._config.scheduler_config):
            config.max_num_batched_tokens = 64
            config.max_num_seqs = 8

    def _problem_of(self, request: Request, token_ids: object) -> None:
        return None


class Watcher(NullWatcher):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str, /) -> None:
        self.notes.append(message)


@pytest.mark.more_engines
@pytest.mark.timeout(1200)
def test_a_prompt_that_kills_a_real_engine_is_rejected_and_only_it(tmp_path: Path) -> None:
    rows = [{"id": f"r{i}", "prompt": f"The number {i} is"} for i in range(NUM_PROMPTS)]
    rows[POISON]["prompt"] = "All work and no play makes Jack a dull boy. " * 20
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(tmp_path / "p.jsonl"),),
        output_dir=tmp_path / "out",
        teacher="smollm2",
        selection=Selection(top_k=8),
        max_tokens=4,
        sampling=SamplingChoice(temperature=0.7),
    )
    watcher = Watcher()
    with ChunkingTeacher(log_path=tmp_path / "engine.log") as teacher:
        summary = labelgen.run(spec, teacher=teacher, watcher=watcher)
    assert summary.counts.num_records == NUM_PROMPTS - 1 and summary.num_rejected == 1
    (reject,) = rejected_rows(tmp_path / "out")
    assert reject["id"] == f"r{POISON}" and "it kills the engine, also with nothing beside it" in reject["reason"]
    names = [record.prompt_id for record in labelstore.open_dataset(tmp_path / "out")]
    assert names == [f"r{i}" for i in range(NUM_PROMPTS) if i != POISON]
    assert sum("it is started again" in note for note in watcher.notes) == 3, watcher.notes
