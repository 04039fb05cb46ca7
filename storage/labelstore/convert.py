"""Converts finished datasets: another codec, fewer candidates, several of one fingerprint joined.

One source entry becomes one block of the new dataset. A block is encoded in a stream, its shards are decoded again
and compared with the source, and only then published; where codec and candidates stay, shards are copied as they are.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from labelstore.codecs import CODECS, codec_named
from labelstore.conversion_plan import Plan, Source, make_plan
from labelstore.cut import cut_labels
from labelstore.dataset_writer import DatasetWriter
from labelstore.entry import Entry, LabelCounts, ShardEntry, total_counts
from labelstore.errors import DamagedDatasetError
from labelstore.file_names import shard_name
from labelstore.local_files import LocalFile, remove
from labelstore.location import Location, as_location
from labelstore.model_source import ENOUGH_LABELS
from labelstore.provenance import lossy_codecs, recorded_of_conversion
from labelstore.record import LabelRecord, prompt_id_of
from labelstore.record_choice import RecordChoice
from labelstore.same_records import find_difference
from labelstore.shard_reader import ShardReader
from labelstore.store import ReadableStore, read_pieces

__all__ = ["ConversionProgress", "ConversionSummary", "ConversionWatcher", "SilentWatcher", "convert_datasets"]

ALL_RECORDS = RecordChoice()
_TRAINING_ROW_GROUPS = 32  # a model is trained on labels from so many places of the sources


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionProgress:
    """What has been done so far."""

    num_blocks: int
    total_blocks: int  # to be converted in this run
    num_labels: int


class ConversionWatcher(Protocol):
    """Is told how a conversion goes."""

    def note(self, message: str, /) -> None: ...
    def warn(self, message: str, /) -> None: ...
    def advance(self, progress: ConversionProgress, /) -> None: ...


class SilentWatcher:
    """Watches nothing; the summary has the warnings."""

    def note(self, message: str, /) -> None:
        pass

    def warn(self, message: str, /) -> None:
        pass

    def advance(self, progress: ConversionProgress, /) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionSummary:
    """What a conversion came to."""

    output_dir: Location
    codec: str
    counts: LabelCounts  # of the whole new dataset
    num_bytes: int
    source_num_bytes: int
    num_blocks: int
    num_new_blocks: int  # made by this run
    num_copied_blocks: int  # of those, without decoding
    warnings: tuple[str, ...]


def convert_datasets(
    locations: Sequence[str],
    output_dir: str | Path,
    *,
    codec: str | None = None,
    top_k: int | None = None,
    choice: RecordChoice = ALL_RECORDS,
    labelgen_version: str,
    watcher: ConversionWatcher,
) -> ConversionSummary:
    """Convert finished datasets (folders or fsspec URLs) into one new dataset.

    `codec` None keeps the sources' codec, `top_k` None all candidates; `choice` says which records are kept. Run again,
    it goes on with what is missing.

    Raises:
        ValueError: the options ask for what cannot be, or a record is in the sources twice.
        ImportError: the codec needs a library that is not installed.
        StorageError: a source is damaged, not finished, or of another fingerprint; the folder holds something else.
    """
    if codec is not None:
        codec_named(codec)
    output_dir = as_location(output_dir)
    plan = make_plan(locations, output_dir, codec=codec, top_k=top_k, choice=choice, labelgen_version=labelgen_version)
    return _Conversion(plan, output_dir, watcher).run()


class _Conversion:
    """The carrying out of a plan."""

    def __init__(self, plan: Plan, output_dir: Location, watcher: ConversionWatcher) -> None:
        self._plan = plan
        self._codec = CODECS[plan.codec]
        self._watcher = watcher
        self._writer = DatasetWriter(output_dir, plan.header, codec=self._codec, is_conversion=True)
        self._model: bytes | None = None
        self._num_blocks = self._total_blocks = self._num_labels = 0  # of this run

    def run(self) -> ConversionSummary:
        plan, writer = self._plan, self._writer
        missing = [item for item in plan.blocks if item[0] not in writer.entries]
        if not missing:
            self._watcher.note("everything is converted already; nothing to do")
        elif writer.entries:
            self._watcher.note(f"{len(writer.entries)} blocks are converted already; going on with {len(missing)}")
        warnings = self._warnings()
        for warning in warnings:
            self._watcher.warn(warning)
        self._total_blocks = len(missing)
        publishing: concurrent.futures.Future[None] | None = None
        # A block is checked and published beside the encoding of the next one: one at a time, so that memory stays
        # bounded and a failure ends the conversion with the next block.
        with concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="labelstore-check") as pool:
            for block, source, entry in missing:
                is_copied = plan.is_copied(entry)
                shards = self._copied(block, source, entry) if is_copied else self._encoded(block, source, entry)
                if publishing is not None:
                    publishing.result()
                publishing = pool.submit(self._publish, block, source, entry, shards)
            if publishing is not None:
                publishing.result()
        manifest, _ = writer.finish()
        return ConversionSummary(
            output_dir=writer.store.location,
            codec=plan.codec,
            counts=total_counts(manifest.entries),
            num_bytes=_num_bytes(manifest.entries),
            source_num_bytes=sum(_num_bytes(source.entries) for source in plan.sources),
            num_blocks=len(manifest.entries),
            num_new_blocks=len(missing),
            num_copied_blocks=sum(plan.is_copied(entry) for _, _, entry in missing),
            warnings=tuple(warnings),
        )

    def _warnings(self) -> list[str]:
        """Say aloud what a user may not have meant."""
        unknown = self._plan.num_unknown_ids
        warnings = [f"{unknown:,} of the ids in --drop-ids are in no record"] if unknown else []
        return warnings if self._codec.is_exact else warnings + self._warn_of_losses()

    def _warn_of_losses(self) -> list[str]:
        lossy = sorted(
            {
                codec
                for source in self._plan.sources
                for entry in source.entries
                if not self._plan.is_copied(entry)
                for codec in lossy_codecs(entry)
            }
        )
        if not lossy:
            return []
        return [
            f"the values have been through the codec {' and '.join(lossy)} and are rounded once more by "
            f"{self._plan.codec}: the losses add up. Convert from labels stored as open or exact where you have them."
        ]

    def _copied(self, block: str, source: Source, entry: Entry) -> list[ShardEntry]:
        """Copy the shards of an entry as they are, hashing what is copied."""
        copies = []
        for number, shard in enumerate(entry.shards):
            path = self._writer.store.scratch_path()
            try:
                _copy_checked(source.store, shard, path)
                renamed = replace(shard, name=shard_name(block, number, shard.sha256))
                copies.append(self._writer.put_shard(path, renamed))
            finally:
                remove(path)
        return copies

    def _encoded(self, block: str, source: Source, entry: Entry) -> list[ShardEntry]:
        """Encode an entry's records anew."""
        counts = total_counts([entry])
        earlier_kl_nats = counts.codec_kl_sum / counts.num_labels if counts.num_labels else 0.0
        shards: list[ShardEntry] = []
        if counts.num_records:
            if self._model is None:
                self._model = self._trained_model()
            shards = self._writer.write_shards(
                block, self._records(source, entry), model=self._model, earlier_kl_nats=earlier_kl_nats
            )
        return shards

    def _publish(self, block: str, source: Source, entry: Entry, shards: Sequence[ShardEntry]) -> None:
        is_copied = self._plan.is_copied(entry)
        if not is_copied:
            try:
                self._check(shards, source, entry)
            except BaseException:
                for shard in shards:
                    self._writer.store.delete(shard.name)
                raise
        self._writer.publish_shards(
            block,
            shards,
            num_prompts=entry.num_prompts - self._num_dropped_prompts(source, entry),
            num_rejected=entry.num_rejected,
            num_refused=entry.num_refused,
            recorded=recorded_of_conversion(
                entry,
                location=source.location,
                header=source.header,
                lossy_codec=None if is_copied or self._codec.is_exact else self._plan.codec,
            ),
        )
        self._num_blocks += 1
        self._num_labels += sum(shard.counts.num_labels for shard in shards)
        self._watcher.advance(
            ConversionProgress(
                num_blocks=self._num_blocks, total_blocks=self._total_blocks, num_labels=self._num_labels
            )
        )

    def _check(self, shards: Sequence[ShardEntry], source: Source, entry: Entry) -> None:
        """Decode what was written and compare it with the source, record by record.

        Raises:
            DamagedDatasetError: they differ.
        """
        store = self._writer.store
        wanted = self._records(source, entry)
        for shard in shards:
            reader = ShardReader(store, shard)
            for index in range(reader.num_row_groups):
                row_group = reader.row_group(index)
                for got in row_group:
                    record, _ = next(wanted, (None, None))
                    what = "it is one too many"
                    if record is not None:
                        what = find_difference(got, record, tolerance=row_group.tolerance(got)) or ""
                    if what:
                        raise DamagedDatasetError(
                            f"{store}/{shard.name}: record {got.record_id!r} is not what {source.location} holds: "
                            f"{what}. The block is not published; run the same command again."
                        )
        if next(wanted, None) is not None:
            raise DamagedDatasetError(f"{store}: records of {source.location}, block {entry.block}, are missing")

    def _records(self, source: Source, entry: Entry) -> Iterator[tuple[LabelRecord, NDArray[np.float64] | None]]:
        for shard in entry.shards:
            reader = ShardReader(source.store, shard)
            for index in range(reader.num_row_groups):
                row_group = reader.row_group(index)
                for record in row_group:
                    if self._plan.choice.keeps(record.record_id):
                        yield self._cut(record), row_group.whole_tolerance(record)

    def _num_dropped_prompts(self, source: Source, entry: Entry) -> int:
        """Return how many prompts of a block lose all of their records."""
        if self._plan.choice.keeps_all:
            return 0
        had: set[str] = set()
        have: set[str] = set()
        for shard in entry.shards:
            reader = ShardReader(source.store, shard)
            for index in range(reader.num_row_groups):
                ids = reader.record_ids(index)
                had.update(map(prompt_id_of, ids))
                have.update(prompt_id_of(record_id) for record_id in ids if self._plan.choice.keeps(record_id))
        return len(had) - len(have)

    def _cut(self, record: LabelRecord) -> LabelRecord:
        if self._plan.top_k is None:
            return record
        return replace(record, labels=cut_labels(record.labels, self._plan.top_k))

    def _trained_model(self) -> bytes:
        """Train on labels from all over the sources."""
        groups = [
            (source, shard, index)
            for _, source, entry in self._plan.blocks
            if not self._plan.is_copied(entry)
            for shard in entry.shards
            for index in range(len(shard.row_group_records))
        ]
        chosen = np.random.default_rng(0).permutation(len(groups))[:_TRAINING_ROW_GROUPS]
        entries = [entry for _, _, entry in self._plan.blocks if not self._plan.is_copied(entry) and entry.shards]
        expected = total_counts(entries).num_labels // max(len(entries), 1)  # of a block
        sample: list[LabelRecord] = []
        for i in chosen:
            source, shard, index = groups[i]
            row_group = ShardReader(source.store, shard).row_group(index)
            wanted = ENOUGH_LABELS // len(chosen)
            for row in np.random.default_rng(int(i)).permutation(len(row_group)):
                record = row_group.record(int(row))
                if not self._plan.choice.keeps(record.record_id):
                    continue
                record = self._cut(record)
                sample.append(record)
                wanted -= len(record.labels)
                if wanted <= 0:
                    break
        return self._writer.models.train(sample, num_labels_expected=expected)


def _copy_checked(store: ReadableStore, shard: ShardEntry, path: Path) -> None:
    digest = hashlib.sha256()
    with LocalFile(path, "wb") as file:
        for piece in read_pieces(store, shard.name, shard.num_bytes):
            digest.update(piece)
            file.write(piece)
    if digest.hexdigest() != shard.sha256 or store.size(shard.name) != shard.num_bytes:
        raise DamagedDatasetError(
            f"{store}/{shard.name}: does not have the hash in its entry. The shard is damaged: copy it again from "
            f"where it came, or label its block again."
        )


def _num_bytes(entries: Sequence[Entry]) -> int:
    return sum(shard.num_bytes for entry in entries for shard in entry.shards)
