"""A prompt and a completion that is given: which tokens are the completion's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelgen.prompts.token_spans import TokenSpan
from labelgen.prompts.tokenizer import PromptTokenizer, encode_text_prompt

__all__ = ["encode_pair"]


def encode_pair(prompt: str, completion: str, tokenizer: PromptTokenizer) -> tuple[NDArray[np.int32], list[TokenSpan]]:
    """Return the ids [T] of a prompt and its completion, and the completion's span.

    The ids are those of the whole text, where they begin with the prompt's own. Where a token would reach over the
    seam, they are the prompt's and then the completion's own, as a teacher that answers the prompt would write it:
    but only if they decode to the same text.

    Raises:
        ValueError: the completion has no tokens, or there is no boundary that is right.
    """
    prompt_ids = encode_text_prompt(prompt, tokenizer)
    whole = encode_text_prompt(prompt + completion, tokenizer)
    num_prompt = len(prompt_ids)
    if num_prompt == 0:
        raise ValueError("the prompt has no tokens, so nothing precedes the completion's first one")
    if not np.array_equal(whole[:num_prompt], prompt_ids):
        apart = np.concatenate([prompt_ids, tokenizer.encode_text(completion, with_special_tokens=False)])
        if tokenizer.decode(apart) != tokenizer.decode(whole):
            raise ValueError(
                "a token reaches over the seam of prompt and completion, and their own tokens make another text; "
                "move the white space at the seam to the other side"
            )
        whole = apart
    if len(whole) == num_prompt:
        raise ValueError("the completion has no tokens")
    return whole, [TokenSpan(start=num_prompt, stop=len(whole), kind="completion")]
