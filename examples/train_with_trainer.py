"""Trains a student on stored labels with the Trainer of Transformers: a collator, and a loss of five lines.

python examples/train_with_trainer.py LABELS STUDENT -o OUTPUT    (STUDENT: a model with the teacher's tokenizer)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

import labelstore
from labelstore.torch import PaddingCollator
from labelstore.torch.losses import forward_kl, hard_cross_entropy, student_logprobs


class DistillationTrainer(Trainer):  # type: ignore[misc]
    """The Trainer with a loss on soft labels, and a tenth of the usual one."""

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: object
    ) -> Any:
        labels = inputs.pop("soft")
        outputs = model(**inputs)
        student = student_logprobs(outputs.logits, labels)
        loss = (0.9 * forward_kl(student, labels) + 0.1 * hard_cross_entropy(student)).mean()
        return (loss, outputs) if return_outputs else loss


def as_inputs(collate: PaddingCollator) -> Callable[[Sequence[labelstore.LabelRecord]], dict[str, Any]]:
    """Return a collator that gives the Trainer the dict it wants."""

    def collate_inputs(records: Sequence[labelstore.LabelRecord]) -> dict[str, Any]:
        batch = collate(records)
        return {**batch.model_inputs(), "soft": batch.soft}

    return collate_inputs


def train(labels: str, student: str, output_dir: Path, *, max_length: int = 1024, **options: Any) -> list[float]:
    """Train with these TrainingArguments; return the losses that the Trainer logged, in nats a label."""
    tokenizer = AutoTokenizer.from_pretrained(student)
    model = AutoModelForCausalLM.from_pretrained(student)
    dataset = labelstore.open_dataset(labels)
    collate = PaddingCollator(dataset, tokenizer=tokenizer, model=model, max_length=max_length)
    trainer = DistillationTrainer(
        model=model,
        # The Trainer takes away columns that the model does not know; a record has none.
        args=TrainingArguments(output_dir=str(output_dir), remove_unused_columns=False, **options),
        train_dataset=dataset,
        data_collator=as_inputs(collate),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", help="A label dataset: a folder, or the URL of a finished one.")
    parser.add_argument("student", help="The student to start from.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="Where checkpoints and student go.")
    arguments = parser.parse_args()
    losses = train(
        arguments.labels,
        arguments.student,
        arguments.output,
        per_device_train_batch_size=8,
        learning_rate=1e-4,
        logging_steps=10,
        report_to="none",
    )
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f} nats a label" if losses else "too few steps to log a loss")


if __name__ == "__main__":
    main()
