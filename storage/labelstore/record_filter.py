"""Which records a student reads, by what stands in their columns."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelstore.dataset import LabelDataset
from labelstore.holdout import check_holdout, is_held_out
from labelstore.schema import flat_list
from labelstore.shard_reader import RowGroup

__all__ = ["RecordFilter", "select_records"]

_HARD_COLUMNS = ("prompt_id", "finish_reason", "input_ids", "spans", "label_positions")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFilter:
    """What a record must be to be read; all of it must hold.

    Finish reason and lengths are answered from the hard columns alone: no soft label is read. The means are over a
    record's labels, and need the soft labels of the records that pass the rest.

    Raises:
        ValueError: no record could pass.
    """

    finish_reasons: frozenset[str] | None = None  # "stop", "length"; scored records have none, and pass only None
    min_tokens: int = 0  # of input_ids
    max_tokens: int | None = None
    min_labels: int = 0
    min_mean_logprob: float | None = None  # of the targets, in nats
    min_mean_kept_mass: float | None = None  # of the candidates
    holdout: float | None = None  # share of the prompts whose records do not pass
    only_holdout: bool = False  # ... or that alone pass

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise ValueError(f"max_tokens {self.max_tokens} is below min_tokens {self.min_tokens}")
        if self.min_mean_logprob is not None and not self.min_mean_logprob <= 0:
            raise ValueError(f"min_mean_logprob is in nats, at most 0, got {self.min_mean_logprob}")
        if self.holdout is not None:
            check_holdout(self.holdout)
        elif self.only_holdout:
            raise ValueError("only_holdout takes what holdout leaves out; give a share")
        if self.min_mean_kept_mass is not None and not 0 <= self.min_mean_kept_mass <= 1:
            raise ValueError(f"min_mean_kept_mass is a probability mass in [0, 1], got {self.min_mean_kept_mass}")

    @property
    def reads_soft_labels(self) -> bool:
        """Must soft labels be read to answer it?"""
        return self.min_mean_logprob is not None or self.min_mean_kept_mass is not None

    @property
    def passes_all(self) -> bool:
        """Does every record pass, so that nothing need be read?"""
        return self == RecordFilter()

    def passing_rows(self, table: pa.Table) -> NDArray[np.bool_]:
        """Return which rows of the hard columns pass, but for the means."""
        offsets, _ = flat_list(table, "input_ids")
        tokens = np.diff(offsets)
        is_passing = tokens >= self.min_tokens
        if self.max_tokens is not None:
            is_passing &= tokens <= self.max_tokens
        if self.finish_reasons is not None:
            reasons = pa.array(sorted(self.finish_reasons), pa.string())
            is_passing &= pc.is_in(table.column("finish_reason"), value_set=reasons).to_numpy()
        if self.holdout is not None:
            held_out = [is_held_out(name, self.holdout) for name in table.column("prompt_id").to_pylist()]
            is_passing &= np.array(held_out) == self.only_holdout
        if self.min_labels:
            spans = table.column("spans").combine_chunks()
            lengths = pc.subtract(spans.values.field("stop"), spans.values.field("start")).to_numpy()
            so_far = np.concatenate([[0], np.cumsum(lengths)])
            edges = spans.offsets.to_numpy()
            in_spans = so_far[edges[1:]] - so_far[edges[:-1]]
            chosen = pc.list_value_length(table.column("label_positions"))
            is_passing &= pc.coalesce(chosen, pa.array(in_spans, pa.int32())).to_numpy() >= self.min_labels
        return np.asarray(is_passing, dtype=np.bool_)

    def passing_means(self, group: RowGroup, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of the rows whose labels' means pass."""
        passing = []
        for row in rows.tolist():
            labels = group.record(row).labels
            if not len(labels):
                continue
            logprob, mass = self.min_mean_logprob, self.min_mean_kept_mass
            if logprob is not None and float(labels.target_logprobs.mean(dtype=np.float64)) < logprob:
                continue
            if mass is not None and float(labels.kept_mass.mean()) < mass:
                continue
            passing.append(row)
        return np.array(passing, dtype=np.int64)


def select_records(dataset: LabelDataset, record_filter: RecordFilter) -> list[NDArray[np.int64]]:
    """Return the records of each row group that pass [G], as indices of the dataset.

    Raises:
        DamagedDatasetError: what has to be read is damaged.
    """
    starts = dataset.row_group_starts
    if record_filter.passes_all:
        return [np.arange(start, stop) for start, stop in itertools.pairwise(starts.tolist())]
    selected = []
    for place, start in enumerate(starts[:-1].tolist()):
        rows = np.flatnonzero(record_filter.passing_rows(dataset.read_hard_columns(place, _HARD_COLUMNS)))
        if len(rows) and record_filter.reads_soft_labels:
            rows = record_filter.passing_means(dataset.read_row_group(place), rows)
        selected.append(rows + start)
    return selected
