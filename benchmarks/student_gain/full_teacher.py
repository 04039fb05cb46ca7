"""The teacher's full distributions, which no dataset can hold: the bound of what any labels can teach.

T tokens, H the teacher's hidden size, V its rows. A trunk's last hidden states are a hundredth of the logits: they are
computed once, and the output layer is applied whenever a batch asks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labelstore.record import LabelRecord
from labelstore.torch import Batch

__all__ = ["FullTeacher"]

_MAX_DIFFERENCE = 0.02  # nats, between the logprobs that a dataset has and those computed here (measured: 1e-4)


class FullTeacher:
    """A Transformers model in float32 whose logits are its output layer times its last hidden state."""

    def __init__(self, teacher_dir: Path, *, states_dir: Path) -> None:
        """Load the model; hidden states are kept in a folder, and computed once."""
        from transformers import AutoModelForCausalLM

        self._model: Any = AutoModelForCausalLM.from_pretrained(str(teacher_dir), dtype=torch.float32).eval()
        self._output_layer: torch.Tensor = self._model.get_output_embeddings().weight.detach()
        self._states_dir = states_dir
        self._states: dict[str, torch.Tensor] = {}

    def read(self, records: Iterable[LabelRecord], *, max_length: int) -> None:
        """Read the first `max_length` tokens of records, so that batches of them can be asked for.

        Raises:
            ValueError: it does not believe what the records say of it: this is another teacher, or labels are shifted.
        """
        self._states_dir.mkdir(parents=True, exist_ok=True)
        for record in records:
            input_ids = np.ascontiguousarray(record.input_ids[:max_length])
            path = self._states_dir / f"{hashlib.sha256(input_ids.tobytes()).hexdigest()[:16]}.npy"
            if not path.exists():
                with torch.inference_mode():
                    ids = torch.from_numpy(input_ids.astype(np.int64))[None]
                    states = self._model.base_model(ids, use_cache=False).last_hidden_state[0].numpy()
                part = path.with_suffix(".part")
                with part.open("wb") as file:
                    np.save(file, states)
                part.rename(path)
            states = torch.from_numpy(np.load(path))
            self._check(record, states)
            self._states[record.record_id] = states

    def logits(self, batch: Batch) -> torch.Tensor:
        """Return the teacher's logits [P, V] for the labels of a padded batch whose records were read."""
        rows, columns = batch.soft.rows // batch.input_ids.shape[1], batch.soft.rows % batch.input_ids.shape[1]
        states = [self._states[name][columns[rows == row]] for row, name in enumerate(batch.record_ids)]
        with torch.no_grad():
            return torch.cat(states) @ self._output_layer.T

    def _check(self, record: LabelRecord, states: torch.Tensor) -> None:
        """Compare the targets' log-probabilities of a few labels."""
        few = record.positions[record.positions < len(states)][:8]
        logprobs = (states[few - 1] @ self._output_layer.T).log_softmax(1).numpy()
        here = logprobs[np.arange(len(few)), record.input_ids[few]]
        there = record.labels.target_logprobs[: len(few)]
        worst = float(np.abs(here - there).max(initial=0.0))
        if worst > _MAX_DIFFERENCE:
            raise ValueError(
                f"record {record.record_id}: its targets' log-probabilities differ by up to {worst:.3f} nats from what "
                f"this teacher believes; load the teacher that labelled it"
            )
