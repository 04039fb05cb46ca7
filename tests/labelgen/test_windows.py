from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelgen.prompts.windows import cut_windows, window_stride


@given(
    num_tokens=st.integers(0, 60),
    lead=st.lists(st.integers(900, 905), max_size=2),
    max_tokens=st.integers(3, 20),
    data=st.data(),
)
def test_every_token_is_labelled_once_and_given_as_much_context_as_the_stride_leaves(
    num_tokens: int, lead: list[int], max_tokens: int, data: st.DataObject
) -> None:
    document, lead_ids = np.arange(num_tokens, dtype=np.int32), np.array(lead, dtype=np.int32)
    stride = data.draw(st.none() | st.integers(1, max_tokens - max(len(lead), 1)))
    step = window_stride(stride, max_tokens=max_tokens, num_lead=len(lead))
    labelled: list[int] = []
    for number, window in enumerate(cut_windows(document, lead_ids=lead_ids, max_tokens=max_tokens, stride=stride)):
        assert 1 <= window.first_label < len(window.input_ids) <= max_tokens
        run = window.input_ids[window.first_label :].tolist()
        assert run == list(range(window.document_offset, window.document_offset + len(run)))
        before = window.input_ids[: window.first_label].tolist()
        assert before[: len(lead)] == lead
        context = before[len(lead) :]
        assert context == list(range(window.document_offset - len(context), window.document_offset))
        if number:  # what the first one is given is all there is
            assert len(run) <= step and (len(before) >= max_tokens - step or context[0] == 0)
        labelled += run
    assert labelled == list(range(0 if lead else 1, num_tokens))


def test_without_a_stride_an_eighth_is_read_again() -> None:
    windows = list(cut_windows(np.arange(3000, dtype=np.int32), lead_ids=np.zeros(1, np.int32), max_tokens=801))
    assert [window.document_offset for window in windows] == [0, 800, 1500, 2200, 2900]
    assert [window.first_label for window in windows] == [1, 101, 101, 101, 701]


@pytest.mark.parametrize(("max_tokens", "stride"), [(9, 0), (9, 9)])
def test_a_stride_without_room_is_refused(max_tokens: int, stride: int) -> None:
    with pytest.raises(ValueError, match=rf"--stride must be in \[1, 8\] for windows of 9 tokens, got {stride}"):
        window_stride(stride, max_tokens=max_tokens, num_lead=1)


def test_a_window_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="a window of 1 tokens has no room for a label"):
        list(cut_windows(np.arange(9, dtype=np.int32), lead_ids=np.zeros(1, dtype=np.int32), max_tokens=1))
