"""Two jobs on one folder, by accident: both run, of each block the first entry wins, and the loser says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import labelgen
import labelstore
from labelgen.teachers.fake import FakeTeacher
from labelstore.selection import Selection

NUM_PROMPTS = 60

# Waits until the other job is there, too; then each response takes a moment, as with an engine.
JOB = """\
import sys, time
from pathlib import Path
import labelgen
from labelgen.teachers.fake import FakeTeacher
from labelstore.selection import Selection

root, source, own, other = map(Path, sys.argv[1:])

class SlowTeacher(FakeTeacher):
    def label(self, requests):
        for answer in super().label(requests):
            time.sleep(0.005)
            yield answer

class Watcher:
    def stage(self, message):
        pass
    def note(self, message):
        print(message, flush=True)
    def advance(self, progress):
        pass

selection = Selection(top_k=4)
spec = labelgen.RunSpec(
    task="generate", sources=(str(source),), output_dir=root, teacher="fake", selection=selection, codec="open",
    block_size=5, max_tokens=4, rescore_at_end=4,
)
teacher = SlowTeacher(selection=selection, vocab_size=300, max_model_len=64)
own.touch()
while not other.exists():
    time.sleep(0.001)
summary = labelgen.run(spec, teacher=teacher, watcher=Watcher())
print(f"records: {summary.counts.num_records}")
"""


def contents(root: Path) -> list[Any]:
    return [
        (record.record_id, record.input_ids.tolist(), record.token_ids.tolist(), record.logprobs.tolist())
        for record in labelstore.open_dataset(root)
    ]


def test_two_jobs_on_one_folder_double_nothing_and_the_loser_says_so(tmp_path: Path) -> None:
    source, root = tmp_path / "prompts.jsonl", tmp_path / "out"
    rows = [{"id": f"p{i}", "prompt": f"question {i}"} for i in range(NUM_PROMPTS)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ready = [tmp_path / "one is ready", tmp_path / "two is ready"]
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", JOB, str(root), str(source), str(own), str(other)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own, other in (ready, ready[::-1])
    ]
    outputs = [job.communicate(timeout=300) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    said = [out for out, _ in outputs]
    assert all(f"records: {NUM_PROMPTS}" in out for out in said)
    losses = sum(out.count("was published by another job first; this one's copy is dropped") for out in said)
    skipped = sum(out.count("blocks are labelled already") for out in said)
    assert losses or skipped, said

    dataset = labelstore.open_dataset(root)
    assert sorted(record.prompt_id for record in dataset) == sorted(row["id"] for row in rows)
    assert labelstore.verify_dataset(root).findings == []
    listed = {shard.name for entry in dataset.entries for shard in entry.shards}
    assert {f"data/{path.name}" for path in (root / "data").iterdir()} == listed  # the loser has deleted its own

    selection = Selection(top_k=4)
    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(source),),
        output_dir=tmp_path / "alone",
        teacher="fake",
        selection=selection,
        codec="open",
        block_size=5,
        max_tokens=4,
    )
    labelgen.run(spec, teacher=FakeTeacher(selection=selection, vocab_size=300, max_model_len=64))
    assert sorted(contents(root)) == sorted(contents(tmp_path / "alone"))
