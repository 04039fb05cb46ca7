"""Which candidates of the teacher's distribution a label keeps."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["Selection"]

DEFAULT_MAX_K = 256  # of what --keep-mass keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is kept of the teacher's distribution at each labelled position.

    One of `top_k`, `keep_mass` and `draws`, or `top_k` and `draws` together (the exact head, and draws from the tail).
    """

    top_k: int | None = None  # the K most likely tokens
    keep_mass: float | None = None  # the smallest set of tokens with at least this mass, in (0, 1]
    min_k: int | None = None  # bounds of the set that keep_mass keeps
    max_k: int | None = None
    draws: int | None = None  # random draws from the full distribution
    entropy: bool = False  # the full distribution's entropy beside the candidates

    def __post_init__(self) -> None:
        for name in ("top_k", "min_k", "max_k", "draws"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if self.top_k is None and self.keep_mass is None and self.draws is None:
            raise ValueError("nothing would be kept: give --top-k, --keep-mass or --draws")
        if self.keep_mass is None:
            if self.min_k is not None or self.max_k is not None:
                raise ValueError("--min-k and --max-k bound what --keep-mass keeps; give --keep-mass too")
            return
        if not 0 < self.keep_mass <= 1:
            raise ValueError(f"--keep-mass is a probability mass in (0, 1], got {self.keep_mass}")
        if self.top_k is not None or self.draws is not None:
            raise ValueError("--keep-mass goes with neither --top-k nor --draws")
        # Written into the selection, so that a dataset says what bounded its sets.
        object.__setattr__(self, "min_k", self.min_k or 1)
        object.__setattr__(self, "max_k", self.max_k or max(DEFAULT_MAX_K, self.min_k or 1))
        assert self.min_k is not None and self.max_k is not None, "both were just set"
        if self.min_k > self.max_k:
            raise ValueError(f"--min-k {self.min_k} is above --max-k {self.max_k}")

    @property
    def is_constant_size(self) -> bool:
        """Does it keep the same number of candidates of each label?"""
        return self.keep_mass is None and self.draws is None

    def to_json(self) -> dict[str, object]:
        """Return the fields that are set, as plain JSON values."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.to_json().items())
