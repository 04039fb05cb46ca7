"""Losses equal a dense float64 reference, in value and gradient, for all that a label can keep.

P labels, K candidates, V columns. The reference works on whole [P, V] distributions with torch's own autograd.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from labelgen.teachers.full_softmax import full_softmax_labels
from labelstore.record import LabelRecord
from labelstore.selection import Selection
from labelstore.torch.losses import (
    TAIL_FLOOR,
    forward_kl,
    hard_cross_entropy,
    reverse_kl,
    sampled_cross_entropy,
    student_logprobs,
)
from labelstore.torch.soft_labels import SoftLabels
from labelstore.torch.stack_labels import stack_labels

NUM_LABELS = 9
Loss = Callable[[torch.Tensor], torch.Tensor]

TOP_K = Selection(top_k=16)
MASS = Selection(keep_mass=0.8, max_k=200)
DRAWS = Selection(draws=30)
HEAD_AND_DRAWS = Selection(top_k=8, draws=20)


def teacher_labels(
    selection: Selection, *, vocab_size: int, num_labels: int = NUM_LABELS, seed: int = 0
) -> tuple[SoftLabels, torch.Tensor]:
    """Return labels of a random teacher, and its whole log-probabilities [P, V] in float64."""
    rng = np.random.default_rng(seed)
    logits = 2.5 * rng.normal(size=(num_labels, vocab_size)) + 8 * (
        rng.random((num_labels, vocab_size)) < 10 / vocab_size
    )
    whole = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    input_ids = rng.integers(0, vocab_size, num_labels + 3).astype(np.int32)
    labels = full_softmax_labels(whole.astype(np.float32), input_ids[3:], selection, seed=seed)
    record = LabelRecord(
        prompt_id="a",
        input_ids=input_ids,
        spans=np.array([[3, 3 + num_labels]], dtype=np.int32),
        span_kinds=("completion",),
        labels=labels,
    )
    soft = stack_labels([record], starts=[0], lengths=[len(input_ids)], selection=selection, vocab_size=vocab_size)
    return soft, torch.from_numpy(whole)


def student_logits(
    vocab_size: int, *, num_rows: int = NUM_LABELS + 3, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return (3 * torch.randn(1, num_rows, vocab_size, generator=generator, dtype=torch.float64)).to(dtype)


def dense_bucketed(labels: SoftLabels, whole: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the probabilities [P, K] and [P] that the candidates (of draws: the head) and all others have."""
    ids = labels.token_ids.long()
    is_there = ids >= 0
    if labels.draw_counts is not None:
        is_there &= labels.draw_counts == 0
    inside = torch.zeros_like(whole, dtype=torch.bool)
    for row in range(len(ids)):
        inside[row, ids[row, is_there[row]]] = True
    probabilities = torch.where(is_there, whole.exp().gather(1, ids.clamp_min(0)), 0.0)
    return probabilities, torch.where(inside, 0.0, whole.exp()).sum(1)


def dense_kl(a: torch.Tensor, a_tail: torch.Tensor, b: torch.Tensor, b_tail: torch.Tensor) -> torch.Tensor:
    inside = torch.where(a > 0, a * (a.clamp_min(1e-300).log() - b.clamp_min(1e-300).log()), 0.0)
    return inside.sum(1) + torch.where(
        a_tail > 0, a_tail * (a_tail.clamp_min(1e-300).log() - b_tail.clamp_min(1e-300).log()), 0.0
    )


def teacher_of(labels: SoftLabels) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the stored probabilities of candidates (of draws: the head) and tail in float64."""
    probabilities = labels.logprobs.double().exp()
    if labels.draw_counts is not None:
        probabilities = probabilities.masked_fill(labels.draw_counts > 0, 0.0)
    return probabilities, labels.tail_mass.double()


def reference(name: str, labels: SoftLabels) -> Loss:
    """Return a loss of whole student logits [.., V], computed densely."""

    def whole_of(logits: torch.Tensor) -> torch.Tensor:
        return logits.reshape(-1, logits.shape[-1])[labels.rows].double().log_softmax(1)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        student = whole_of(logits)
        if name == "hard":
            return -student.gather(1, labels.target_ids[:, None]).squeeze(1)
        if name == "sampled":
            assert labels.draw_counts is not None and labels.selection.draws is not None
            weights = labels.draw_counts.double() / labels.selection.draws
            if labels.selection.top_k is not None:
                head = labels.logprobs.double().exp()
                weights = torch.where(labels.draw_counts > 0, weights * labels.tail_mass.double()[:, None], head)
            dense = torch.zeros_like(student)
            dense.scatter_add_(1, labels.token_ids.long().clamp_min(0), weights)
            return -(dense * student).sum(1)
        teacher, teacher_tail = teacher_of(labels)
        mine, my_tail = dense_bucketed(labels, student)
        if name == "forward":
            return dense_kl(teacher, teacher_tail, mine, my_tail)
        if name == "reverse":
            return dense_kl(mine, my_tail, teacher, teacher_tail.clamp_min(TAIL_FLOOR))
        teacher = teacher / teacher.sum(1, keepdim=True)
        nothing = torch.zeros_like(my_tail)
        if name == "forward, renormalized":
            return dense_kl(teacher, nothing, mine, nothing)
        assert name == "reverse, renormalized"
        return dense_kl(mine / mine.sum(1, keepdim=True), nothing, teacher, nothing)

    return loss


def ours(name: str, labels: SoftLabels, *, chunk_positions: int | None = 4) -> Loss:
    def loss(logits: torch.Tensor) -> torch.Tensor:
        student = student_logprobs(logits, labels, chunk_positions=chunk_positions)
        return {
            "hard": lambda: hard_cross_entropy(student),
            "sampled": lambda: sampled_cross_entropy(student, labels),
            "forward": lambda: forward_kl(student, labels),
            "reverse": lambda: reverse_kl(student, labels),
            "forward, renormalized": lambda: forward_kl(student, labels, tail="renormalize"),
            "reverse, renormalized": lambda: reverse_kl(student, labels, tail="renormalize"),
        }[name]()

    return loss


def value_and_gradient(loss: Loss, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf)
    # Differing weights, so that a gradient that lands in another row shows.
    weights = torch.linspace(0.5, 2, len(value), dtype=value.dtype)
    (gradient,) = torch.autograd.grad((weights * value).sum(), leaf)
    return value.detach().double(), gradient.double()


KL_NAMES = ["forward", "reverse", "forward, renormalized", "reverse, renormalized"]
CASES = [(name, selection) for name in [*KL_NAMES, "hard"] for selection in (TOP_K, MASS, HEAD_AND_DRAWS)]
CASES += [("sampled", DRAWS), ("sampled", HEAD_AND_DRAWS), ("hard", DRAWS)]


@pytest.mark.parametrize(("name", "selection"), CASES, ids=str)
def test_values_and_gradients_are_those_of_the_dense_form(name: str, selection: Selection) -> None:
    labels, _ = teacher_labels(selection, vocab_size=700)
    logits = student_logits(700)
    got, got_gradient = value_and_gradient(ours(name, labels), logits)
    wanted, wanted_gradient = value_and_gradient(reference(name, labels), logits)
    # Stored float32 values need not sum to 1 to the last bit: the divergences count that, the reference does not.
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=3e-6)
    torch.testing.assert_close(got_gradient, wanted_gradient, rtol=1e-6, atol=3e-6)
    assert wanted_gradient.abs().max() > 0.01, "the case shows nothing"


# One candidate scaled to 1 is the same distribution on both sides: nothing to see.
@pytest.mark.parametrize(
    ("name", "top_k"),
    [(name, k) for name in [*KL_NAMES, "hard"] for k in (1, 64, 256) if (name, k) != ("reverse, renormalized", 1)],
)
def test_a_vocabulary_of_262144_in_bfloat16(name: str, top_k: int) -> None:
    labels, _ = teacher_labels(Selection(top_k=top_k), vocab_size=262_144, num_labels=3)
    logits = student_logits(262_144, num_rows=6, dtype=torch.bfloat16)
    got, got_gradient = value_and_gradient(ours(name, labels, chunk_positions=2), logits)
    wanted, wanted_gradient = value_and_gradient(reference(name, labels), logits)
    torch.testing.assert_close(got, wanted, rtol=2e-6, atol=5e-6)
    # A bfloat16 gradient has 8 bits; the reference's is rounded in the same way.
    torch.testing.assert_close(got_gradient, wanted_gradient, rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("selection", [DRAWS, HEAD_AND_DRAWS], ids=str)
def test_draws_give_the_full_cross_entropy_on_average(selection: Selection) -> None:
    _, whole = teacher_labels(selection, vocab_size=60, num_labels=1)
    labels = same_labels(selection, whole, num_labels=4000)
    labels = replace(labels, rows=torch.zeros_like(labels.rows))  # all are about one row of the student's
    logits = student_logits(60, num_rows=1)
    leaf = logits.clone().requires_grad_()
    losses = ours("sampled", labels, chunk_positions=None)(leaf)
    wanted = -(whole.exp() * logits[0].log_softmax(1)).sum()
    error = losses.std().item() / len(labels) ** 0.5
    assert abs(losses.mean().item() - wanted.item()) < 4 * error and error < 0.02 * wanted.item()
    (gradient,) = torch.autograd.grad(losses.mean(), leaf)
    exact = logits[0].softmax(1) - whole.exp()
    assert (gradient[0] - exact).abs().max() < 0.006 < exact.abs().max() / 20


def same_labels(selection: Selection, whole: torch.Tensor, *, num_labels: int) -> SoftLabels:
    """Return many labels of one distribution [1, V], each with draws of its own."""
    input_ids = np.zeros(num_labels + 1, dtype=np.int32)
    logprobs = np.repeat(whole.numpy().astype(np.float32), num_labels, axis=0)
    labels = full_softmax_labels(logprobs, input_ids[1:], selection)
    spans = np.array([[1, num_labels + 1]], dtype=np.int32)
    record = LabelRecord(prompt_id="a", input_ids=input_ids, spans=spans, span_kinds=("text",), labels=labels)
    return stack_labels([record], starts=[0], lengths=[len(input_ids)], selection=selection, vocab_size=whole.shape[1])


@pytest.mark.parametrize("loss", [forward_kl, reverse_kl])
@pytest.mark.parametrize("selection", [TOP_K, MASS, HEAD_AND_DRAWS], ids=str)
def test_a_bucketed_kl_is_never_negative_and_never_above_the_full_one(loss: object, selection: Selection) -> None:
    labels, whole = teacher_labels(selection, vocab_size=300, num_labels=40)
    noise = torch.randn(whole.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for scale in (0.0, 1e-6, 1e-3, 0.1, 2.0):
        logits = torch.zeros(43, 300)
        logits[labels.rows] = (whole + scale * noise).float()
        value = ours("forward" if loss is forward_kl else "reverse", labels)(logits)
        mine = logits[labels.rows].double().log_softmax(1)
        full = (whole.exp() * (whole - mine)).sum(1) if loss is forward_kl else (mine.exp() * (mine - whole)).sum(1)
        assert (value >= 0).all() and (value.double() <= full + 2e-6).all(), scale


def test_a_renormalized_teacher_is_above_its_own_distribution_by_the_truncation_kl() -> None:
    labels, whole = teacher_labels(TOP_K, vocab_size=300)
    logits = torch.zeros(NUM_LABELS + 3, 300, dtype=torch.float64)
    logits[labels.rows] = whole
    truncation = -torch.log1p(-labels.tail_mass.double())
    got = ours("forward, renormalized", labels)(logits)
    torch.testing.assert_close(got, truncation, rtol=1e-5, atol=1e-6)
    assert truncation.min() > 1e-3


def test_temperature_softens_both_sides_and_scales_the_loss() -> None:
    labels, whole = teacher_labels(TOP_K, vocab_size=300)
    logits = student_logits(300)
    student = student_logprobs(logits, labels, temperature=2.5)
    got = forward_kl(student, labels, tail="renormalize")
    teacher = (whole.gather(1, labels.token_ids.long()) / 2.5).log_softmax(1)
    mine = (logits[0][labels.rows] / 2.5).log_softmax(1).gather(1, labels.token_ids.long())
    torch.testing.assert_close(got, 2.5**2 * (teacher.exp() * (teacher - mine)).sum(1), rtol=1e-5, atol=1e-5)


def test_the_gradient_at_a_temperature_is_that_of_the_dense_form() -> None:
    labels, _ = teacher_labels(TOP_K, vocab_size=300)

    def dense(logits: torch.Tensor) -> torch.Tensor:
        return reference("forward, renormalized", replace(labels, logprobs=labels.logprobs / 2.0))(logits / 2.0) * 4

    def chunked(logits: torch.Tensor) -> torch.Tensor:
        return forward_kl(student_logprobs(logits, labels, temperature=2.0), labels, tail="renormalize")

    got, wanted = (value_and_gradient(loss, student_logits(300)) for loss in (chunked, dense))
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


def test_what_a_selection_cannot_give_is_refused() -> None:
    draws, _ = teacher_labels(DRAWS, vocab_size=300)
    top, _ = teacher_labels(TOP_K, vocab_size=300)
    logits = student_logits(300)
    for loss in (forward_kl, reverse_kl):
        with pytest.raises(ValueError, match=r"draws=30: a KL needs the likeliest tokens.*Use sampled_cross_entropy"):
            loss(student_logprobs(logits, draws), draws)
        with pytest.raises(ValueError, match=r"temperature is 2\.0, and must be 1 here: how much a teacher's tail"):
            loss(student_logprobs(logits, top, temperature=2.0), top)
        with pytest.raises(ValueError, match="tail must be 'bucket' or 'renormalize', got 'drop'"):
            loss(student_logprobs(logits, top), top, tail="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"keep top_k=16, no draws: use forward_kl"):
        sampled_cross_entropy(student_logprobs(logits, top), top)
    with pytest.raises(ValueError, match=r"must be 1 here: the draws were made at temperature 1"):
        sampled_cross_entropy(student_logprobs(logits, draws, temperature=0.5), draws)
    with pytest.raises(ValueError, match="hard labels have no temperature"):
        hard_cross_entropy(student_logprobs(logits, top, temperature=0.5))
    with pytest.raises(ValueError, match=r"logits have 299 columns, but the labels' token ids go up to 299"):
        student_logprobs(logits[..., :299], top)
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        student_logprobs(logits, top, temperature=0)


def test_chunks_and_wider_students_change_nothing_but_the_tail() -> None:
    labels, _ = teacher_labels(TOP_K, vocab_size=300)
    logits = student_logits(300)
    whole = value_and_gradient(ours("forward", labels, chunk_positions=100), logits)
    for chunk_positions in (1, 2, None):
        part = value_and_gradient(ours("forward", labels, chunk_positions=chunk_positions), logits)
        torch.testing.assert_close(part, whole, rtol=1e-12, atol=1e-12)
    wide = torch.cat([logits, torch.full((1, logits.shape[1], 20), -torch.inf, dtype=logits.dtype)], dim=2)
    value, gradient = value_and_gradient(ours("forward", labels), wide)
    torch.testing.assert_close(value, whole[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient[..., :300], whole[1], rtol=1e-12, atol=1e-12)
    assert (gradient[..., 300:] == 0).all()


@pytest.mark.parametrize("name", KL_NAMES)
def test_nothing_is_nan_at_the_edges(name: str) -> None:
    labels, _ = teacher_labels(TOP_K, vocab_size=16, num_labels=4)  # all tokens are candidates
    certain = replace(labels, logprobs=torch.tensor([[0.0] + [-200.0] * 15] * 4), tail_mass=torch.zeros(4))
    for extreme in (labels, certain):
        for scale in (1.0, 1e4):
            value, gradient = value_and_gradient(ours(name, extreme), scale * student_logits(16, num_rows=7).float())
            assert value.isfinite().all() and gradient.isfinite().all() and (value >= 0).all()


def test_peak_memory_stays_below_the_dense_forms() -> None:
    result = subprocess.run([sys.executable, "-c", _MEMORY_CHILD], capture_output=True, text=True, check=True)
    before, chunked, dense = (int(line) for line in result.stdout.split())
    bfloat16_copy = 512 * 65_536 * 2
    # Beside the logits: their gradient in bfloat16, a few chunks, and code that is loaded. One float32 copy of it all
    # would be two more on top; the dense form holds several.
    assert bfloat16_copy / 2 < chunked - before < 2 * bfloat16_copy
    assert dense - before > 5 * bfloat16_copy


# Peak memory only grows, so the smaller form comes first.
_MEMORY_CHILD = """
import torch
from labelstore.selection import Selection
from labelstore.torch.losses import forward_kl, student_logprobs
from labelstore.torch.soft_labels import SoftLabels

def print_peak():
    # Not ru_maxrss: that of a child begins with its parent's.
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(int(line.split()[1]) * 1024)

torch.set_num_threads(1)
P, V, K = 512, 65536, 64
ids = torch.randint(V // K, (P, K)).int() + (V // K) * torch.arange(K, dtype=torch.int32)
logits = torch.empty(P, V, dtype=torch.bfloat16).normal_().requires_grad_()

labels = SoftLabels(
    rows=torch.arange(P), target_ids=torch.zeros(P, dtype=torch.int64), token_ids=ids,
    logprobs=torch.full((P, K), -5.0), tail_mass=torch.full((P,), 0.5), draw_counts=None, entropy=None,
    span_kinds=torch.zeros(P, dtype=torch.int64), selection=Selection(top_k=K), vocab_size=V)
warm = torch.zeros(4, 4, dtype=torch.bfloat16, requires_grad=True)  # torch's code comes into memory at its first use
torch.autograd.grad(warm.float().log_softmax(1).exp().sum(), warm)
print_peak()
kl = forward_kl(student_logprobs(logits, labels, chunk_positions=16), labels)
torch.autograd.grad(kl.mean(), logits)
print_peak()
student = logits.float().log_softmax(1)
picked = student.gather(1, ids.long())
tail = torch.log1p(-picked.exp().sum(1))
kl = (-5.0 - picked).sum(1) * 0.0067 + 0.5 * (-0.7 - tail)
torch.autograd.grad(kl.mean(), logits)
print_peak()
"""
