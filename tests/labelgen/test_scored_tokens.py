"""How long a text may be that an engine scores: one for generating must not run out of memory when it reads again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.vllm_config import max_scored_tokens
from labelstore.selection import Selection


def config(*, vocab_size: int, is_v2: bool = False) -> SimpleNamespace:
    model = SimpleNamespace(max_model_len=8192, get_vocab_size=lambda: vocab_size)
    return SimpleNamespace(model_config=model, use_v2_model_runner=is_v2)


@pytest.fixture(autouse=True)
def one_gib_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelgen.teachers.vllm_config._free_memory_bytes", lambda _: 1 << 30)


@pytest.mark.parametrize(
    ("vocab_size", "selection", "expected"),
    [
        (262_144, Selection(top_k=64), 341),  # three float32 rows of the vocabulary for each token
        (262_144, Selection(draws=50), 256),  # two rows more; never fewer tokens than the engine's own least step
        (49_152, Selection(top_k=64), 1820),
        (1_000, Selection(top_k=64), 8191),
    ],
    ids=str,
)
def test_an_engine_for_generating_scores_texts_that_fit(vocab_size: int, selection: Selection, expected: int) -> None:
    settings = EngineSettings()
    assert (
        max_scored_tokens(config(vocab_size=vocab_size), settings, selection=selection, for_scoring=False) == expected
    )


def test_an_engine_that_reads_in_steps_scores_all_that_its_context_holds() -> None:
    large, settings, selection = 262_144, EngineSettings(), Selection(top_k=64)
    assert max_scored_tokens(config(vocab_size=large), settings, selection=selection, for_scoring=True) == 8191
    v2 = config(vocab_size=large, is_v2=True)
    assert max_scored_tokens(v2, settings, selection=selection, for_scoring=False) == 8191
