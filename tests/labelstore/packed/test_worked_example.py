"""The example of FORMAT.md, "A packed record, worked", is what the code does.

    PYTHONPATH=storage:examples python tests/labelstore/packed/test_worked_example.py

prints the part of the text that is made from code.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import read_packed
from labelstore.codecs.packed.decoder import LabelDecoder
from labelstore.codecs.packed.encoder import LabelEncoder
from labelstore.codecs.packed.layout import ESCAPE, LIST_CLASSES, NUM_CONTEXTS, NUM_SYMBOLS, TABLE_BITS
from labelstore.codecs.packed.model import Model
from labelstore.labels import Labels
from labelstore.record import LabelRecord

FORMAT_MD = Path(__file__).resolve().parents[3] / "storage" / "FORMAT.md"


def test_the_worked_example_is_what_the_code_does() -> None:
    assert example_text() in FORMAT_MD.read_text(), f"print it with 'python {__file__}'"


@pytest.mark.parametrize("is_compiled", [True, False], ids=["numba", "numpy"])
def test_the_worked_example_decodes_to_its_labels_with_labelstore_too(is_compiled: bool) -> None:
    record = example_record()
    labels = LabelDecoder(example_model(), is_compiled=is_compiled).decode(
        memoryview(packed_example()), record.target_ids
    )
    np.testing.assert_array_equal(labels.token_ids, record.token_ids)
    np.testing.assert_array_equal(labels.target_ranks, record.labels.target_ranks)
    np.testing.assert_allclose(labels.tail_mass, [0.099152, 0.249947, 0.200226], atol=5e-7)


def example_model() -> Model:
    """Return a model of 8 ids and one cluster, whose list holds the ids 2 and 6; every table is the same."""
    frequency_class_sizes = np.zeros(128, dtype=np.uint32)
    frequency_class_sizes[[123, 127]] = 2  # seen twice, seen once
    list_class_sizes = np.zeros((1, LIST_CLASSES), dtype=np.uint16)
    list_class_sizes[0, 3] = 2
    frequencies = np.zeros((NUM_CONTEXTS, NUM_SYMBOLS), dtype=np.uint16)
    frequencies[:, [*range(14), 16, ESCAPE]] = (1 << TABLE_BITS) // 16
    return Model(
        vocab_size=8,
        size=2,
        inverse_step=24,
        exact_base=0,
        has_draws=False,
        has_entropy=False,
        num_training_labels=3,
        frequency_class_sizes=frequency_class_sizes,
        seen_ids=np.array([2, 6, 3, 7], dtype=np.int32),
        list_class_sizes=list_class_sizes,
        list_ranks=np.array([0, 1], dtype=np.int32),
        frequencies=frequencies,
    )


def example_record() -> LabelRecord:
    """Return the record of FORMAT.md, "The alignment, worked"."""
    kept = np.array([[0.60, 0.30], [0.50, 0.25], [0.40, 0.40]])
    return LabelRecord(
        prompt_id="worked",
        input_ids=np.array([1, 4, 5, 3, 5, 2], dtype=np.int32),
        spans=np.array([[3, 6]], dtype=np.int32),
        span_kinds=("completion",),
        labels=Labels(
            token_ids=np.array([[3, 7], [6, 2], [6, 2]], dtype=np.int32),
            logprobs=np.log(kept).astype(np.float32),
            candidate_offsets=np.array([0, 2, 4, 6], dtype=np.int64),
            target_logprobs=np.log([0.60, 0.0625, 0.40]).astype(np.float32),
            target_ranks=np.array([1, 5, 2], dtype=np.int32),
            tail_mass=np.array([0.10, 0.25, 0.20], dtype=np.float32),
        ),
    )


def packed_example() -> bytes:
    return LabelEncoder(example_model()).encode(example_record())


def example_text() -> str:
    """Return what FORMAT.md shows: the bytes of model and record, and the state behind each step."""
    model, packed = example_model().to_bytes(), packed_example()
    lines = ["The model's header, 40 bytes:", ""]
    lines += _hex_lines(model[:40])
    content = pa.Codec("zstd").decompress(model[40:], int.from_bytes(model[4:8], "little"), asbytes=True)
    content_hash = hashlib.sha256(content).hexdigest()
    lines += ["", f"The content, {len(content):,} bytes, has the sha256", "", f"    {content_hash}"]
    lines += ["", f"The record, {len(packed)} bytes:", "", *_hex_lines(packed), ""]
    _TracingLane.rows = []
    labels = read_packed.decode_record(packed, [3, 5, 2], read_packed.Model(model), _TracingLane)
    lines += ["| step | gives | state behind it |", "|---|---|---|", *_TracingLane.rows, ""]
    lines += ["| n | token_ids | logprobs | target_logprobs | target_ranks | tail_mass |", "|---|---|---|---|---|---|"]
    for n, label in enumerate(labels):
        ids = ", ".join(str(token_id) for token_id in label.token_ids)
        logprobs = ", ".join(f"{logprob:.6f}" for logprob in label.logprobs)
        lines.append(
            f"| {n} | {ids} | {logprobs} | {label.target_logprob} | {label.target_rank} | {label.tail_mass:.6f} |"
        )
    return "\n".join(lines) + "\n"


def _hex_lines(data: bytes) -> list[str]:
    return [f"    {data[at : at + 20].hex(' ')}" for at in range(0, len(data), 20)]


class _TracingLane(read_packed.Lane):
    """Writes a row of the table for each step."""

    rows: list[str]

    def __init__(self, model: read_packed.Model, words: list[int]) -> None:
        super().__init__(model, words)
        self.rows.append(f"| words 0 and 1 | | `{self.state:016x}` |")

    def number(self, context: int) -> int:
        slot = self.state & ((1 << TABLE_BITS) - 1)
        is_escaped = self.model.tables[context][slot][0] == ESCAPE
        self._in_number = True
        number = super().number(context)
        self._in_number = False
        escaped = ", by ESCAPE" if is_escaped else ""
        self.rows.append(f"| {_name_of(context)} | {number}{escaped} | `{self.state:016x}` |")
        return number

    def bits(self, width: int) -> int:
        value = super().bits(width)
        if not self._in_number:
            self.rows.append(f"| {width} bits | {value} | `{self.state:016x}` |")
        return value


_CONTEXTS = {
    "cluster_high": read_packed.CLUSTER_HIGH,
    "cluster_low": read_packed.CLUSTER_LOW,
    "shape": read_packed.SHAPE,
    "fit": read_packed.FIT,
    "size": read_packed.SIZE,
    "gap": read_packed.GAP,
    "value": read_packed.VALUE,
    "count": read_packed.COUNT,
    "tail": read_packed.TAIL,
    "rank_inside": read_packed.RANK_INSIDE,
    "rank_outside": read_packed.RANK_OUTSIDE,
    "target_inside": read_packed.TARGET_INSIDE,
    "target_outside": read_packed.TARGET_OUTSIDE,
}


def _name_of(context: int) -> str:
    name = max((name for name, first in _CONTEXTS.items() if first <= context), key=_CONTEXTS.__getitem__)
    return f"`{name}` + {context - _CONTEXTS[name]}"


if __name__ == "__main__":
    print(example_text(), end="")
