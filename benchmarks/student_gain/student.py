"""A small student, random at first, and how it is trained: the same for every kind of labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, RandomSampler

from labelstore.dataset import LabelDataset
from labelstore.student_checks import StudentTokenizer
from labelstore.torch import Batch, PaddingCollator
from student_gain.full_teacher import FullTeacher
from student_gain.methods import Loss

__all__ = ["Recipe", "new_student", "train_student"]

_WARM_UP = 0.1  # of the steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The student's size and its training."""

    hidden_size: int = 128
    num_layers: int = 2
    num_heads: int = 4
    max_length: int = 256  # tokens of a record
    batch_records: int = 1
    num_steps: int = 400
    learning_rate: float = 5e-3


def new_student(recipe: Recipe, *, vocab_size: int, seed: int) -> Any:
    """Return a random Llama whose output layer is its embedding."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=recipe.hidden_size,
            intermediate_size=3 * recipe.hidden_size,
            num_hidden_layers=recipe.num_layers,
            num_attention_heads=recipe.num_heads,
            max_position_embeddings=recipe.max_length,
            tie_word_embeddings=True,
        )
    )


def train_student(
    recipe: Recipe,
    dataset: LabelDataset,
    loss: Loss,
    teacher: FullTeacher,
    *,
    tokenizer: StudentTokenizer,
    seed: int,
) -> Any:
    """Return a student that learned from a dataset; a seed's students begin alike and read the same tokens in order."""
    model = new_student(recipe, vocab_size=dataset.header.vocab_size, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.1)
    num_warm_up = max(1, round(_WARM_UP * recipe.num_steps))
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / num_warm_up, total_iters=num_warm_up),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, recipe.num_steps - num_warm_up)),
        ],
        milestones=[num_warm_up],
    )
    collate = PaddingCollator(dataset, tokenizer=tokenizer, model=model, max_length=recipe.max_length)
    for batch in itertools.islice(_batches(dataset, collate, recipe, seed=seed), recipe.num_steps):
        loss(model(**batch.model_inputs()).logits, batch, teacher).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


def _batches(dataset: LabelDataset, collate: PaddingCollator, recipe: Recipe, *, seed: int) -> Iterator[Batch]:
    """Yield batches of records in random order, without end.

    A BatchStream shuffles row groups, which hold fewer records the more candidates a label has: its order is another
    one for each selection. Single records at random come in the same order from all datasets.
    """
    records: Any = dataset  # torch's types want a Dataset; a sequence is enough for a DataLoader
    sampler = RandomSampler(records, generator=torch.Generator().manual_seed(seed))
    loader: Any = DataLoader(
        records, batch_size=recipe.batch_records, sampler=sampler, collate_fn=collate, drop_last=True
    )
    while True:
        yield from loader
