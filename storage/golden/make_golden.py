"""Writes the golden files: small datasets of each codec and selection, which readers of later versions must still read.

    python storage/golden/make_golden.py FOLDER

They are written once, when the format is frozen as version 1, into storage/golden/v1/, reviewed and committed; tests
read them from then on and never write them. While the format is version 0 there are none, and without FOLDER this
refuses.

For each selection and codec there is a dataset `<selection>-<codec>/`, and beside it `<selection>-<codec>.parquet`: the
labels that a reader must get out of it, bit for bit, as plain Parquet with the columns of the codec `open`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from labelstore.codecs import CODECS, codec_named
from labelstore.codecs.open import OpenCodec
from labelstore.dataset import open_dataset
from labelstore.dataset_writer import DatasetWriter
from labelstore.header import FORMAT_VERSION, Header
from labelstore.labels import Labels
from labelstore.record import LabelRecord
from labelstore.selection import Selection

__all__ = ["SELECTIONS", "decoded_table", "golden_records", "make_golden"]

VOCAB_SIZE = 700
NUM_TOPICS = 3
RECORD_SIZES = (30, 0, 1, 110, 400)  # labels: one lane, none, a single one, two lanes, eight
SELECTIONS = {
    "top_k": Selection(top_k=8),
    "top_1": Selection(top_k=1),
    "keep_mass": Selection(keep_mass=0.9, min_k=2, max_k=40),
    "draws": Selection(draws=20),
    "top_k_and_draws": Selection(top_k=4, draws=10),
    "entropy": Selection(top_k=8, entropy=True),
}


def make_golden(root: Path) -> list[Path]:
    """Write all golden datasets into a new folder, and what must be read from them; return the datasets' folders."""
    folders = []
    for selection_name, selection in SELECTIONS.items():
        records = golden_records(selection)
        for codec in CODECS:
            folder = root / f"{selection_name}-{codec}"
            header = Header(
                task="score",
                teacher="golden",
                vocab_size=VOCAB_SIZE,
                selection=selection,
                fingerprint_fields={"selection": selection.to_json(), "golden": True},
                labelgen_version="0.1.0",
                created_at="2026-01-01T00:00:00+00:00",
            )
            writer = DatasetWriter(folder, header, codec=codec_named(codec))
            writer.publish_block("000000", records, num_prompts=len(records), num_rejected=0, recorded={})
            writer.finish()
            pq.write_table(decoded_table(list(open_dataset(folder))), folder.with_suffix(".parquet"))
            folders.append(folder)
    return folders


def golden_records(selection: Selection) -> list[LabelRecord]:
    """Return records of texts about a few topics, the same at every call; half of the labels have many ties."""
    rng = np.random.default_rng(0)
    topics = 2.5 * rng.standard_normal((NUM_TOPICS, VOCAB_SIZE))
    records = []
    for number, num_labels in enumerate(RECORD_SIZES):
        input_ids = rng.integers(0, VOCAB_SIZE, num_labels + 1).astype(np.int32)
        logits = topics[rng.integers(0, NUM_TOPICS, num_labels)] + rng.standard_normal((num_labels, VOCAB_SIZE))
        logits[::2] = np.rint(8 * logits[::2]) / 8  # as a coarse output layer gives them
        logits[3::50] *= 30  # certain
        records.append(
            LabelRecord(
                prompt_id=f"text-{number}",
                input_ids=input_ids,
                spans=np.array([[1, num_labels + 1]] if num_labels else [], dtype=np.int32).reshape(-1, 2),
                span_kinds=("text",) if num_labels else (),
                labels=_labels(logits, input_ids[1:], selection, rng),
                document_offset=0,
            )
        )
    return records


def decoded_table(records: Sequence[LabelRecord]) -> pa.Table:
    """Return the labels of records as the columns of the codec `open`, a row a record."""
    return pa.Table.from_arrays(OpenCodec.encode(records), schema=pa.schema(OpenCodec.fields))


def _labels(
    logits: NDArray[np.float64], targets: NDArray[np.int32], selection: Selection, rng: np.random.Generator
) -> Labels:
    """Return the labels of N targets under these logits [N, V]."""
    highest = logits.max(axis=1, keepdims=True, initial=0)
    exact = logits - highest - np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
    logprobs = np.minimum(exact, 0).astype(np.float32)
    kept = [_kept(row, selection, rng) for row in logprobs]
    sizes = [len(ids) for ids, _ in kept]
    owners = np.repeat(np.arange(len(targets)), sizes)
    token_ids = _joined([ids for ids, _ in kept])
    counts = _joined([drawn for _, drawn in kept])
    own = logprobs[np.arange(len(targets)), targets]
    shares = np.exp(logprobs[owners, token_ids].astype(np.float64))
    if selection.draws and selection.top_k:
        shares = np.where(counts == 0, shares, 0)  # the tail is what the exact head leaves
    tail_mass = np.clip(1 - np.bincount(owners, shares, minlength=len(targets)), 0, 1)
    wide = logprobs.astype(np.float64)
    entropy = -(np.exp(wide) * wide).sum(axis=1)
    return Labels(
        token_ids=token_ids,
        logprobs=logprobs[owners, token_ids],
        candidate_offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        target_logprobs=own,
        target_ranks=(logprobs >= own[:, None]).sum(axis=1).astype(np.int32),
        tail_mass=tail_mass.astype(np.float32),
        draw_counts=counts if selection.draws else None,
        entropy=np.maximum(entropy, 0).astype(np.float32) if selection.entropy else None,
    )


def _kept(
    logprobs: NDArray[np.float32], selection: Selection, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the ids that one label keeps, most likely first, and how often each was drawn."""
    order = np.argsort(-logprobs, kind="stable")
    num_head = selection.top_k or 0
    if selection.keep_mass is not None:
        masses = np.cumsum(np.exp(logprobs[order].astype(np.float64)))
        wanted = int(np.searchsorted(masses, selection.keep_mass)) + 1
        num_head = int(np.clip(wanted, selection.min_k, selection.max_k))
    counts = np.zeros(len(logprobs), dtype=np.int32)
    tail = np.exp(logprobs[order[num_head:]].astype(np.float64))
    if selection.draws is not None and tail.sum() > 0:
        points = rng.random(selection.draws) * tail.sum()
        drawn = order[num_head:][np.minimum(np.searchsorted(np.cumsum(tail), points), len(tail) - 1)]
        counts += np.bincount(drawn, minlength=len(counts)).astype(np.int32)
    is_kept = counts[order] > 0
    is_kept[:num_head] = True
    token_ids = order[is_kept].astype(np.int32)
    return token_ids, counts[token_ids]


def _joined(parts: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.concatenate([np.zeros(0, np.int32), *parts])


def main() -> None:
    if len(sys.argv) == 1 and FORMAT_VERSION == 0:
        sys.exit("the format is version 0, not frozen, and has no golden files to keep; to look at some, name a folder")
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / f"v{FORMAT_VERSION}"
    if root.exists():
        sys.exit(f"{root}: is there already; golden files are written once")
    print("\n".join(str(folder) for folder in make_golden(root)))


if __name__ == "__main__":
    main()
