"""The numbers in FORMAT.md are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from labelstore.codecs import CODECS
from labelstore.codecs.packed import fixed_log, layout, model
from labelstore.codecs.packed.values import grid_levels

FORMAT_MD = (Path(__file__).resolve().parents[3] / "storage" / "FORMAT.md").read_text()


def test_the_constants_are_those_of_the_layout() -> None:
    section = FORMAT_MD.split("### Constants\n")[1].split("\n### ")[0]
    rows = re.findall(r"^\| ([A-Z_]+) \| ([0-9^]+) \|", section, flags=re.MULTILINE)
    assert len(rows) == 23
    for name, value in rows:
        base, _, exponent = value.partition("^")
        assert int(base) ** int(exponent or 1) == getattr(layout, name), name


def test_the_contexts_are_those_of_the_layout() -> None:
    section = FORMAT_MD.split("### Contexts\n")[1].split("\n### ")[0]
    rows = re.findall(r"^\| `([a-z_]+)` \| (\d+) \| (\d+) \|", section, flags=re.MULTILINE)
    assert [(name, int(first), int(size)) for name, first, size in rows] == [
        (name, layout.FIRST_CONTEXT[name], size) for name, size in layout.STREAMS.items()
    ]
    assert f"2 * NUM_SYMBOLS * {layout.NUM_CONTEXTS} |" in FORMAT_MD


def test_the_logarithms_checks_are_those_of_the_table() -> None:
    table = fixed_log.ln_table()
    for place in (0, 1, 1024, 2047, 2048):
        assert f"T[{place}] = {table[place]}" in FORMAT_MD
    assert f"the sum of all is {table.sum()}" in FORMAT_MD.replace("\n", " ")
    assert f"LN2 = {fixed_log.LN2_FIXED} is ln 2" in FORMAT_MD


def test_every_codec_and_the_models_magic_are_named() -> None:
    for name in CODECS:
        assert f"`{name}`" in FORMAT_MD
    assert model._MAGIC.decode() in FORMAT_MD
    assert model._HEADER.size == 40


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 4.0, 20.0])
@pytest.mark.parametrize(("size", "inverse_step"), [(1, 5), (2, 8), (16, 30), (16, 85), (64, 150), (300, 60)])
def test_no_labels_kl_is_above_the_bound_of_the_text(size: int, inverse_step: int, sharpness: float) -> None:
    rng = np.random.default_rng(0)
    for coarse in (False, True):  # ties lift the first candidate
        logits = sharpness * rng.standard_normal((300, 400))
        if coarse:
            logits = np.rint(logits)
        logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        kept = -np.sort(-logprobs, axis=1)[:, :size]
        offsets = np.arange(len(kept) + 1) * size
        levels = grid_levels(kept.reshape(-1).astype(np.float32), offsets, inverse_step).reshape(kept.shape)
        weights = 12.0 * levels.astype(np.float64) ** 2 + 1
        shares = np.exp(kept)
        masses = shares.sum(axis=1)
        truth, decoded = shares / masses[:, None], weights / weights.sum(axis=1, keepdims=True)
        kl = masses * (truth * np.log(truth / decoded)).sum(axis=1)
        assert (kl <= (1.26 * size + 8) / inverse_step**2 + 1e-6).all()
