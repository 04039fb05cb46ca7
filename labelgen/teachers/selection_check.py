"""What every engine shows at its start: that the labels of a few positions are what the whole distribution says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from labelgen.teachers.selecting import head_width
from labelstore.labels import Labels
from labelstore.selection import Selection

__all__ = ["SELF_TEST_TEXT", "find_selection_problems"]

SELF_TEST_TEXT = "The quick brown fox jumps over the lazy dog, and 2 + 2 = 4; das ist so."
# Two computations of one position in one engine: 4e-5 nat in float32 (measured), a few hundredths in bfloat16.
TOLERANCE_NATS = 0.1


def find_selection_problems(labels: Labels, full: NDArray[np.float32], selection: Selection) -> Iterator[str]:
    """Yield what is wrong with labels, given the log-probabilities of all tokens [N, V]."""
    token_ids, logprobs = labels.token_ids.reshape(-1), labels.logprobs.reshape(-1)
    label_of = labels.candidate_positions()
    wanted = full[label_of, token_ids]
    if len(wanted) and (difference := float(np.abs(wanted - logprobs).max())) > TOLERANCE_NATS:
        yield f"a candidate's log-probability is {difference:.3f} nats from the whole distribution's"
    best = -np.sort(-full, axis=1)
    if selection.keep_mass is None and (width := head_width(selection)):
        head = logprobs if labels.draw_counts is None else logprobs[labels.draw_counts == 0]
        if head.size != len(labels) * width:
            yield f"{head.size} candidates of the head, wanted {width} for each of {len(labels)} labels"
        elif np.abs(head.reshape(-1, width) - best[:, :width]).max() > TOLERANCE_NATS:
            yield "the candidates are not the most likely tokens"
    if selection.draws is not None:
        assert labels.draw_counts is not None, "a selection with draws has counts"
        drawn = np.bincount(label_of, labels.draw_counts, minlength=len(labels))
        if (drawn > selection.draws).any() or (selection.top_k is None and (drawn != selection.draws).any()):
            yield f"{drawn.tolist()} draws, wanted {selection.draws}"
        if (np.bincount(label_of, labels.draw_counts > 0, minlength=len(labels)) > full.shape[1]).any():
            yield "more distinct draws than tokens"
    if selection.entropy:
        assert labels.entropy is not None, "a selection with entropy has it"
        wide = full.astype(np.float64)
        entropy = -(np.exp(wide) * wide).sum(axis=1)
        if (difference := float(np.abs(entropy - labels.entropy).max())) > TOLERANCE_NATS:
            yield f"an entropy is {difference:.3f} nats from the whole distribution's"
