"""Trains a student on stored labels: a plain torch loop, with checkpoints that go on to the exact record.

python examples/train_student.py LABELS STUDENT -o OUTPUT    (STUDENT: a model with the teacher's tokenizer)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import labelstore
from labelstore.torch import BatchLoader, BatchStream, PaddingCollator
from labelstore.torch.losses import forward_kl, hard_cross_entropy, student_logprobs


def train(
    labels: str,
    student: str,
    output_dir: Path,
    *,
    num_epochs: int = 1,
    batch_size: int = 8,
    max_length: int = 1024,
    learning_rate: float = 1e-4,
    hard_share: float = 0.1,
    save_steps: int = 100,
    max_steps: int | None = None,
) -> list[float]:
    """Train, from the checkpoint in `output_dir` if there is one; return the loss of each step in nats a label."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(student)
    model = AutoModelForCausalLM.from_pretrained(student).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)

    dataset = labelstore.open_dataset(labels)
    collate = PaddingCollator(dataset, tokenizer=tokenizer, model=model, max_length=max_length)
    stream = BatchStream(dataset, collate, batch_size=batch_size, seed=0)
    loader = BatchLoader(stream, pin_memory=device == "cuda")

    checkpoint = output_dir / "checkpoint.pt"
    output_dir.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        loader.load_state_dict(state["loader"])

    losses: list[float] = []
    while stream.epoch < num_epochs:
        for batch in loader:
            batch = batch.to(device, non_blocking=True)
            student_beliefs = student_logprobs(model(**batch.model_inputs()).logits, batch.soft)
            soft, hard = forward_kl(student_beliefs, batch.soft), hard_cross_entropy(student_beliefs)
            loss = ((1 - hard_share) * soft + hard_share * hard).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            if len(losses) % save_steps == 0 or len(losses) == max_steps:
                state = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "loader": loader.state_dict(),
                }
                torch.save(state, checkpoint)
            if len(losses) == max_steps:
                return losses
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", help="A label dataset: a folder, or the URL of a finished one.")
    parser.add_argument("student", help="The student to start from.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="Where checkpoint and student go.")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8, help="Records a step.")
    arguments = parser.parse_args()
    losses = train(
        arguments.labels,
        arguments.student,
        arguments.output,
        num_epochs=arguments.epochs,
        batch_size=arguments.batch_size,
    )
    print(
        f"{len(losses)} steps, loss {losses[0]:.3f} -> {losses[-1]:.3f} nats a label"
        if losses
        else "nothing was left to do"
    )


if __name__ == "__main__":
    main()
