"""A real teacher labels on a real S3 server, and its labels are proved from there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import labelstore
from labelgen.cli import main
from labelstore.object_store import ObjectStore
from s3_server import S3Proxy
from teachers import fetch_teacher

URL = "s3://bucket/labels"


@pytest.mark.more_engines
@pytest.mark.timeout(1200)
def test_a_real_teacher_labels_on_an_object_store(tmp_path: Path, s3_proxy: S3Proxy) -> None:
    teacher = str(fetch_teacher("smollm2"))
    rows = [{"id": f"r{i}", "prompt": f"The number {i} is"} for i in range(12)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    ObjectStore("s3://bucket/prompts").replace("p.jsonl", content)
    command = ["generate", "s3://bucket/prompts/", "-o", URL, "--teacher", teacher, "--max-tokens", "8", "--json"]
    made = CliRunner().invoke(main, [*command, "--top-k", "8", "--max-model-len", "256", "--rescore-at-end", "4"])
    assert made.exit_code == 0, made.output
    summary = json.loads(made.stdout.splitlines()[-1])
    assert summary["records"] == 12 and summary["rescored"]["agrees"]
    assert labelstore.verify_dataset(URL).findings == []
    assert [record.prompt_id for record in labelstore.open_dataset(URL)] == [row["id"] for row in rows]
    assert (ObjectStore(URL).local_dir / ".labelgen/logs/engine.log").exists()
    assert not list((ObjectStore(URL).local_dir / "tmp").iterdir())
