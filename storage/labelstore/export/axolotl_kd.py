"""The columns of axolotl's knowledge distillation (`kd_trainer`), as it holds them after its own preparation.

A dataset with `input_ids`, `attention_mask` and `labels` is taken as tokenized: no template is rendered again, so that
labels stay where they belong. Row i of the target columns is compared with the student's logits[i]; it is about token
i + 1. Axolotl pads rows to the longest of a batch, and masks the padding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from labelstore.dataset import LabelDataset
from labelstore.entry import total_counts
from labelstore.labels import Labels
from labelstore.record import LabelRecord
from labelstore.schema import list_column, offsets_of
from labelstore.selection import Selection

__all__ = ["AxolotlKdTarget", "target_logprobs_of"]

_IGNORED = -100  # a hard label that no loss counts
_WITHOUT_LABELS = "have no labels"
_MAX_CANDIDATES = 1 << 21  # of a row group: some 20 MB
_SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),  # [T]
        ("attention_mask", pa.list_(pa.int8())),  # [T], ones
        ("labels", pa.list_(pa.int32())),  # [T], the token where it is labelled
        ("target_token_ids", pa.list_(pa.list_(pa.int32()))),  # [T][K], empty where the next token is not labelled
        ("target_logprobs", pa.list_(pa.list_(pa.float32()))),
        ("target_mask", pa.list_(pa.list_(pa.int8()))),  # ones
    ]
)


class AxolotlKdTarget:
    """A Parquet file for axolotl's `datasets`."""

    name = "axolotl-kd"

    def write(self, records: Iterator[LabelRecord], dataset: LabelDataset, path: Path) -> Mapping[str, int]:
        left_out: Counter[str] = Counter()
        selection = dataset.header.selection
        group: list[LabelRecord] = []
        num_candidates = 0
        with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as file:
            for record in records:
                if not len(record.labels):
                    left_out[_WITHOUT_LABELS] += 1
                    continue
                group.append(record)
                num_candidates += record.token_ids.size + len(record.input_ids)
                if num_candidates >= _MAX_CANDIDATES:
                    file.write_table(_to_table(group, selection))
                    group, num_candidates = [], 0
            if group:
                file.write_table(_to_table(group, selection))
        return left_out

    def losses(self, dataset: LabelDataset) -> list[str]:
        counts, selection = total_counts(dataset.entries), dataset.header.selection
        num_labels = max(counts.num_labels, 1)
        found = []
        if selection.draws is None:
            found.append(
                f"the tail mass: candidates are renormalized to 1 "
                f"(mean kept mass {counts.kept_mass_sum / num_labels:.4f}, "
                f"truncation KL {counts.truncation_kl_sum / num_labels:.4f} nats)"
            )
        else:
            found.append("the logprobs of what was drawn: a draw stands with its share of the draws, which is unbiased")
        if not selection.is_constant_size:
            found.append(
                "a K of its own for each label, in a batch: axolotl pads to the largest K there and masks the padding, "
                "but counts it with kd_normalize_topk: leave that off"
            )
        if counts.codec_kl_sum:
            found.append(
                f"nothing more of quantized values: they are written as they are read, off by the codec's KL of "
                f"{counts.codec_kl_sum / num_labels:.2g} nats"
            )
        found.append("ids, texts and kept fields; the targets' own logprobs and ranks; entropy; kinds of spans")
        found.append(
            f"the teacher: {dataset.header.teacher}, {dataset.header.vocab_size:,} rows. A student needs the same "
            f"tokenizer, and kd_temperature 1.0"
        )
        return found


def target_logprobs_of(labels: Labels, selection: Selection) -> NDArray[np.float32]:
    """Return the log of each candidate's share of the label [C]; the shares of a label add up to 1.

    Candidates of a top-k or of a mass share as their probabilities do, draws as they were drawn; draws beside a head
    share the tail mass.
    """
    offsets = labels.candidate_offsets
    sizes = np.diff(offsets)
    shares = np.exp(labels.logprobs.reshape(-1).astype(np.float64))
    if labels.draw_counts is not None and selection.draws is not None:
        drawn = labels.draw_counts / selection.draws
        if selection.top_k is not None:
            tail = np.maximum(labels.tail_mass.astype(np.float64), np.finfo(np.float32).tiny)
            drawn = drawn * np.repeat(tail, sizes)
        shares = np.where(labels.draw_counts > 0, drawn, shares)
    totals = np.zeros(len(sizes))
    is_filled = sizes > 0  # reduceat gives nonsense for empty runs
    if is_filled.any():
        totals[is_filled] = np.add.reduceat(shares, offsets[:-1][is_filled])
    logprobs: NDArray[np.float64] = np.log(shares) - np.repeat(np.log(totals[is_filled]), sizes[is_filled])
    return logprobs.astype(np.float32)


def _to_table(records: Sequence[LabelRecord], selection: Selection) -> pa.Table:
    tokens = offsets_of([len(record.input_ids) for record in records])
    input_ids = np.concatenate([record.input_ids for record in records])
    places = np.concatenate([record.positions + start for record, start in zip(records, tokens, strict=False)])
    labels = np.full(len(input_ids), _IGNORED, dtype=np.int32)
    labels[places] = input_ids[places]
    sizes = np.zeros(len(input_ids), dtype=np.int64)
    sizes[places - 1] = np.concatenate([np.diff(record.candidate_offsets) for record in records])
    candidates = offsets_of(sizes)
    token_ids = np.concatenate([record.token_ids.reshape(-1) for record in records])
    logprobs = np.concatenate([target_logprobs_of(record.labels, selection) for record in records])
    columns = [
        list_column(tokens, pa.array(input_ids)),
        list_column(tokens, pa.array(np.ones(len(input_ids), dtype=np.int8))),
        list_column(tokens, pa.array(labels)),
        *(
            list_column(tokens, list_column(candidates, pa.array(values)))
            for values in (token_ids, logprobs, np.ones(len(token_ids), dtype=np.int8))
        ),
    ]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)
