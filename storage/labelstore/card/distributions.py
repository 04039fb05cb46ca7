"""What the entries do not add up: how long records are, and how much of the teacher's distribution labels keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.dataset import LabelDataset
from labelstore.record import LabelRecord

__all__ = ["Distributions", "measure_distributions"]

_ROW_GROUPS = 64  # from all over the dataset; at most 65,536 records, and some 300 MB read with the codec open


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: arrays have no truth value
class Distributions:
    """Of R records and their N labels; `is_sample`: the dataset has more."""

    tokens: NDArray[np.int64]  # [R], of input_ids
    labels: NDArray[np.int64]  # [R]
    kept_mass: NDArray[np.float32]  # [N]
    candidates: NDArray[np.int64]  # [N], how many are kept
    target_logprobs: NDArray[np.float32]  # [N], nats
    first: LabelRecord | None  # for an example; None where there are no records
    is_sample: bool


def measure_distributions(dataset: LabelDataset) -> Distributions:
    """Read row groups from all over a dataset.

    Raises:
        DamagedDatasetError: one of them is damaged.
    """
    num_groups = len(dataset.row_group_starts) - 1
    places = sorted(set(np.linspace(0, num_groups - 1, _ROW_GROUPS).astype(int).tolist())) if num_groups else []
    tokens, labels, first = [], [], None
    masses, sizes, targets = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for place in places:
        for record in dataset.read_row_group(place):
            first = record if first is None else first
            tokens.append(len(record.input_ids))
            labels.append(len(record.labels))
            masses.append(np.minimum(record.labels.kept_mass, 1.0).astype(np.float32))
            sizes.append(np.diff(record.candidate_offsets))
            targets.append(record.target_logprobs)
    return Distributions(
        tokens=np.array(tokens, np.int64),
        labels=np.array(labels, np.int64),
        kept_mass=np.concatenate(masses),
        candidates=np.concatenate(sizes),
        target_logprobs=np.concatenate(targets),
        first=first,
        is_sample=len(places) < num_groups,
    )
