"""A labelgen dataset as a source: the sequences of its records, to be labelled by another teacher."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelgen.prompts.given_sequence import GivenSequence
from labelgen.prompts.prompt import Prompt
from labelgen.prompts.prompt_fields import PromptFields, Task
from labelgen.prompts.token_spans import TokenSpan
from labelstore.dataset import LabelDataset, open_dataset
from labelstore.header import HEADER_NAME, Header
from labelstore.manifest import MANIFEST_NAME
from labelstore.schema import HARD_FIELDS, HardColumns
from labelstore.sealed_json import canonical_json

__all__ = ["LabelDatasetSource", "is_label_dataset"]

_HARD_COLUMNS = tuple(field.name for field in HARD_FIELDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelDatasetSource:
    """What is published of a dataset: all responses to a prompt, or windows of a document, as one prompt."""

    name: str  # the folder
    task: Task
    fields: PromptFields

    @property
    def header(self) -> Header:
        return self._open().header

    @property
    def state(self) -> Mapping[str, Any]:
        """What tells that it has not changed: the shards that are published."""
        dataset = self._open()
        names = sorted(shard.name for entry in dataset.entries for shard in entry.shards)
        shards = hashlib.sha256(canonical_json(names)).hexdigest()
        return {"fingerprint": dataset.header.fingerprint, "shards": shards}

    def check(self) -> None:
        if self.fields != PromptFields():
            raise ValueError(f"{self.name}: a dataset's sequences are given as they are; leave out options of fields")
        if not len(self._open()):
            raise ValueError(f"{self.name}: the dataset has no records yet")

    def rows(self) -> Iterator[tuple[int, Prompt]]:
        """Yield (first record's number from 1, prompt).

        Raises:
            ValueError: the dataset cannot be read on.
        """
        line = 0
        for prompt_id, records in itertools.groupby(self._records(), key=lambda fields: str(fields["prompt_id"])):
            group = list(records)
            yield line + 1, self._to_prompt(prompt_id, group, line + 1)
            line += len(group)

    def check_tokenizer(self, fingerprint_fields: Mapping[str, Any]) -> None:
        """Refuse a teacher whose ids stand for other tokens.

        Raises:
            ValueError: they do, or it is not known.
        """
        own, other = self.header.fingerprint_fields.get("tokenizer"), fingerprint_fields.get("tokenizer")
        if own is None or own != other:
            raise ValueError(
                f"{self.name}: its token ids are those of the teacher {self.header.teacher!r}, whose id -> token map "
                f"is another one than this teacher's ({_short(own)}, here {_short(other)}), so the same ids are not "
                f"the same text. Give a teacher with an equal tokenizer, or score the texts instead"
            )

    def _open(self) -> LabelDataset:
        return open_dataset(self.name)

    def _records(self) -> Iterator[dict[str, Any]]:
        dataset = self._open()
        for place in range(len(dataset.row_group_starts) - 1):
            yield from HardColumns(dataset.read_hard_columns(place, _HARD_COLUMNS)).all_record_fields()

    def _to_prompt(self, prompt_id: str, records: list[dict[str, Any]], line: int) -> Prompt:
        sequences = tuple(_to_sequence(fields) for fields in records)
        content = canonical_json([sequence.to_json() for sequence in sequences])
        first = records[0]
        return Prompt(
            prompt_id=prompt_id,
            source=self.name,
            line=line,
            content_hash=hashlib.sha256(content).hexdigest(),
            prompt=first["prompt"],
            messages=first["messages"],
            sequences=sequences,
            kept=first["kept"],
        )


def is_label_dataset(name: str) -> bool:
    """Return whether a folder holds a labelgen dataset."""
    return any((Path(name) / part).is_file() for part in (MANIFEST_NAME, HEADER_NAME))


def _to_sequence(fields: Mapping[str, Any]) -> GivenSequence:
    return GivenSequence(
        response_index=fields["response_index"],
        document_offset=fields["document_offset"],
        input_ids=tuple(fields["input_ids"].tolist()),
        spans=tuple(
            TokenSpan(start=start, stop=stop, kind=kind)
            for (start, stop), kind in zip(fields["spans"].tolist(), fields["span_kinds"], strict=True)
        ),
        text=fields["text"],
        finish_reason=fields["finish_reason"],
    )


def _short(digest: object) -> str:
    return "unknown" if digest is None else str(digest)[:12]
