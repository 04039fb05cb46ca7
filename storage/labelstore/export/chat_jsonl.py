"""Rows for supervised fine-tuning: one JSON object a line, as TRL, axolotl and others read them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from labelstore.dataset import LabelDataset
from labelstore.entry import total_counts
from labelstore.record import LabelRecord

__all__ = ["ChatJsonlTarget"]

_WITHOUT_TEXT = "have no text"
_NOT_KEPT = {"tools"}  # has a field of its own, which chat templates read


class ChatJsonlTarget:
    """A chat becomes `messages`, a text that was continued `prompt` and `completion`, a scored text `text`."""

    name = "chat-jsonl"

    def write(self, records: Iterator[LabelRecord], dataset: LabelDataset, path: Path) -> Mapping[str, int]:
        left_out: Counter[str] = Counter()
        with path.open("w", encoding="ascii") as file:
            for record in records:
                content = _content_of(record, task=dataset.header.task)
                if content is None:
                    left_out[_WITHOUT_TEXT] += 1
                    continue
                kept = {name: value for name, value in record.kept.items() if name not in _NOT_KEPT}
                row = {
                    "id": record.record_id,
                    **content,
                    **({"finish_reason": record.finish_reason} if record.finish_reason is not None else {}),
                    **({"kept": kept} if kept else {}),
                }
                file.write(json.dumps(row) + "\n")  # ASCII: some readers end lines at U+2028, too
        return left_out

    def losses(self, dataset: LabelDataset) -> list[str]:
        found = [
            "the soft labels: candidates, logprobs, tail mass, the targets' ranks",
            "the token ids: a trainer tokenizes the text again, with its own tokenizer and chat template",
        ]
        if dataset.header.task == "score":
            found.append("where a long document was cut: each window is a row")
        counts = total_counts(dataset.entries)
        if (num_cut := counts.finish_reasons.get("length", 0)) > 0:
            found.append(
                f"an end of {num_cut:,} of {counts.num_records:,} responses, which were cut (finish_reason length): "
                f"a trainer that adds an end-of-sequence token teaches to stop there"
            )
        return found


def _content_of(record: LabelRecord, *, task: str) -> dict[str, Any] | None:
    """Return what was said, by the names that trainers know; None where there is no text."""
    tools = {"tools": record.kept["tools"]} if "tools" in record.kept else {}
    if task == "score" and record.messages is not None:
        return {"messages": [dict(message) for message in record.messages], **tools}
    if record.text is None:
        return None
    if record.messages is not None:
        answer = {"role": "assistant", "content": record.text}
        return {"messages": [*(dict(message) for message in record.messages), answer], **tools}
    if record.prompt is not None:
        return {"prompt": record.prompt, "completion": record.text}
    return {"text": record.text}
