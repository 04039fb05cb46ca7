"""An entry publishes the shards of one block. What no entry lists does not exist.

Entries are files `.labelgen/entries/<block>.<generation>.json`, created exclusively and never changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from labelstore.errors import DamagedDatasetError
from labelstore.file_names import block_of_shard
from labelstore.record import LabelRecord
from labelstore.sealed_json import seal, unseal
from labelstore.store import ReadableStore, read_each

__all__ = [
    "ENTRIES_DIR",
    "Entry",
    "LabelCounts",
    "ShardEntry",
    "entry_name",
    "generations_in_force",
    "next_generations",
    "parse_entry_name",
    "read_entries",
    "read_entry",
    "total_counts",
    "withdrawal_name",
]

ENTRIES_DIR = ".labelgen/entries"
_BLOCK = re.compile(r"\d{6,}")
_NAME = re.compile(r"(\d{6,})\.(\d+)\.(json|withdrawn)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCounts:
    """What some records add up to."""

    num_records: int = 0
    num_labels: int = 0
    num_tokens: int = 0  # of all input_ids
    kept_mass_sum: float = 0.0  # over labels
    truncation_kl_sum: float = 0.0  # over labels, nats: KL(renormalized candidates || full distribution)
    codec_kl_sum: float = 0.0  # over labels, nats: KL(teacher || decoded), the tail as one more outcome
    finish_reasons: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, record: LabelRecord) -> LabelCounts:
        """Count one record; what a codec changes in it is not known here."""
        kept = np.clip(record.labels.kept_mass, np.finfo(np.float64).tiny, 1.0)
        return cls(
            num_records=1,
            num_labels=len(record.labels),
            num_tokens=len(record.input_ids),
            kept_mass_sum=float(kept.sum()),
            truncation_kl_sum=float(-np.log(kept).sum()),
            finish_reasons={} if record.finish_reason is None else {record.finish_reason: 1},
        )

    def __add__(self, other: LabelCounts) -> LabelCounts:
        reasons = dict(self.finish_reasons)
        for reason, count in other.finish_reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
        return LabelCounts(
            num_records=self.num_records + other.num_records,
            num_labels=self.num_labels + other.num_labels,
            num_tokens=self.num_tokens + other.num_tokens,
            kept_mass_sum=self.kept_mass_sum + other.kept_mass_sum,
            truncation_kl_sum=self.truncation_kl_sum + other.truncation_kl_sum,
            codec_kl_sum=self.codec_kl_sum + other.codec_kl_sum,
            finish_reasons=reasons,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """One shard: how to check it, and what is in it."""

    name: str  # data/<block>-<n>-<sha8>.parquet
    codec: str
    num_bytes: int
    sha256: str
    model_bytes: int
    footer_bytes: int
    hash_list_sha256: str
    row_group_records: tuple[int, ...]  # records in each row group
    counts: LabelCounts
    stream_bytes: Mapping[str, int]  # what the bytes are for; they add up to num_bytes
    # Of converted labels: by how much codecs before this one may have moved the square root of a probability, at most.
    earlier_tolerance: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The published shards of one block of prompts."""

    block: str  # its number, six digits or more
    generation: int
    nonce: str  # the writer's own, so that it knows its entry again
    fingerprint: str
    shards: tuple[ShardEntry, ...]
    num_prompts: int  # of the block
    num_rejected: int  # prompts of the block that gave no record
    recorded: Mapping[str, Any]  # versions, devices, parallel sizes: they change no label on purpose
    created_at: str  # UTC, ISO 8601
    num_refused: int = 0  # responses or windows that gave no record, of prompts that have others

    @property
    def name(self) -> str:
        return entry_name(self.block, self.generation)

    def to_json(self) -> dict[str, Any]:
        return {**_values(self), "shards": [_shard_to_json(shard) for shard in self.shards]}

    def to_bytes(self) -> bytes:
        return seal(self.to_json())

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, origin: str) -> Entry:
        """Return the entry of a JSON object.

        Raises:
            DamagedDatasetError: fields are missing or unknown.
        """
        try:
            shards = tuple(
                ShardEntry(
                    **{
                        **shard,
                        "counts": LabelCounts(**shard["counts"]),
                        "row_group_records": tuple(shard["row_group_records"]),
                    }
                )
                for shard in content["shards"]
            )
            entry = cls(**{**content, "shards": shards})
            _check(entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedDatasetError(f"{origin}: is not an entry of this format version ({error})") from error
        return entry


def _check(entry: Entry) -> None:
    """Refuse what a reader would follow or allocate: an entry may come from a stranger.

    Raises:
        ValueError: a name is not that of a shard of this block, or a count is no count.
    """
    if not _BLOCK.fullmatch(entry.block):
        raise ValueError(f"block {entry.block!r} is no number of six digits or more")
    for shard in entry.shards:
        if block_of_shard(shard.name) != entry.block:
            raise ValueError(f"{shard.name!r} is not the name of a shard of block {entry.block}")
        sizes = (shard.num_bytes, shard.model_bytes, shard.footer_bytes, *shard.row_group_records)
        if not all(type(size) is int and 0 <= size < 1 << 48 for size in sizes):
            raise ValueError(f"{shard.name!r}: bytes and records must be counts, got {sizes}")
        if shard.model_bytes + shard.footer_bytes > shard.num_bytes:
            raise ValueError(f"{shard.name!r}: its model and footer are longer than the file")
        if sum(shard.row_group_records) > shard.num_bytes:
            raise ValueError(f"{shard.name!r}: has more records than bytes")


def _shard_to_json(shard: ShardEntry) -> dict[str, Any]:
    return {**_values(shard), "counts": _values(shard.counts)}


def _values(record: Entry | ShardEntry | LabelCounts) -> dict[str, Any]:
    """Return a dataclass's fields by name; `asdict` copies them all, which takes a manifest of many entries minutes."""
    return {name: getattr(record, name) for name in record.__slots__}


def entry_name(block: str, generation: int) -> str:
    """Return the name of an entry's file."""
    return f"{ENTRIES_DIR}/{block}.{generation}.json"


def withdrawal_name(block: str, generation: int) -> str:
    """Return the name of the file that takes a generation back."""
    return f"{ENTRIES_DIR}/{block}.{generation}.withdrawn"


def parse_entry_name(name: str) -> tuple[str, int, bool] | None:
    """Return the block and generation that a file's name states, and whether it withdraws them; None: it is neither."""
    match = _NAME.fullmatch(name.rsplit("/", 1)[-1])
    return None if match is None else (match[1], int(match[2]), match[3] == "withdrawn")


def next_generations(store: ReadableStore) -> dict[str, int]:
    """Return the generation of the next entry of each block that had one withdrawn; of all others it is 0."""
    generations: dict[str, int] = {}
    for name in store.names(ENTRIES_DIR):
        if (parsed := parse_entry_name(name)) is not None and parsed[2]:
            generations[parsed[0]] = max(generations.get(parsed[0], 0), parsed[1] + 1)
    return generations


def read_entry(store: ReadableStore, name: str) -> Entry:
    """Return the entry in a file.

    Raises:
        DamagedDatasetError: it is damaged, or stands under another's name.
    """
    return _parse_entry(store.read(name), name=name, origin=f"{store}/{name}")


def _parse_entry(data: bytes, *, name: str, origin: str) -> Entry:
    entry = Entry.from_json(unseal(data, origin=origin), origin=origin)
    if entry.name != name:
        raise DamagedDatasetError(f"{origin}: says that it is {entry.name}; it was renamed")
    return entry


def generations_in_force(store: ReadableStore) -> dict[str, int]:
    """Return the generation in force of each published block, in the order of blocks, from the files' names alone.

    Raises:
        DamagedDatasetError: a file there has another name than entries have.
    """
    generations: dict[str, set[int]] = {}
    withdrawn: set[tuple[str, int]] = set()
    for name in store.names(ENTRIES_DIR):
        if (parsed := parse_entry_name(name)) is None:
            raise DamagedDatasetError(f"{store}/{name}: is no entry; what does not belong there must be moved away")
        block, generation, is_withdrawal = parsed
        if is_withdrawal:
            withdrawn.add((block, generation))
        else:
            generations.setdefault(block, set()).add(generation)
    in_force = {}
    for block, numbers in sorted(generations.items(), key=lambda item: int(item[0])):
        if left := [generation for generation in numbers if (block, generation) not in withdrawn]:
            in_force[block] = max(left)
    return in_force


def read_entries(store: ReadableStore, *, holds: Callable[[str], bool] = lambda _: True) -> dict[str, Entry]:
    """Return the entries in force by block, in the order of blocks: all of them, or of the blocks that one `holds`.

    Raises:
        DamagedDatasetError: an entry's file is damaged, or stands under another's name.
    """
    names = {
        block: entry_name(block, generation)
        for block, generation in generations_in_force(store).items()
        if holds(block)
    }
    contents = read_each(store, names.values())
    return {
        block: _parse_entry(data, name=name, origin=f"{store}/{name}")
        for (block, name), data in zip(names.items(), contents, strict=True)
    }


def total_counts(entries: Iterable[Entry]) -> LabelCounts:
    """Return what all shards of the entries add up to."""
    return sum((shard.counts for entry in entries for shard in entry.shards), LabelCounts())
