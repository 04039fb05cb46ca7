"""Measures codecs and rivals on the same labels, in the same run, through real files."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from labelgen.storage_benchmark import rivals
from labelgen.storage_benchmark.capture import Capture, read_capture
from labelgen.storage_benchmark.coding import MODEL_LABELS, TrainedCodec, decode_group, row_groups, table_of
from labelgen.storage_benchmark.cutting import cut_labels
from labelgen.storage_benchmark.fidelity import Spread, codec_kl, draw_kl, top1_agrees, truncation_kl
from labelgen.storage_benchmark.rows import RandomAccess, StorageRow
from labelstore.codecs import Decoder
from labelstore.dataset import open_dataset
from labelstore.dataset_writer import DatasetWriter
from labelstore.header import Header
from labelstore.labels import Labels
from labelstore.record import LabelRecord
from labelstore.selection import Selection
from labelstore.stream_bytes import sum_streams

__all__ = ["SELECTIONS", "Workload", "measure_random_access", "measure_selection"]

SELECTIONS = [
    *(Selection(top_k=k) for k in (8, 16, 32, 64, 128, 256)),
    *(Selection(keep_mass=mass) for mass in (0.9, 0.95, 0.99)),
    *(Selection(draws=draws) for draws in (12, 50)),
]
_SLOW_TOP_KS = (16, 64, 128)  # at which zstd-19, at some 6 MB/s, is measured too
_TIMED_TOP_K = 64  # at which the speed of rivals is shown; elsewhere they are written once
_RANDOM_SECONDS = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Labels of one teacher and kind of text: `train` may teach a codec its tables, `test` is measured."""

    teacher: str
    dtype: str
    kind: str
    header: Header
    train: Sequence[LabelRecord]
    test: Sequence[LabelRecord]

    @classmethod
    def of(cls, capture: Capture) -> Workload:
        records = read_capture(capture)
        header = open_dataset(capture.path).header
        return cls(
            teacher=capture.teacher,
            dtype=str(header.fingerprint_fields.get("dtype", "float32")),
            kind=capture.kind,
            header=header,
            train=records["train"],
            test=records["test"],
        )

    def cut(self, selection: Selection) -> Workload:
        """Return the same labels, of a smaller selection."""
        return dataclasses.replace(
            self,
            header=self.header.with_selection(selection),
            train=[_cut_record(record, selection) for record in self.train],
            test=[_cut_record(record, selection) for record in self.test],
        )


def measure_selection(
    workload: Workload, models: Mapping[str, bytes], *, scratch_dir: Path, num_repeats: int
) -> list[StorageRow]:
    """Return a row for each codec and each rival, over the test labels of a workload that is cut already.

    `models` are the codecs', by name, learned from the train labels.
    """
    labels = [record.labels for record in workload.test]
    joined = join_labels(labels)
    selection = workload.header.selection
    common: dict[str, Any] = {
        "teacher": workload.teacher,
        "dtype": workload.dtype,
        "kind": workload.kind,
        "selection": str(selection),
        "num_labels": len(joined),
        "candidates_per_label": joined.token_ids.size / len(joined),
        "truncation_kl_nats": None if selection.draws else float(truncation_kl(joined).mean()),
        "draw_kl_nats": float(draw_kl(joined).mean()) if selection.draws else None,
    }
    rows = [
        _measure_codec(
            TrainedCodec(name, model), workload, joined, common, scratch_dir=scratch_dir, num_repeats=num_repeats
        )
        for name, model in models.items()
    ]
    num_list_repeats = num_repeats if selection.top_k == _TIMED_TOP_K else 1
    rows += [
        _measure_list_file(form, labels, joined, common, scratch_dir=scratch_dir, num_repeats=num_list_repeats)
        for form in rivals.LIST_FORMATS
        if not form.is_slow or selection.top_k in _SLOW_TOP_KS
    ]
    return rows + list(_compute_rivals(joined, common, vocab_size=workload.header.vocab_size))


def measure_random_access(
    workloads: Sequence[Workload], codec: TrainedCodec, *, scratch_dir: Path, num_labels: int
) -> RandomAccess:
    """Time single records in random order, from a dataset of at least `num_labels`: the test labels, again and again.

    The workloads are one teacher's, of one selection.
    """
    first = workloads[0]
    root = scratch_dir / "random-access"
    records = [record for workload in workloads for record in workload.test]
    num_copies = -(-num_labels // sum(len(record.labels) for record in records))
    writer = DatasetWriter(root, first.header, codec=codec)
    for copy in range(num_copies):
        copies = [dataclasses.replace(record, prompt_id=f"{copy}/{record.prompt_id}") for record in records]
        writer.publish_block(f"{copy:06}", copies, num_prompts=len(copies), num_rejected=0, recorded={})
    dataset = open_dataset(root)
    order = np.random.default_rng(0).permutation(len(dataset))
    len(dataset[int(order[0])].labels)  # warm up
    num_read_labels = num_read_records = 0
    start = time.perf_counter()
    for index in order[1:]:
        num_read_labels += len(dataset[int(index)].labels)
        num_read_records += 1
        if time.perf_counter() - start > _RANDOM_SECONDS:
            break
    seconds = time.perf_counter() - start
    total = dataset.num_labels
    shutil.rmtree(root)
    return RandomAccess(
        teacher=first.teacher,
        selection=str(first.header.selection),
        codec=codec.name,
        num_labels=total,
        labels_per_second=num_read_labels / seconds,
        records_per_second=num_read_records / seconds,
    )


def join_labels(parts: Sequence[Labels]) -> Labels:
    """Return the labels of several sequences as one."""
    arrays: dict[str, Any] = {}
    for name in Labels.__slots__:
        values = [getattr(part, name) for part in parts]
        if name != "candidate_offsets" and values[0] is not None:
            arrays[name] = np.concatenate([value.reshape(-1) for value in values])
    counts = np.concatenate([np.diff(part.candidate_offsets) for part in parts])
    return Labels(candidate_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), **arrays)


def _measure_codec(
    codec: TrainedCodec,
    workload: Workload,
    joined: Labels,
    common: dict[str, Any],
    *,
    scratch_dir: Path,
    num_repeats: int,
) -> StorageRow:
    root = scratch_dir / "dataset"
    writer = DatasetWriter(root, workload.header, codec=codec)
    num_records = len(workload.test)
    writer.publish_block("000000", workload.test, num_prompts=num_records, num_rejected=0, recorded={})
    decoded = join_labels([record.labels for record in open_dataset(root)])
    streams = sum_streams(shard.stream_bytes for entry in writer.entries.values() for shard in entry.shards)
    shutil.rmtree(root)
    per_label = {
        stream: num_bytes / max(len(joined), MODEL_LABELS if stream == "model" else 0)
        for stream, num_bytes in streams.items()
    }
    groups = list(row_groups(workload.test))
    encoder, decoder = codec.encoder(codec.model), codec.decoder(codec.model)
    encode_seconds = _median_seconds(lambda: [encoder.encode(group) for group in groups], num_repeats)
    tables = [table_of(encoder, codec.fields, group) for group in groups]
    decode_seconds = _median_seconds(lambda: _decode_all(decoder, tables), num_repeats)
    return StorageRow(
        **common,
        method=codec.name,
        is_codec=True,
        bytes_per_label=sum(size for stream, size in per_label.items() if stream != "hard"),
        bytes_per_label_by_stream=per_label,
        codec_kl_nats=Spread.of(codec_kl(joined, decoded)),
        top1_agreement=float(top1_agrees(joined, decoded).mean()),
        encode_labels_per_second=len(joined) / encode_seconds,
        decode_labels_per_second=len(joined) / decode_seconds,
    )


def _measure_list_file(
    form: rivals.ListFormat,
    labels: Sequence[Labels],
    joined: Labels,
    common: dict[str, Any],
    *,
    scratch_dir: Path,
    num_repeats: int,
) -> StorageRow:
    path = scratch_dir / "lists.parquet"
    encode_seconds = _median_seconds(lambda: form.write(labels, path), num_repeats)
    decode_seconds = _median_seconds(lambda: form.read(path), num_repeats)
    num_bytes = path.stat().st_size
    _, logprobs = form.read(path)
    path.unlink()
    decoded = dataclasses.replace(joined, logprobs=logprobs.astype(np.float32).reshape(joined.logprobs.shape))
    return StorageRow(
        **common,
        method=form.name,
        is_codec=False,
        bytes_per_label=num_bytes / len(joined),
        bytes_per_label_by_stream={},
        codec_kl_nats=Spread.of(codec_kl(joined, decoded)),
        top1_agreement=float(top1_agrees(joined, decoded).mean()),
        encode_labels_per_second=len(joined) / encode_seconds,
        decode_labels_per_second=len(joined) / decode_seconds,
    )


def _compute_rivals(joined: Labels, common: dict[str, Any], *, vocab_size: int) -> Iterator[StorageRow]:
    sizes: list[tuple[str, float, Labels | None]] = [
        (
            "bit-packed ids + float16",
            rivals.bit_packed_bytes(joined, vocab_size=vocab_size),
            rivals.rounded_to_float16(joined),
        ),
        ("order-0 entropy bound, 1/8 nat", rivals.entropy_bound_bytes(joined), rivals.on_grid(joined)),
        ("full distribution, float16", rivals.full_float16_bytes(joined, vocab_size=vocab_size), None),
    ]
    for method, num_bytes, decoded in sizes:
        yield StorageRow(
            **common,
            method=method,
            is_codec=False,
            bytes_per_label=num_bytes / len(joined),
            bytes_per_label_by_stream={},
            codec_kl_nats=None if decoded is None else Spread.of(codec_kl(joined, decoded)),
            top1_agreement=None if decoded is None else float(top1_agrees(joined, decoded).mean()),
        )


def _cut_record(record: LabelRecord, selection: Selection) -> LabelRecord:
    seed = int.from_bytes(hashlib.sha256(record.record_id.encode()).digest()[:8], "little")
    return dataclasses.replace(record, labels=cut_labels(record.labels, selection, seed=seed))


def _decode_all(decoder: Decoder, tables: Sequence[pa.Table]) -> None:
    for table in tables:
        decode_group(decoder, table)


def _median_seconds(run: Callable[[], object], num_repeats: int) -> float:
    seconds = []
    for _ in itertools.repeat(None, num_repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
