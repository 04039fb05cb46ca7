"""A plan of real teachers' labels: within a tenth of what texts that were not probed really take."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics

import projection
import pytest

import labelgen
from labelgen.prompts.prompt_sample import sample_hash
from labelstore.dataset import open_dataset
from labelstore.selection import Selection
from teachers import fetch_teacher

pytestmark = [pytest.mark.more_engines, pytest.mark.timeout(1800)]

_CHARACTERS = 1_200
_NUM_TEXTS = 72
_NUM_PROBED = 24


def write_texts(path: Path) -> None:
    """Write Python's own manual in pieces, each a text of its own: the same ones whatever changes here."""
    text = "\n".join(topics.values())
    pieces = [text[start : start + _CHARACTERS] for start in range(0, len(text), _CHARACTERS)]
    pieces = sorted(pieces, key=lambda piece: sample_hash(piece, seed=0))[:_NUM_TEXTS]
    path.write_text("".join(json.dumps({"id": f"t{i}", "text": piece}) + "\n" for i, piece in enumerate(pieces)))


@pytest.mark.parametrize("teacher", ["smollm2", "gemma"])
def test_the_projection_is_within_a_tenth_on_texts_that_were_not_probed(teacher: str, tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.jsonl")
    spec = labelgen.RunSpec(
        task="score",
        sources=(str(tmp_path / "texts.jsonl"),),
        output_dir=tmp_path / "labels",
        teacher=str(fetch_teacher(teacher)),
        selection=Selection(top_k=64),
        codec="open",
    )
    labelgen.run(spec)
    dataset = open_dataset(spec.output_dir)
    rows = projection.measure(
        list(dataset), dataset.header, num_probed=_NUM_PROBED, selections=(Selection(top_k=16), Selection(top_k=64))
    )
    assert len(rows) == 8
    for row in rows:
        assert abs(row["error"]) < 0.1, row
