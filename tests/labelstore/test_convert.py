"""Conversions: what must stay stays, what may move moves within its bound, and a folder never holds half of two."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import labelstore
from labelstore.codecs import CODECS
from labelstore.codecs.open import OpenCodec
from labelstore.convert import ConversionProgress, ConversionSummary, convert_datasets
from labelstore.dataset_writer import DatasetWriter
from labelstore.entry import total_counts
from labelstore.sealed_json import seal
from labelstore.selection import Selection
from make_records import make_dataset, make_header, make_record

SELECTIONS = {
    "top-k": Selection(top_k=8),
    "entropy": Selection(top_k=3, entropy=True),
    "mass": Selection(keep_mass=0.7, max_k=12),
    "draws": Selection(draws=6),
    "head and draws": Selection(top_k=4, draws=5),
}


class Watcher:
    """Keeps what it is told, and may stop the conversion after some blocks."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self._stop_after = stop_after

    def note(self, message: str, /) -> None:
        self.notes.append(message)

    def warn(self, message: str, /) -> None:
        self.warnings.append(message)

    def advance(self, progress: ConversionProgress, /) -> None:
        if progress.num_blocks == self._stop_after:
            raise KeyboardInterrupt


def convert(
    sources: Path | Sequence[Path | str], output: Path, *, watcher: Watcher | None = None, **options: Any
) -> ConversionSummary:
    locations = [str(source) for source in ([sources] if isinstance(sources, Path) else sources)]
    return convert_datasets(locations, output, labelgen_version="0.1.0", watcher=watcher or Watcher(), **options)


def by_id(labels: labelstore.Labels, name: str) -> list[Any]:
    order = np.lexsort((labels.token_ids.reshape(-1), labels.candidate_positions()))
    return list(getattr(labels, name).reshape(-1)[order].tolist())


def assert_same_labels(output: Path, source: Path) -> None:
    """Plain and slow: all that no codec may change is equal."""
    new, old = labelstore.open_dataset(output), labelstore.open_dataset(source)
    assert len(new) == len(old)
    for got, wanted in zip(new, old, strict=True):
        for name in ("record_id", "messages", "text", "finish_reason", "kept", "prompt", "span_kinds"):
            assert getattr(got, name) == getattr(wanted, name), name
        for name in ("input_ids", "spans", "target_ranks", "candidate_offsets"):
            np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
        assert by_id(got.labels, "token_ids") == by_id(wanted.labels, "token_ids")
        if wanted.draw_counts is not None:
            assert by_id(got.labels, "draw_counts") == by_id(wanted.labels, "draw_counts")


@pytest.mark.parametrize("source_codec", list(CODECS))
@pytest.mark.parametrize("kind", list(SELECTIONS))
def test_every_codec_becomes_every_other_one(tmp_path: Path, source_codec: str, kind: str) -> None:
    source = make_dataset(tmp_path / "source", codec=source_codec, selection=SELECTIONS[kind])
    for codec in CODECS:
        output, watcher = tmp_path / codec, Watcher()
        summary = convert(source, output, codec=codec, watcher=watcher)
        assert labelstore.verify_dataset(output).findings == []
        assert_same_labels(output, source)
        assert summary.num_copied_blocks == (2 if codec == source_codec else 0)
        is_twice_lossy = codec != source_codec and not CODECS[codec].is_exact and not CODECS[source_codec].is_exact
        assert len(watcher.warnings) == is_twice_lossy == len(summary.warnings)
        if CODECS[codec].is_exact:  # the values are those of the source, whatever they have been through
            for got, wanted in zip(labelstore.open_dataset(output), labelstore.open_dataset(source), strict=True):
                assert by_id(got.labels, "logprobs") == by_id(wanted.labels, "logprobs")
                np.testing.assert_array_equal(got.tail_mass, wanted.tail_mass)
            old = labelstore.open_dataset(source)
            assert summary.counts.codec_kl_sum == pytest.approx(total_counts(old.entries).codec_kl_sum)


def test_the_kl_in_an_entry_is_that_of_what_is_decoded(tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "source", selection=Selection(keep_mass=0.8, max_k=9))
    for codec in ("standard", "small"):
        summary = convert(source, tmp_path / codec, codec=codec)
        total = 0.0
        records = zip(labelstore.open_dataset(source), labelstore.open_dataset(tmp_path / codec), strict=True)
        for teacher, decoded in records:
            p = np.exp(np.array(by_id(teacher.labels, "logprobs"), dtype=np.float64))
            q = np.exp(np.array(by_id(decoded.labels, "logprobs"), dtype=np.float64))
            t, s = teacher.tail_mass.astype(np.float64), decoded.tail_mass.astype(np.float64)
            total += float((p * np.log(p / q)).sum() + (t * np.log(t / s)).sum())
        assert summary.counts.codec_kl_sum == pytest.approx(total, rel=0.01)
        assert 0 < total / summary.counts.num_labels < 5e-3


def test_a_cut_is_what_a_smaller_top_k_would_have_given(tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "source", selection=Selection(top_k=8, entropy=True), codec="exact")
    wanted = make_dataset(tmp_path / "wanted", selection=Selection(top_k=3, entropy=True))
    convert(source, tmp_path / "cut", codec="open", top_k=3)
    got, expected = labelstore.open_dataset(tmp_path / "cut"), labelstore.open_dataset(wanted)
    assert got.header.selection == Selection(top_k=3, entropy=True)
    assert got.header.fingerprint == expected.header.fingerprint
    for left, right in zip(got, expected, strict=True):
        for name in ("token_ids", "logprobs", "tail_mass", "target_logprobs", "target_ranks", "entropy"):
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    (step,) = got.entries[0].recorded["converted_from"]
    assert step["selection"] == {"top_k": 8, "entropy": True}
    assert step["fingerprint"] == labelstore.open_dataset(source).header.fingerprint != got.header.fingerprint
    assert labelstore.verify_dataset(tmp_path / "cut").is_sound


def test_a_cut_of_a_set_by_mass_bounds_its_size(tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "source", selection=Selection(keep_mass=0.8, max_k=12))
    wanted = make_dataset(tmp_path / "wanted", selection=Selection(keep_mass=0.8, max_k=4))
    convert(source, tmp_path / "cut", top_k=4)
    got, expected = labelstore.open_dataset(tmp_path / "cut"), labelstore.open_dataset(wanted)
    assert got.header.fingerprint == expected.header.fingerprint
    for left, right in zip(got, expected, strict=True):
        np.testing.assert_array_equal(left.token_ids, right.token_ids)
        np.testing.assert_array_equal(left.tail_mass, right.tail_mass)


def test_a_cut_of_lossy_labels_is_lossy_once_more(tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "source", codec="standard")
    watcher = Watcher()
    summary = convert(source, tmp_path / "cut", top_k=4, watcher=watcher)
    assert summary.codec == "standard" and summary.num_copied_blocks == 0
    assert "have been through the codec standard and are rounded once more by standard" in watcher.warnings[0]
    assert labelstore.verify_dataset(tmp_path / "cut").is_sound
    dataset = labelstore.open_dataset(tmp_path / "cut")
    assert dataset.entries[0].recorded["lossy_codecs"] == ["standard", "standard"]
    earlier = total_counts(labelstore.open_dataset(source).entries).codec_kl_sum
    assert summary.counts.codec_kl_sum > earlier  # the losses of both


@pytest.mark.parametrize(
    ("selection", "top_k", "message"),
    [
        (Selection(top_k=8), 8, "must be smaller than the 8 candidates"),
        (Selection(top_k=8), 0, "--top-k must be at least 1, got 0"),
        (Selection(draws=6), 3, "random draws have no order"),
        (Selection(top_k=4, draws=5), 3, "random draws have no order"),
        (Selection(keep_mass=0.7, min_k=2, max_k=12), 1, "must be below 12 and at least 2"),
        (Selection(keep_mass=0.7, min_k=2, max_k=12), 12, "must be below 12 and at least 2"),
    ],
)
def test_a_cut_that_means_nothing_is_refused(tmp_path: Path, selection: Selection, top_k: int, message: str) -> None:
    source = make_dataset(tmp_path / "source", selection=selection)
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "out", top_k=top_k)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("codec", ["open", "standard"])
def test_a_conversion_that_is_stopped_goes_on(tmp_path: Path, codec: str) -> None:
    source = make_dataset(tmp_path / "source", num_blocks=4)
    convert(source, tmp_path / "whole", codec=codec)
    for stop_after in range(1, 4):
        output, watcher = tmp_path / f"stopped-{stop_after}", Watcher()
        with pytest.raises(KeyboardInterrupt):
            convert(source, output, codec=codec, watcher=Watcher(stop_after=stop_after))
        assert len(labelstore.open_dataset(output)) == 3 * stop_after
        summary = convert(source, output, codec=codec, watcher=watcher)
        assert watcher.notes == [f"{stop_after} blocks are converted already; going on with {4 - stop_after}"]
        assert (summary.num_blocks, summary.num_new_blocks) == (4, 4 - stop_after)
        names = [sorted(path.name for path in (root / "data").iterdir()) for root in (output, tmp_path / "whole")]
        assert names[0] == names[1]  # the names hold hashes: the same bytes as without a stop
    watcher = Watcher()
    assert convert(source, tmp_path / "whole", codec=codec, watcher=watcher).num_new_blocks == 0
    assert watcher.notes == ["everything is converted already; nothing to do"]


def test_a_conversion_killed_inside_a_block_leaves_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_dataset(tmp_path / "source", num_blocks=3)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("labelstore.convert._Conversion._check", killed)
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "out", codec="standard")
    assert len(labelstore.open_dataset(tmp_path / "out")) == 0
    convert(source, tmp_path / "out", codec="standard")
    assert labelstore.verify_dataset(tmp_path / "out").is_sound
    assert_same_labels(tmp_path / "out", source)


def test_another_conversion_into_the_folder_is_refused_by_name(tmp_path: Path) -> None:
    source, other = make_dataset(tmp_path / "source"), make_dataset(tmp_path / "other", first_record=50)
    output = tmp_path / "out"
    convert(source, output, codec="exact")
    before = sorted(path.read_bytes() for path in output.rglob("*") if path.is_file())
    with pytest.raises(labelstore.NotADatasetError, match="--codec was exact, is standard"):
        convert(source, output, codec="standard")
    with pytest.raises(labelstore.NotADatasetError, match=r"--top-k was None, is 4"):
        convert(source, output, codec="exact", top_k=4)
    with pytest.raises(labelstore.NotADatasetError, match=r"the sources were .*source, are .*other"):
        convert(other, output, codec="exact")
    with pytest.raises(labelstore.NotADatasetError, match=r"the sources were .*source, are .*source, .*other"):
        convert([source, other], output, codec="exact")
    with pytest.raises(labelstore.NotADatasetError, match="was made by a teacher's job"):
        convert(source, other, codec="exact")
    with pytest.raises(labelstore.NotADatasetError, match="was made by 'labelgen convert'"):
        DatasetWriter(output, make_header(), codec=CODECS["exact"])
    with pytest.raises(labelstore.NotADatasetError, match="is source and output at once"):
        convert(output, output, codec="exact")
    assert sorted(path.read_bytes() for path in output.rglob("*") if path.is_file()) == before
    source.rename(tmp_path / "moved")  # the same content elsewhere is the same source
    assert convert(tmp_path / "moved", output, codec="exact").num_new_blocks == 0


def test_a_source_that_has_grown_is_another(tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "source")
    convert(source, tmp_path / "out", codec="exact")
    writer = DatasetWriter(source, make_header(), codec=CODECS["open"])
    writer.publish_block("000002", [make_record(77)], num_prompts=1, num_rejected=0, recorded={})
    with pytest.raises(labelstore.NotADatasetError, match=r"is not finished.*'labelgen finish"):
        convert(source, tmp_path / "out", codec="exact")
    writer.finish()
    with pytest.raises(labelstore.NotADatasetError, match="has other blocks than when the conversion began"):
        convert(source, tmp_path / "out", codec="exact")


def test_datasets_are_joined_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [make_dataset(tmp_path / f"{i}", codec="standard", first_record=20 * i) for i in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr("labelstore.shard_reader.ShardReader.row_group", None)
        summary = convert(sources, tmp_path / "out")
    assert summary.num_copied_blocks == summary.num_blocks == 6
    joined = labelstore.open_dataset(tmp_path / "out")
    assert [record.prompt_id for record in joined] == [f"prompt-{20 * i + j}" for i in range(3) for j in range(6)]
    assert [entry.block for entry in joined.entries] == [f"{i:06d}" for i in range(6)]
    for new, old in zip(joined.entries, [e for s in sources for e in labelstore.open_dataset(s).entries], strict=True):
        assert [shard.sha256 for shard in new.shards] == [shard.sha256 for shard in old.shards]
        assert new.recorded["engine"] == "fake" and new.recorded["lossy_codecs"] == ["standard"]
    assert labelstore.verify_dataset(tmp_path / "out").is_sound


def test_a_join_encodes_only_what_has_another_codec(tmp_path: Path) -> None:
    sources = [
        make_dataset(tmp_path / "open"),
        make_dataset(tmp_path / "exact", codec="exact", first_record=20),
    ]
    with pytest.raises(ValueError, match=r"hold the codecs exact, open: say with --codec"):
        convert(sources, tmp_path / "out")
    summary = convert(sources, tmp_path / "out", codec="exact")
    assert (summary.num_blocks, summary.num_copied_blocks) == (4, 2)
    assert labelstore.verify_dataset(tmp_path / "out").is_sound


def test_a_record_in_two_sources_is_named_with_both_places(tmp_path: Path) -> None:
    sources = [make_dataset(tmp_path / "a"), make_dataset(tmp_path / "b", first_record=5)]
    with pytest.raises(ValueError, match=r"record 'prompt-5#0' is in .*a/data/000001-0-.* and in .*b/data/000000-0-"):
        convert(sources, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_hashes_that_meet_are_no_double_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelstore.conversion_plan._hashes", lambda ids: np.zeros(len(ids), np.uint64))
    sources = [make_dataset(tmp_path / "a"), make_dataset(tmp_path / "b", first_record=50)]
    assert convert(sources, tmp_path / "out").num_blocks == 4


def test_sources_of_other_fingerprints_are_refused_by_field(tmp_path: Path) -> None:
    sources = [make_dataset(tmp_path / "a", selection=Selection(top_k=8)), make_dataset(tmp_path / "b")]
    writer = DatasetWriter(tmp_path / "c", make_header(fingerprint_fields={"weights": "xyz"}), codec=CODECS["open"])
    writer.publish_block("000000", [make_record(9)], num_prompts=1, num_rejected=0, recorded={})
    writer.finish()
    with pytest.raises(labelstore.FingerprintError, match=r"weights: abc there, xyz now"):
        convert([sources[1], tmp_path / "c"], tmp_path / "out")
    longer = make_dataset(tmp_path / "d", selection=Selection(top_k=9), first_record=50)
    with pytest.raises(labelstore.FingerprintError, match="selection"):
        convert([sources[0], longer], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # Cut to the same size they are labels of one fingerprint.
    assert convert([sources[0], longer], tmp_path / "out", top_k=4).num_blocks == 4
    assert labelstore.verify_dataset(tmp_path / "out").is_sound


@pytest.mark.parametrize("codec", ["open", "standard"])
def test_a_damaged_source_is_named_and_nothing_wrong_is_published(tmp_path: Path, codec: str) -> None:
    source = make_dataset(tmp_path / "source", num_blocks=3)
    path = sorted((source / "data").iterdir())[1]
    sound = path.read_bytes()
    for place in np.random.default_rng(0).permutation(len(sound))[:12].tolist():
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        output = tmp_path / f"{place}"
        with pytest.raises(labelstore.DamagedDatasetError, match=path.name):
            convert(source, output, codec=codec)
        report = labelstore.verify_dataset(output)
        assert report.is_sound and report.num_records in (0, 3)  # 0: training met the damage
    path.write_bytes(sound)
    convert(source, output, codec=codec)
    assert_same_labels(output, source)


def test_what_does_not_decode_to_its_source_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = OpenCodec.encode

    def wrong(records: Sequence[labelstore.LabelRecord]) -> Any:
        columns = encode(records)
        return [*columns[:1], encode(records[::-1])[1], *columns[2:]]  # the ranks of another record

    source = make_dataset(tmp_path / "source", codec="exact", num_blocks=1)
    monkeypatch.setattr(OpenCodec, "encode", staticmethod(wrong))
    with pytest.raises(labelstore.DamagedDatasetError, match=r"is not what .*source holds|do not decode|numbers of"):
        convert(source, tmp_path / "out", codec="open")
    assert len(labelstore.open_dataset(tmp_path / "out")) == 0
    assert not list((tmp_path / "out/data").iterdir())


def test_the_chain_of_datasets_is_kept_oldest_first(tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "1")
    convert(source, tmp_path / "2", codec="standard")
    convert(tmp_path / "2", tmp_path / "3", codec="small")
    convert(tmp_path / "3", tmp_path / "4", codec="open", top_k=2)
    (entry, _) = labelstore.open_dataset(tmp_path / "4").entries
    steps = entry.recorded["converted_from"]
    assert [Path(step["location"]).name for step in steps] == ["1", "2", "3"]
    assert [step["codec"] for step in steps] == ["open", "standard", "small"]
    assert {step["labelgen_version"] for step in steps} == {"0.1.0"}
    assert entry.recorded["lossy_codecs"] == ["standard", "small"]
    assert entry.shards[0].earlier_tolerance > 0
    kl = [total_counts(labelstore.open_dataset(tmp_path / name).entries).codec_kl_sum for name in "1234"]
    assert kl[0] == 0 and kl[1] < kl[2] == pytest.approx(kl[3])


def test_a_source_may_be_a_url(tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "source")
    memory = fsspec.filesystem("memory")
    memory.put(str(source), "/converted/source", recursive=True)
    try:
        convert(["memory://converted/source"], tmp_path / "out", codec="exact")
        convert(["memory://converted/source"], tmp_path / "copy")
    finally:
        memory.rm("/converted", recursive=True)
    assert_same_labels(tmp_path / "out", source)
    assert_same_labels(tmp_path / "copy", source)


def test_empty_records_and_blocks_stay(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path / "source", make_header(), codec=CODECS["open"])
    empty = make_record(3, num_labels=0)
    for block, records in enumerate([[empty], [make_record(1), make_record(2, num_labels=0)], []]):
        writer.publish_block(f"{block:06d}", records, num_prompts=2, num_rejected=2 - len(records), recorded={})
    writer.finish()
    for codec in CODECS:
        convert(tmp_path / "source", tmp_path / codec, codec=codec)
        assert_same_labels(tmp_path / codec, tmp_path / "source")
        entries = labelstore.open_dataset(tmp_path / codec).entries
        assert [(entry.num_prompts, entry.num_rejected) for entry in entries] == [(2, 1), (2, 0), (2, 2)]
        assert labelstore.verify_dataset(tmp_path / codec).is_sound


@pytest.mark.parametrize("codec", list(CODECS))
def test_bytes_by_stream_add_up_and_are_verified(tmp_path: Path, codec: str) -> None:
    source = make_dataset(tmp_path, codec=codec, num_blocks=1)
    (entry,) = labelstore.open_dataset(source).entries
    (shard,) = entry.shards
    assert sum(shard.stream_bytes.values()) == shard.num_bytes
    assert all(size > 0 for name, size in shard.stream_bytes.items() if name != "model")
    assert shard.stream_bytes["model"] == shard.model_bytes
    path = source / entry.name
    content = json.loads(path.read_bytes())
    del content["sha256"]
    content["shards"][0]["stream_bytes"]["hard"] -= 1
    path.write_bytes(seal(content))
    messages = "\n".join(str(finding) for finding in labelstore.verify_dataset(source).findings)
    assert f"hard has {shard.stream_bytes['hard']} bytes, its entry says {shard.stream_bytes['hard'] - 1}" in messages
    assert f"splits {shard.num_bytes - 1} bytes by stream, but says {shard.num_bytes}" in messages
