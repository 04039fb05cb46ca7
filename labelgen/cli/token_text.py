"""Token ids as text, with the tokenizer that the labels were made with and no other."""

from __future__ import annotations

from collections.abc import Callable

from labelstore.header import Header

__all__ = ["TokenText", "load_token_text"]

TokenText = Callable[[int], str]

_VISIBLE = str.maketrans({" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"})


def load_token_text(header: Header, tokenizer: str | None) -> TokenText:
    """Return a function that shows a token: white space made visible, or its id without a tokenizer.

    Raises:
        ValueError: the tokenizer asked for is not the teacher's; its ids would mean other tokens.
    """
    from labelgen.prompts.tokenizer import HFTokenizer

    location = tokenizer or header.teacher
    try:
        loaded = HFTokenizer(location, may_download=tokenizer is not None)
    except (ImportError, ValueError):
        if tokenizer is not None:
            raise
        return lambda token_id: f"#{token_id}"
    wanted, got = header.fingerprint_fields.get("tokenizer"), loaded.fingerprint_fields["tokenizer"]
    if wanted != got:
        raise ValueError(
            f"{location}: its tokenizer has another id -> token map than the one the labels were made with; "
            f"the ids would mean other tokens. Give the teacher's own with --tokenizer"
        )
    return lambda token_id: loaded.decode([token_id]).translate(_VISIBLE)
