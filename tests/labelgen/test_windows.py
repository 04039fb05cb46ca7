from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelgen.prompts.windows import cut_windows


@given(
    num_tokens=st.integers(0, 60),
    lead=st.lists(st.integers(900, 905), max_size=2),
    max_tokens=st.integers(3, 20),
)
def test_every_token_is_labelled_once_with_a_token_before_it(num_tokens: int, lead: list[int], max_tokens: int) -> None:
    document, lead_ids = np.arange(num_tokens, dtype=np.int32), np.array(lead, dtype=np.int32)
    labelled: list[int] = []
    for window in cut_windows(document, lead_ids=lead_ids, max_tokens=max_tokens):
        assert 1 <= window.first_label < len(window.input_ids) <= max_tokens
        run = window.input_ids[window.first_label :].tolist()
        assert run == list(range(window.document_offset, window.document_offset + len(run)))
        before = window.input_ids[: window.first_label].tolist()
        assert before == (lead or [window.document_offset - 1])
        labelled += run
    assert labelled == list(range(0 if lead else 1, num_tokens))


def test_a_window_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="a window of 1 tokens has no room for a label"):
        list(cut_windows(np.arange(9, dtype=np.int32), lead_ids=np.zeros(1, dtype=np.int32), max_tokens=1))
