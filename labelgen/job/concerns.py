"""What is odd about the labels that a run made: things a person would want to know before training on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelstore.entry import LabelCounts

__all__ = ["ends_in_loop", "find_concerns"]

_LOW_KEPT_MASS = 0.8
_NOTABLE_SHARE = 0.1  # of the responses
_NOTABLE_LOOPS = 0.01
_LOOP_TOKENS = 64  # the end of a response that is looked at
_LOOP_PERIOD = 16  # tokens that a loop repeats at most


def ends_in_loop(token_ids: NDArray[np.int32]) -> bool:
    """Return whether a response ends by repeating itself: 64 tokens with a period of 16 at most."""
    if len(token_ids) < _LOOP_TOKENS:
        return False
    end = token_ids[-_LOOP_TOKENS:]
    return any(bool((end[period:] == end[:-period]).all()) for period in range(1, _LOOP_PERIOD + 1))


def find_concerns(counts: LabelCounts, *, num_new_records: int, num_looping: int, asks_plain: bool) -> list[str]:
    """Return a line for each.

    `counts` are of the whole dataset; of the new records, `num_looping` end in a loop. `asks_plain`: a teacher with a
    chat template was given prompts as plain text.
    """
    concerns = []
    finished = sum(counts.finish_reasons.values())
    truncated = counts.finish_reasons.get("length", 0)
    if truncated > _NOTABLE_SHARE * finished:
        concerns.append(
            f"{truncated:,} of {finished:,} responses ({truncated / finished:.0%}) were cut at --max-tokens"
        )
    if finished and not counts.finish_reasons.get("stop", 0):
        concerns.append("no response came to an end by itself: see the stop ids and the chat template in --dry-run")
    if num_looping > _NOTABLE_LOOPS * num_new_records:
        share = num_looping / num_new_records
        concerns.append(
            f"{num_looping:,} of {num_new_records:,} new responses ({share:.0%}) end by repeating themselves"
        )
    if counts.num_labels and counts.kept_mass_sum / counts.num_labels < _LOW_KEPT_MASS:
        concerns.append(
            "the candidates keep little of the teacher's distribution; a larger --top-k or --keep-mass keeps more"
        )
    if asks_plain:
        concerns.append("'prompt' rows go to the teacher as plain text; --chat asks them as chats")
    return concerns
