"""Trains a student on the hard labels with TRL's SFTTrainer, which reads the shards without labelstore.

python examples/train_with_trl.py LABELS STUDENT -o OUTPUT    (pip install trl datasets)

The ids are the teacher's own, so nothing is tokenized again. Hard labels are plain columns, whatever the codec.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from datasets import load_dataset
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

import labelstore


def with_labels(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row's ids, and as labels those that the teacher labelled, -100 elsewhere."""
    is_labelled = [False] * len(row["input_ids"])
    for span in row["spans"]:
        is_labelled[span["start"] : span["stop"]] = [True] * (span["stop"] - span["start"])
    labels = [token if here else -100 for token, here in zip(row["input_ids"], is_labelled, strict=True)]
    return {"input_ids": row["input_ids"], "labels": labels}


def train(labels: str, student: str, output_dir: Path, **options: Any) -> list[float]:
    """Train with this SFTConfig; return the losses that were logged, in nats a label."""
    tokenizer = AutoTokenizer.from_pretrained(student)
    labelstore.check_tokenizer(labelstore.open_dataset(labels), tokenizer)
    rows = load_dataset(labels, split="train")
    trainer = SFTTrainer(
        model=student,
        args=SFTConfig(output_dir=str(output_dir), **options),
        train_dataset=rows.map(with_labels, remove_columns=rows.column_names),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", help="The folder of a label dataset.")
    parser.add_argument("student", help="The student to start from: a model with the teacher's tokenizer.")
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
