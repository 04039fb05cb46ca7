"""Trains a student on packed rows: several records in a row of one length, kept apart by their position ids.

python examples/train_packed.py LABELS STUDENT -o OUTPUT    (STUDENT: a model with the teacher's tokenizer)

No attention mask is needed, and hardly any token is padding. A model with an attention kernel for sequences of variable
length (`attn_implementation="flash_attention_2"`) skips what lies between records altogether.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import labelstore
from labelstore.torch import BatchLoader, BatchStream, PackingCollator
from labelstore.torch.losses import forward_kl, student_logprobs


def train(
    labels: str,
    student: str,
    output_dir: Path,
    *,
    num_epochs: int = 1,
    batch_size: int = 32,
    row_length: int = 4096,
    learning_rate: float = 1e-4,
) -> tuple[list[float], float]:
    """Train; return the loss of each step in nats a label, and the share of the tokens that were padding."""
    tokenizer = AutoTokenizer.from_pretrained(student)
    model = AutoModelForCausalLM.from_pretrained(student)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)

    dataset = labelstore.open_dataset(labels)
    collate = PackingCollator(dataset, tokenizer=tokenizer, model=model, row_length=row_length)
    loader = BatchLoader(BatchStream(dataset, collate, batch_size=batch_size, seed=0))

    losses: list[float] = []
    num_tokens = num_padding = 0
    for _ in range(num_epochs):
        for batch in loader:
            logits = model(**batch.model_inputs()).logits  # input_ids and position_ids, no mask, no cache
            loss = forward_kl(student_logprobs(logits, batch.soft), batch.soft).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            num_tokens += batch.input_ids.numel()
            num_padding += int((batch.attention_mask == 0).sum())
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    return losses, num_padding / num_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", help="A label dataset: a folder, or the URL of a finished one.")
    parser.add_argument("student", help="The student to start from.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="Where the student goes.")
    parser.add_argument("--batch-size", type=int, default=32, help="Records a step.")
    parser.add_argument("--row-length", type=int, default=4096, help="Tokens a row.")
    arguments = parser.parse_args()
    losses, padding = train(
        arguments.labels,
        arguments.student,
        arguments.output,
        batch_size=arguments.batch_size,
        row_length=arguments.row_length,
    )
    print(f"{len(losses)} steps, loss {losses[0]:.3f} -> {losses[-1]:.3f} nats a label, {padding:.1%} padding")


if __name__ == "__main__":
    main()
