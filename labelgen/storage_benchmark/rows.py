"""One row of the result: one way of storing the labels of one teacher, kind of text and selection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from labelgen.storage_benchmark.fidelity import Spread

__all__ = ["RandomAccess", "StorageRow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageRow:
    """What storing takes and loses. None: it has no meaning for this method, or was not measured."""

    teacher: str
    dtype: str
    kind: str
    selection: str
    method: str  # a codec's name, or what a rival is
    is_codec: bool
    num_labels: int
    candidates_per_label: float
    bytes_per_label: float  # on disk, everything but the hard labels' columns
    bytes_per_label_by_stream: Mapping[str, float]  # hard labels included
    truncation_kl_nats: float | None  # mean of -ln(kept mass); for draws there is none
    draw_kl_nats: float | None  # mean; the noise of a label's draws
    codec_kl_nats: Spread | None
    top1_agreement: float | None
    encode_labels_per_second: float | None = None  # one core, median
    decode_labels_per_second: float | None = None

    @property
    def teacher_name(self) -> str:
        """The teacher, and its precision where it is not float32."""
        return self.teacher if self.dtype == "float32" else f"{self.teacher}, {self.dtype}"

    @property
    def selection_label(self) -> str:
        """The selection as a plot's label: k=64, mass 0.9, 12 draws."""
        name, value = self.selection.split(",", 1)[0].split("=")
        return {"top_k": f"k={value}", "keep_mass": f"mass {value}", "draws": f"{value} draws"}[name]

    @property
    def loss_nats(self) -> float:
        """What the stored label is off the full distribution: selection and codec together."""
        selection_kl = self.truncation_kl_nats if self.draw_kl_nats is None else self.draw_kl_nats
        return (selection_kl or 0.0) + (self.codec_kl_nats.mean if self.codec_kl_nats else 0.0)

    def to_json(self) -> dict[str, Any]:
        """Return what has a meaning for this row, as plain JSON values."""
        return {name: _rounded(value) for name, value in asdict(self).items() if value not in (None, {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomAccess:
    """The speed of single records in random order, from a dataset that is larger than what a reader caches."""

    teacher: str
    selection: str
    codec: str
    num_labels: int  # in the dataset
    labels_per_second: float
    records_per_second: float

    def to_json(self) -> dict[str, Any]:
        return {name: _rounded(value) for name, value in asdict(self).items()}


def _rounded(value: Any) -> Any:
    """Round numbers to five digits, which is more than is measured."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value
