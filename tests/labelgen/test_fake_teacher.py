from __future__ import annotations

import numpy as np
import pytest
from check_teacher import check_teacher

from labelgen.teachers.fake import FakeTeacher
from labelstore.selection import Selection


@pytest.mark.parametrize("vocab_size", [300, 262_144])
def test_the_fake_teacher_keeps_the_protocol(vocab_size: int) -> None:
    teacher = FakeTeacher(selection=Selection(top_k=16), vocab_size=vocab_size, max_model_len=64)
    check_teacher(teacher, top_k=16, generates=True, tolerance_nats=0.0)


def test_another_seed_is_another_teacher() -> None:
    ids = np.arange(1, 9, dtype=np.int32)
    one, other = (FakeTeacher(selection=Selection(top_k=4), seed=seed) for seed in (0, 1))
    assert not np.allclose(one.full_logprobs(ids), other.full_logprobs(ids))
    assert one.facts.fingerprint_fields != other.facts.fingerprint_fields


@pytest.mark.parametrize("top_k", [1001, 5000])
def test_top_k_must_fit_the_vocabulary(top_k: int) -> None:
    with pytest.raises(ValueError, match=f"--top-k must be between 1 and the teacher's 1000 rows, got {top_k}"):
        FakeTeacher(selection=Selection(top_k=top_k))
