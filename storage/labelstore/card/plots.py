"""The card's pictures. Colours are of Okabe and Ito, which colour-blind people tell apart."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.card.distributions import Distributions

__all__ = ["draw_plots"]

_BLUE, _ORANGE = "#0072B2", "#E69F00"
_PIXELS_PER_INCH = 130
_MAX_BINS = 60


def draw_plots(distributions: Distributions) -> Mapping[str, bytes]:
    """Return PNG files by name; none where there is nothing to draw.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'labelgen[plot]', or give --no-plots") from error
    if not len(distributions.labels) or not len(distributions.kept_mass):
        return {}
    draw: dict[str, Callable[[Any, Distributions], None]] = {"lengths.png": _draw_lengths, "labels.png": _draw_labels}
    plots = {}
    for name, drawing in draw.items():
        figure = Figure(figsize=(10, 3.2), layout="constrained", dpi=_PIXELS_PER_INCH)
        drawing(figure, distributions)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})  # the same bytes for the same dataset
        plots[name] = buffer.getvalue()
    return plots


def _draw_lengths(figure: Any, distributions: Distributions) -> None:
    left, right = figure.subplots(1, 2)
    _histogram(left, distributions.tokens, colour=_BLUE, xlabel="tokens a record, prompt included", of="records")
    _histogram(right, distributions.labels, colour=_ORANGE, xlabel="labels a record", of="records")


def _draw_labels(figure: Any, distributions: Distributions) -> None:
    left, right = figure.subplots(1, 2)
    if len(np.unique(distributions.candidates)) > 1:
        _histogram(left, distributions.candidates, colour=_BLUE, xlabel="candidates a label (K)", of="labels")
    else:
        lost = np.sort(1 - distributions.kept_mass.astype(np.float64))
        left.plot(lost, np.linspace(0, 1, len(lost)), color=_BLUE)
        left.set(xlabel="probability outside the candidates", ylabel="share of labels with at most so much")
        left.set_xscale("symlog", linthresh=1e-4)
        left.set(xlim=(0, 1), ylim=(0, 1.02))
        left.grid(visible=True, alpha=0.2)
    # Bins wider than the steps that a codec rounds a target's logprob to.
    probabilities = np.exp(distributions.target_logprobs.astype(np.float64))
    right.hist(probabilities, bins=np.linspace(0, 1, 21), color=_ORANGE)
    _label(right, xlabel="probability of the token that follows", of="labels")


def _histogram(axes: Any, values: NDArray[np.int64], *, colour: str, xlabel: str, of: str) -> None:
    low, high = int(values.min()), int(values.max())
    width = -(-(high - low + 1) // _MAX_BINS)
    axes.hist(values, bins=np.arange(low, high + width + 1, width) - 0.5, color=colour)
    _label(axes, xlabel=xlabel, of=of)


def _label(axes: Any, *, xlabel: str, of: str) -> None:
    axes.set(xlabel=xlabel, ylabel=of)
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis="y", alpha=0.2)
