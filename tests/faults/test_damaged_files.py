"""Files of a dataset are damaged in every way: each damage is found, or provably harmless; no label is read wrongly.

Harmless means: all labels read as they were, and the job that made them finds nothing to do.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import labelgen
import labelstore
from failing_os import failing_writes
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.teacher import Answer, EngineError, Refusal, Request
from labelstore.errors import StorageError
from labelstore.sealed_json import seal
from labelstore.selection import Selection
from rejected_rows import rejected_rows

NUM_FLIPS = 1000 * int(os.environ.get("LABELGEN_FAULTS", "1"))
SELECTION = Selection(top_k=4)

pytestmark = pytest.mark.timeout(3600)


def run(root: Path, *, first: int = 0, weights: int = 0, teacher: FakeTeacher | None = None) -> None:
    source = root.parent / f"prompts-{first}.jsonl"
    rows: list[dict[str, Any]] = [{"id": f"p{i}", "prompt": f"question {i}"} for i in range(first, first + 5)]
    text = "".join(json.dumps(row) + "\n" for row in [*rows, {"id": "bad"}])  # the last one is rejected
    if not source.exists():
        source.write_text(text)
    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(source),),
        output_dir=root,
        teacher="fake",
        selection=SELECTION,
        codec="open",
        block_size=3,
        max_tokens=4,
    )
    whole = FakeTeacher(selection=SELECTION, vocab_size=300, max_model_len=64, seed=weights)
    labelgen.run(spec, teacher=teacher or whole)


def contents(root: Path) -> list[Any]:
    return [
        (record.record_id, record.input_ids.tolist(), record.token_ids.tolist(), record.logprobs.tolist(), record.text)
        for record in labelstore.open_dataset(root)
    ]


class Sample:
    """A finished dataset with a file of every kind, and what is in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._touched: set[Path] = set()
        self._has_run = False  # so that any file may have changed
        run(root)
        (root / ".labelgen/entries/000001.0.withdrawn").write_bytes(b"")  # so that a block has two generations
        shutil.move(next((root / "data").glob("000001*")), root / ".labelgen/orphans-0")
        run(root)
        (root / ".labelgen/orphans-0").unlink()
        self.wanted = contents(root)
        assert len(self.wanted) == 5 and labelstore.verify_dataset(root).findings == []
        self.files = {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}

    def write(self, name: Path, content: bytes | None) -> None:
        """Put other bytes into a file, or delete it."""
        if content is None:
            (self.root / name).unlink()
        else:
            (self.root / name).write_bytes(content)
        self._touched.add(name)

    def restore(self) -> None:
        for path in self.root.rglob("*") if self._has_run else [self.root / name for name in self._touched]:
            if path.is_file() and path.relative_to(self.root) not in self.files:
                path.unlink()
        for name in self.files if self._has_run else self._touched & set(self.files):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_bytes(self.files[name])
        self._touched, self._has_run = set(), False

    def run(self) -> None:
        self._has_run = True
        with pytest.MonkeyPatch.context() as patch, failing_writes(patch):  # none fails; nothing waits for the disk
            run(self.root)

    def check(self, what: str) -> bool:
        """See that the damage at hand is found or harmless, and leads to no wrong label; return whether it is found."""
        try:
            is_found = not labelstore.verify_dataset(self.root).is_sound
        except StorageError:
            is_found = True
        try:
            got = contents(self.root)
        except StorageError:
            assert is_found, what
        else:
            # What is gone may be missing; what is there is right.
            assert got == self.wanted or (is_found and all(record in self.wanted for record in got)), what
        if not is_found:
            before = {path for path in self.root.rglob("*") if path.is_file()}
            self.run()
            assert contents(self.root) == self.wanted, what
            new = {path for path in self.root.rglob("*") if path.is_file()} - before
            assert not [path for path in new if path.parent.name in ("data", "entries", "prompts")], what
        return is_found


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return Sample(tmp_path / "out")


KINDS = {
    "header.json",
    "manifest.json",
    "rescored.json",
    "sources.json",
    "README.md",
    "000000.0.json",
    "000001.0.withdrawn",
    "000001.1.json",
    "000000.parquet",
}


# For people, or taken back: no label depends on what is in them.
UNREAD_FOLDERS = {"jobs", "rejected"}  # signs of life of jobs, and what gave no label
UNREAD = {"README.md", "job.yaml", "000001.0.json", "000001.0.withdrawn"}


def is_unread(*names: Path) -> bool:
    """Whether no label depends on some files."""
    return all(name.name in UNREAD or name.parent.name in UNREAD_FOLDERS for name in names)


def test_flipped_bytes_are_found_or_harmless(sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    assert {name.name for name in sample.files} >= KINDS
    rng = np.random.default_rng(int(os.environ.get("LABELGEN_FAULTS_SEED", "0")))
    names = [name for name, content in sample.files.items() if content]
    found = {True: 0, False: 0}
    for _ in range(NUM_FLIPS):
        name = names[rng.integers(len(names))]
        content = bytearray(sample.files[name])
        place, bit = int(rng.integers(len(content))), int(rng.integers(8))
        content[place] ^= 1 << bit
        sample.write(name, bytes(content))
        found[sample.check(f"{name}: bit {bit} of byte {place}")] += 1
        sample.restore()
    with capsys.disabled():
        print(f"\nflips: {found[True]} found, {found[False]} harmless, 0 read wrongly")
    assert found[True] > 0.6 * NUM_FLIPS  # the files for people are as likely as any


def test_truncated_and_lengthened_files_are_found_or_harmless(sample: Sample) -> None:
    rng = np.random.default_rng(0)
    for name, content in sample.files.items():
        sizes = {0, 1, len(content) - 1, *rng.integers(0, max(len(content), 1), 6).tolist()}
        for damaged in [content[:size] for size in sizes if 0 <= size < len(content)] + [content + b"\0" * 9]:
            sample.write(name, damaged)
            is_found = sample.check(f"{name}: {len(damaged)} of {len(content)} bytes")
            assert is_found or is_unread(name) or damaged + b"\n" == content, name
            sample.restore()


def test_missing_files_are_found_or_harmless(sample: Sample) -> None:
    harmless = set()
    for name in sample.files:
        sample.write(name, None)
        if not sample.check(f"{name} is missing") and name.parent.name not in UNREAD_FOLDERS:
            harmless.add(name.name)
        sample.restore()
    # The manifest is made of the entries; the others are for people, or are made again.
    assert harmless == UNREAD | {"manifest.json", "rescored.json", "sources.json"}


def test_files_that_changed_places_are_found_or_harmless(sample: Sample) -> None:
    for one, other in itertools.combinations(sample.files, 2):
        sample.write(one, sample.files[other])
        sample.write(other, sample.files[one])
        is_found = sample.check(f"{one} and {other} changed places")
        assert is_found or is_unread(one, other)
        sample.restore()


def foreign_files(root: Path) -> Iterator[tuple[Path, bytes]]:
    """The files of another dataset: other prompts, another teacher."""
    run(root, first=100, weights=1)
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield path.relative_to(root), path.read_bytes()


def test_files_of_another_dataset_are_found_or_harmless(sample: Sample, tmp_path: Path) -> None:
    for name, content in foreign_files(tmp_path / "other"):
        sample.write(name, content)
        is_found = sample.check(f"{name} of another dataset")
        is_harmless = is_unread(name) or name.name in ("sources.json", "rescored.json")
        assert is_found or is_harmless or content == sample.files.get(name), name
        sample.restore()
    for folder in ("data", ".labelgen/entries", ".labelgen/prompts"):
        sample.write(Path(folder, "notes.txt"), b"not ours")
        assert sample.check(f"a foreign file in {folder}")
        sample.restore()


class DyingTeacher(FakeTeacher):
    """Dies after a while, as an engine does; the finished responses are in the journal then."""

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        for number, answer in enumerate(super().label(requests)):
            if number == 4:
                raise EngineError("the engine is gone")
            yield answer


def test_a_damaged_journal_costs_no_more_than_what_it_held(tmp_path: Path, sample: Sample) -> None:
    root = tmp_path / "journal"
    with pytest.raises(EngineError):
        run(root, teacher=DyingTeacher(selection=SELECTION, vocab_size=300, max_model_len=64))
    journal = {path.relative_to(root) for path in (root / ".labelgen/journal").iterdir()}
    assert journal
    unfinished = {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    rng = np.random.default_rng(0)
    for number in range(NUM_FLIPS // 40):
        name = sorted(journal)[rng.integers(len(journal))]
        content = bytearray(unfinished[name])
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        damaged = tmp_path / f"journal-{number}"
        for other, kept in unfinished.items():
            (damaged / other).parent.mkdir(parents=True, exist_ok=True)
            (damaged / other).write_bytes(bytes(content) if other == name else kept)
        with pytest.MonkeyPatch.context() as patch, failing_writes(patch):
            run(damaged)
        assert contents(damaged) == sample.wanted, name
        assert labelstore.verify_dataset(damaged).findings == []
        shutil.rmtree(damaged)


def repaired(sample: Sample, what: str) -> None:
    """Repair, run the same command, and see the dataset as it was."""
    try:
        labelstore.repair_dataset(sample.root)
    except StorageError:
        return  # header and manifest are both gone
    sample.run()
    assert sorted(contents(sample.root)) == sorted(sample.wanted), what
    assert labelstore.verify_dataset(sample.root).findings == [], what


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_repair_and_the_same_command_make_a_dataset_whole(sample: Sample, damage: str) -> None:
    rng = np.random.default_rng(0)
    for name, content in sample.files.items():
        if name.parent.name == "prompts" or name.name == "README.md" or name.suffix == ".withdrawn":
            continue  # the prompts can only be restored by hand
        damaged = bytearray(content)
        damaged[int(rng.integers(len(content)))] ^= 4
        kinds = {"flipped": bytes(damaged), "cut": content[: len(content) // 2], "missing": None}
        sample.write(name, kinds[damage])
        repaired(sample, f"{name} {damage}")
        sample.restore()


def test_repair_makes_only_the_damaged_block_again(sample: Sample) -> None:
    (shard,) = (sample.root / "data").glob("000000-*")
    kept = {path: path.read_bytes() for path in (sample.root / "data").glob("000001-*")}
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    report = labelstore.repair_dataset(sample.root)
    assert report.withdrawn == ["000000"] and report.kept_aside == [f"data/{shard.name}"]
    assert report.left.is_sound and len(labelstore.open_dataset(sample.root)) == 2
    assert (sample.root / ".labelgen/orphans" / shard.name).read_bytes() == content
    sample.run()
    assert contents(sample.root) == sample.wanted
    assert (sample.root / ".labelgen/entries/000000.1.json").exists()
    assert {path: path.read_bytes() for path in kept} == kept
    shard.write_bytes(b"damaged once more")  # made again, it has the same name
    assert labelstore.repair_dataset(sample.root).withdrawn == ["000000"]
    aside = {path.name: path.read_bytes() for path in (sample.root / ".labelgen/orphans").iterdir()}
    assert (aside[shard.name], aside[f"{shard.name}.1"]) == (bytes(content), b"damaged once more")


def test_repair_writes_entries_and_header_again_from_the_manifest(sample: Sample) -> None:
    for name in (".labelgen/header.json", ".labelgen/entries/000000.0.json"):
        (sample.root / name).write_bytes(b"{")
        report = labelstore.repair_dataset(sample.root)
        assert report.restored == [name] and report.withdrawn == [] and report.left.is_sound
        assert (sample.root / name).read_bytes() == sample.files[Path(name)]
    shutil.rmtree(sample.root / ".labelgen/entries")
    report = labelstore.repair_dataset(sample.root)
    assert report.restored == [".labelgen/entries/000000.0.json", ".labelgen/entries/000001.1.json"]
    assert contents(sample.root) == sample.wanted


def test_repair_keeps_the_rejects_that_can_be_read(sample: Sample) -> None:
    (path,) = (sample.root / ".labelgen/rejected").iterdir()
    rows = rejected_rows(sample.root)
    path.write_bytes(b"{half" + b"\n" + path.read_bytes())
    assert "does not have the hash in its name" in str(labelstore.verify_dataset(sample.root).findings[0])
    report = labelstore.repair_dataset(sample.root)
    assert report.left.is_sound and rejected_rows(sample.root) == rows
    assert (sample.root / ".labelgen/orphans" / path.name).read_bytes().startswith(b"{half")


def test_repair_leaves_labels_whose_prompts_are_gone(sample: Sample) -> None:
    (shard,) = (sample.root / "data").glob("000000-*")
    shard.write_bytes(shard.read_bytes()[:-1])
    (sample.root / ".labelgen/prompts/000000.parquet").write_bytes(b"gone")
    report = labelstore.repair_dataset(sample.root)
    assert report.withdrawn == [] and not report.left.is_sound and shard.exists()


def test_repair_leaves_what_only_a_later_labelgen_can_read(sample: Sample) -> None:
    path = sample.root / ".labelgen/entries/000000.0.json"
    entry = json.loads(path.read_bytes())
    del entry["sha256"]
    entry["shards"][0]["codec"] = "of the future"
    path.write_bytes(seal(entry))
    (sample.root / "manifest.json").unlink()
    report = labelstore.repair_dataset(sample.root)
    assert report.withdrawn == report.kept_aside == [] and not report.left.is_sound
    assert "has the codec 'of the future', unknown to this labelgen" in str(report.left.findings[0])


def test_repair_leaves_a_sound_dataset_alone(sample: Sample) -> None:
    report = labelstore.repair_dataset(sample.root)
    assert (report.restored, report.withdrawn, report.kept_aside) == ([], [], []) and report.left.is_sound
    assert {name: (sample.root / name).read_bytes() for name in sample.files} == sample.files
    (sample.root / ".labelgen").rename(sample.root.parent / "aside")
    with pytest.raises(labelstore.NotADatasetError, match="a copy is mended by copying it again"):
        labelstore.repair_dataset(sample.root)
