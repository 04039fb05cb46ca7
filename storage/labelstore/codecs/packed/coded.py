"""What passes between the parts of the decoder: a model's tables, and a record's labels as the coder gives them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs.packed.fixed_log import log_of_kept
from labelstore.codecs.packed.model import Model
from labelstore.codecs.packed.tables import number_fields

__all__ = ["Coded", "Lookup", "empty_coded", "lookup_of"]


class Lookup(NamedTuple):
    """A model's tables as the decoder uses them."""

    slots: NDArray[np.uint8]  # [contexts * 2^TABLE_BITS]
    entries: NDArray[np.uint32]  # [contexts * symbols]
    number_fields: NDArray[np.uint32]  # [symbols]: the least number of a symbol << 5 | how many low bits follow it
    id_of_rank: NDArray[np.int32]  # [V]
    list_offsets: NDArray[np.int32]  # [Z + 1]
    list_ids: NDArray[np.int32]
    list_classes: NDArray[np.uint8]  # one more than ids, so that the place behind a list can be looked at
    log_of_level: NDArray[np.int64]
    log_of_kept: NDArray[np.int64]
    size: int  # K of every label; 0 where it differs
    weight_of_one: int  # 0: exact values
    exact_base: int


class Coded(NamedTuple):
    """A record's labels as integers; each label's candidates most likely first, equals by place."""

    offsets: NDArray[np.int64]  # [N + 1]
    token_ids: NDArray[np.int32]  # [C]
    logprobs: NDArray[np.float32]  # [C] or [0]: of levels
    exact_bits: NDArray[np.uint32]  # [C] or [0]: of exact values
    draw_counts: NDArray[np.int32]  # [C] or [0]
    tails: NDArray[np.int64]  # [N]
    ranks: NDArray[np.int64]  # [N]
    targets: NDArray[np.int64]  # [N]
    entropies: NDArray[np.uint32]  # [N] or [0]


def lookup_of(model: Model) -> Lookup:
    """Return a model's tables as the decoder uses them."""
    bases, widths = number_fields()
    return Lookup(
        slots=model.slots.reshape(-1),
        entries=model.entries.reshape(-1),
        number_fields=((bases << 5) | widths).astype(np.uint32),
        id_of_rank=model.id_of_rank,
        list_offsets=model.list_offsets,
        list_ids=model.id_of_rank[model.list_ranks],
        list_classes=np.append(model.list_classes, np.uint8(0)),
        log_of_level=model.log_of_level,
        log_of_kept=log_of_kept(),
        size=model.size,
        weight_of_one=model.weight_of_one,
        exact_base=model.exact_base,
    )


def empty_coded(model: Model, *, num_labels: int, num_candidates: int) -> Coded:
    """Return room for the labels of a record."""
    is_exact = model.inverse_step == 0
    return Coded(
        offsets=np.zeros(num_labels + 1, np.int64),
        token_ids=np.empty(num_candidates, np.int32),
        logprobs=np.empty(0 if is_exact else num_candidates, np.float32),
        exact_bits=np.empty(num_candidates if is_exact else 0, np.uint32),
        draw_counts=np.empty(num_candidates if model.has_draws else 0, np.int32),
        tails=np.empty(num_labels, np.int64),
        ranks=np.empty(num_labels, np.int64),
        targets=np.empty(num_labels, np.int64),
        entropies=np.empty(num_labels if model.has_entropy else 0, np.uint32),
    )
