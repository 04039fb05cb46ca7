"""From a few labelled records to what a whole job will take: really encoded, and carried on to the job's size.

Three things make a small sample larger than its share of a job, and each is measured on the sample itself:
what a codec has not learned yet (its model is trained on one half, and the other is encoded with it), what
each shard has once (the same records are encoded as one shard and as several), and the model that each shard holds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labelgen.storage_benchmark.coding import TrainedCodec
from labelgen.storage_benchmark.cutting import cut_labels
from labelstore.codecs import codec_named
from labelstore.dataset_writer import MAX_SHARD_BYTES, DatasetWriter
from labelstore.entry import LabelCounts, total_counts
from labelstore.header import Header
from labelstore.model_source import ENOUGH_LABELS, expected_labels
from labelstore.record import LabelRecord
from labelstore.selection import Selection
from labelstore.stream_bytes import sum_streams

__all__ = ["MIN_LABELS", "MIN_RECORDS", "JobSize", "Projection", "project_sizes"]

MIN_RECORDS = 16
MIN_LABELS = 400
_NUM_GROUPS = 8  # of the records that are encoded, whose differences give the interval
# What ids take, and a codec's model, with the labels n that it learned from: measured at 1,300 to 60,000 labels of
# two teachers, vocabularies 49,152 and 262,144 (benchmarks/LOG.md). Labels that it did not learn from take
# 1 + c * n^-0.3, where c falls with the candidates; those that it did n^-0.03; the model n^0.7.
_UNSEEN_POWER, _SEEN_POWER, _MODEL_POWER = -0.3, -0.03, 0.7
_UNSEEN_AT = ((16, 64, 128), (13.2, 9.9, 9.7))  # candidates a label, c
_STUDENT = 2.36  # of eight groups: 95% of the means lie within so many standard errors
_LEARNS = "standard"  # all packed codecs store ids alike: what one learns, the others do


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSize:
    """How much is to be labelled."""

    num_labels: int
    labels_per_block: int  # of the job's --block-size prompts, or all where the job is one block

    @property
    def num_blocks(self) -> int:
        return max(1, math.ceil(self.num_labels / self.labels_per_block))


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """What one selection and codec will take and keep."""

    selection: Selection
    codec: str
    candidates_per_label: float
    kept_mass: float  # mean over labels
    truncation_kl_nats: float
    codec_kl_nats: float
    bytes_per_label: float  # of the whole job, everything included
    low: float  # bytes a label; the sample supports nothing narrower
    high: float
    num_bytes: float  # of the whole job
    num_shards: int


def project_sizes(
    records: Sequence[LabelRecord],
    header: Header,
    *,
    selections: Sequence[Selection],
    codecs: Sequence[str],
    job: JobSize,
) -> Iterator[Projection]:
    """Yield a projection for each selection and codec; `records` have the labels of a wider selection, exactly.

    Raises:
        ValueError: there are too few records to carry on from, or their labels are too narrow for a selection.
        ImportError: packed codecs need numba.
    """
    num_labels = _num_labels(records)
    if len(records) < MIN_RECORDS or num_labels < MIN_LABELS:
        raise ValueError(
            f"{len(records)} records with {num_labels:,} labels are too few to plan from; "
            f"probe at least {MIN_RECORDS} prompts that give {MIN_LABELS} labels"
        )
    for selection in selections:
        sample = _Sample.of(records, header, selection)
        learning = _measure_learning(sample, job) if any(codec != "open" for codec in codecs) else None
        for codec in codecs:
            yield _project(sample, codec, job, learning=None if codec == "open" else learning)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """Records cut to a selection: one half may teach a codec, the other is encoded."""

    header: Header
    selection: Selection
    train: Sequence[LabelRecord]
    test: Sequence[LabelRecord]

    @property
    def candidates_per_label(self) -> float:
        return sum(record.labels.token_ids.size for record in self.test) / _num_labels(self.test)

    @classmethod
    def of(cls, records: Sequence[LabelRecord], header: Header, selection: Selection) -> _Sample:
        shuffled = sorted(records, key=lambda record: _digest(record.record_id))
        cut = [
            dataclasses.replace(record, labels=cut_labels(record.labels, selection, seed=_digest(record.record_id)))
            for record in shuffled
        ]
        return cls(header=header.with_selection(selection), selection=selection, train=cut[::2], test=cut[1::2])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learning:
    """What more labels teach: the job's ids are smaller than the sample's by `saved`, its model larger by `growth`."""

    model: bytes  # learned from the train half
    encoded: _Encoded  # the test half, with it
    saved_bytes_per_label: float
    growth: float  # the job's model over the train half's


@dataclass(frozen=True, slots=True, kw_only=True)
class _Encoded:
    """Some records on disk."""

    counts: LabelCounts
    streams: Mapping[str, int]

    def per_label(self, *names: str) -> float:
        return sum(self.streams[name] for name in names) / self.counts.num_labels


def _measure_learning(sample: _Sample, job: JobSize) -> _Learning:
    """Train on a half and on all of the sample, and carry on to what the job's first block teaches."""
    everything = [*sample.train, *sample.test]
    num_half, num_all = _num_labels(sample.train), _num_labels(everything)
    num_job = min(ENOUGH_LABELS, job.labels_per_block, job.num_labels)
    model = _train(sample, _LEARNS, sample.train, job)
    (encoded,) = _encode(sample, _LEARNS, model, [sample.test])
    unseen_half = encoded.per_label("ids")
    seen_all = _encode(sample, _LEARNS, _train(sample, _LEARNS, everything, job), [everything])[0].per_label("ids")
    factor = float(np.interp(sample.candidates_per_label, *_UNSEEN_AT))
    unseen = unseen_half * (1 + factor * num_job**_UNSEEN_POWER) / (1 + factor * num_half**_UNSEEN_POWER)
    seen = min(unseen, seen_all * (num_job / num_all) ** _SEEN_POWER)
    share_seen = num_job / job.num_labels
    return _Learning(
        model=model,
        encoded=encoded,
        saved_bytes_per_label=unseen_half - (share_seen * seen + (1 - share_seen) * unseen),
        growth=(num_job / num_half) ** _MODEL_POWER,
    )


def _project(sample: _Sample, codec: str, job: JobSize, *, learning: _Learning | None) -> Projection:
    if learning is None:
        model, saved, growth = b"", 0.0, 1.0
    else:
        model = learning.model if codec == _LEARNS else _train(sample, codec, sample.train, job)
        saved, growth = learning.saved_bytes_per_label, learning.growth
    if learning is not None and codec == _LEARNS:
        whole = learning.encoded
    else:
        (whole,) = _encode(sample, codec, model, [sample.test])
    groups = _encode(sample, codec, model, [sample.test[i::_NUM_GROUPS] for i in range(_NUM_GROUPS)])
    # The same records in eight shards and in one: the difference is what seven shards have once.
    once = ("hard", "target_and_tail", "framing")
    in_groups = sum(group.per_label(*once) * group.counts.num_labels for group in groups)
    fixed = max(0.0, (in_groups - whole.per_label(*once) * whole.counts.num_labels) / (_NUM_GROUPS - 1))
    per_label = whole.per_label("ids", "values", *once) - fixed / whole.counts.num_labels - saved
    model_bytes = whole.streams["model"] * growth
    shards_per_block = max(1, math.ceil(per_label * job.num_labels / job.num_blocks / MAX_SHARD_BYTES))
    num_shards = job.num_blocks * shards_per_block
    num_bytes = per_label * job.num_labels + num_shards * (fixed + model_bytes)
    bytes_per_label = num_bytes / job.num_labels
    # Groups differ as texts do; and what is carried on beyond the sample is known to a quarter.
    spread = np.array([group.per_label("ids", "values", *once) - fixed / group.counts.num_labels for group in groups])
    error = _STUDENT * float(spread.std(ddof=1)) / math.sqrt(_NUM_GROUPS) + abs(saved) / 4
    counts = whole.counts
    return Projection(
        selection=sample.selection,
        codec=codec,
        candidates_per_label=sample.candidates_per_label,
        kept_mass=counts.kept_mass_sum / counts.num_labels,
        truncation_kl_nats=counts.truncation_kl_sum / counts.num_labels,
        codec_kl_nats=counts.codec_kl_sum / counts.num_labels,
        bytes_per_label=bytes_per_label,
        low=max(0.0, bytes_per_label - error),
        high=bytes_per_label + error,
        num_bytes=num_bytes,
        num_shards=num_shards,
    )


def _train(sample: _Sample, codec: str, records: Sequence[LabelRecord], job: JobSize) -> bytes:
    return codec_named(codec).train(
        records,
        vocab_size=sample.header.vocab_size,
        num_labels_expected=expected_labels(job.labels_per_block),
        is_constant_size=sample.selection.is_constant_size,
    )


def _encode(sample: _Sample, codec: str, model: bytes, groups: Sequence[Sequence[LabelRecord]]) -> list[_Encoded]:
    """Write each group as a block of a real dataset, and return what they take."""
    with tempfile.TemporaryDirectory(prefix="labelgen-plan-") as folder:
        writer = DatasetWriter(Path(folder) / "dataset", sample.header, codec=TrainedCodec(codec, model))
        for number, records in enumerate(groups):
            writer.publish_block(
                f"{number:06d}",
                records,
                num_prompts=len(records),
                num_rejected=0,
                recorded={},
                are_checked=True,  # decoded labels are not as exact as a teacher's
            )
        return [
            _Encoded(counts=total_counts([entry]), streams=sum_streams(shard.stream_bytes for shard in entry.shards))
            for _, entry in sorted(writer.entries.items())
        ]


def _num_labels(records: Sequence[LabelRecord]) -> int:
    return sum(len(record.labels) for record in records)


def _digest(record_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8).digest(), "little")
