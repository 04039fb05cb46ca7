"""Datasets from a stranger: every hash is right, as a stranger can compute them, and the content attacks."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import labelstore
from labelstore.codecs import codec_named
from labelstore.convert import SilentWatcher, convert_datasets
from labelstore.dataset_writer import DatasetWriter, finish_dataset
from labelstore.entry import Entry
from labelstore.errors import DamagedDatasetError, StorageError
from labelstore.file_names import is_inside
from labelstore.local_store import LocalStore
from labelstore.location import as_location, check_holds_no_key
from labelstore.parquet_bounds import check_bounds
from labelstore.sealed_json import seal, unseal
from make_records import make_header, make_record

ENTRY_NAME = ".labelgen/entries/000000.0.json"
EVIL_NAMES = [
    "data/../../secret",
    "/etc/passwd",
    "../secret",
    "data//x.parquet",
    "data\\..\\secret",
    "data/000000-0-00000000.parquet\0.txt",
    "data/000001-0-00000000.parquet",  # another block's
    ".labelgen/header.json",
    "",
    7,
    None,
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "dataset"
    writer = DatasetWriter(root, make_header(), codec=codec_named("open"))
    writer.publish_block("000000", [make_record(i) for i in range(3)], num_prompts=3, num_rejected=0, recorded={})
    writer.finish()
    (tmp_path / "secret").write_text("the reader's own")
    return root


def rewrite(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the entry, in its file and in the manifest, and seal both again."""
    entry = unseal((root / ENTRY_NAME).read_bytes(), origin="")
    change(entry)
    (root / ENTRY_NAME).write_bytes(seal(entry))
    manifest = unseal((root / "manifest.json").read_bytes(), origin="")
    manifest["entries"] = [entry]
    (root / "manifest.json").write_bytes(seal(manifest))


def verify(root: Path) -> None:
    """Raise what is found."""
    if findings := labelstore.verify_dataset(root).findings:
        raise DamagedDatasetError("; ".join(map(str, findings)))


def every_way_to_read(root: Path, tmp_path: Path) -> list[Callable[[], object]]:
    return [
        lambda: list(labelstore.open_dataset(root)),
        lambda: labelstore.open_dataset(root)[0],
        lambda: verify(root),
        lambda: finish_dataset(root),
        lambda: convert_datasets([str(root)], tmp_path / "converted", labelgen_version="0", watcher=SilentWatcher()),
    ]


@pytest.mark.parametrize("name", EVIL_NAMES, ids=repr)
@pytest.mark.parametrize("has_entries", [True, False], ids=["entries", "manifest"])
def test_a_shards_name_is_followed_nowhere(root: Path, tmp_path: Path, name: object, has_entries: bool) -> None:
    rewrite(root, lambda entry: entry["shards"][0].update(name=name))
    if not has_entries:
        (root / ENTRY_NAME).unlink()
        (root / ".labelgen/header.json").unlink()
    for read in every_way_to_read(root, tmp_path):
        with pytest.raises(StorageError):
            read()
    assert (tmp_path / "secret").read_text() == "the reader's own"


@pytest.mark.parametrize(
    "change",
    [
        {"num_bytes": -1},
        {"num_bytes": 1 << 70},
        {"num_bytes": "7"},
        {"num_bytes": True},
        {"model_bytes": 1 << 40},
        {"footer_bytes": 1 << 40},
        {"row_group_records": [-3]},
        {"row_group_records": [1 << 62] * 3},
        {"row_group_records": ["3"]},
        {"counts": None},
    ],
    ids=str,
)
def test_impossible_counts_are_refused(root: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    rewrite(root, lambda entry: entry["shards"][0].update(change))
    for read in every_way_to_read(root, tmp_path)[:3]:
        with pytest.raises(StorageError):
            read()


def test_a_block_that_is_no_number_is_refused(root: Path) -> None:
    rewrite(root, lambda entry: entry.update(block="../../x"))
    with pytest.raises(StorageError):
        labelstore.open_dataset(root)
    with pytest.raises(DamagedDatasetError, match="no number of six digits"):
        Entry.from_json({**unseal((root / ENTRY_NAME).read_bytes(), origin="")}, origin="x")


@pytest.mark.parametrize("link", ["data", ".labelgen", ".labelgen/entries", "shard", "manifest.json", ENTRY_NAME])
def test_links_out_of_the_folder_are_refused_and_nothing_behind_them_is_touched(
    root: Path, tmp_path: Path, link: str
) -> None:
    name = str(next((root / "data").iterdir()).relative_to(root)) if link == "shard" else link
    (root / name).rename(tmp_path / "elsewhere")
    (root / name).symlink_to(tmp_path / "elsewhere")
    outside = tmp_path / "elsewhere"
    before = sorted(str(path) for path in outside.rglob("*")) if outside.is_dir() else outside.read_bytes()
    said = []
    uses: list[Callable[[], object]] = [*every_way_to_read(root, tmp_path), lambda: labelstore.repair_dataset(root)]
    for use in uses:
        try:
            use()
        except StorageError as error:
            said.append(str(error))
    assert any("is a link out of the dataset's folder" in message for message in said), said
    after = sorted(str(path) for path in outside.rglob("*")) if outside.is_dir() else outside.read_bytes()
    assert before == after


def test_a_hubs_cache_and_a_folder_behind_a_link_are_read(root: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub/snapshots/abc"
    (tmp_path / "hub/blobs").mkdir(parents=True)
    (snapshot / "data").mkdir(parents=True)
    for number, path in enumerate([root / "manifest.json", *(root / "data").iterdir()]):
        (tmp_path / f"hub/blobs/{number}").write_bytes(path.read_bytes())
        (snapshot / path.relative_to(root)).symlink_to(tmp_path / f"hub/blobs/{number}")
    (tmp_path / "by-link").symlink_to(root)
    assert len(list(labelstore.open_dataset(snapshot))) == len(list(labelstore.open_dataset(tmp_path / "by-link"))) == 3


def test_what_is_no_file_does_not_hold_a_reader_up(root: Path) -> None:
    (root / "manifest.json").unlink()
    os.mkfifo(root / "manifest.json")
    with pytest.raises(StorageError, match="neither a file nor a folder"):
        verify(root)


@pytest.mark.parametrize("name", ["..", ".", "", "/a", "a/", "a//b", "a/../b", "a\\b", "a\0b"])
def test_names_that_lead_out_are_none_of_a_stores(tmp_path: Path, name: str) -> None:
    assert not is_inside(name)
    store = LocalStore(tmp_path)
    uses: list[Callable[[str], object]] = [store.read, store.size, store.delete, store.names]
    uses.append(lambda name: store.replace(name, b""))
    for use in uses:
        with pytest.raises(StorageError):
            use(name)
    assert list(tmp_path.rglob("*")) in ([], [tmp_path / ".labelgen", tmp_path / ".labelgen/tmp"])


@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b'{"a":' * 200_000, b"9" * 10_000, b'{"sha256": "x", "a": NaN}', b"\xff"], ids=len
)
def test_json_that_is_a_trap_is_an_error(root: Path, content: bytes) -> None:
    for name in ("manifest.json", ".labelgen/header.json", ENTRY_NAME):
        kept = (root / name).read_bytes()
        (root / name).write_bytes(content)
        with pytest.raises(StorageError):
            unseal(content, origin="x")
        assert not labelstore.verify_dataset(root).is_sound
        (root / name).write_bytes(kept)


def test_a_parquet_file_that_unpacks_to_far_more_is_refused_before_it_is_unpacked() -> None:
    sink = io.BytesIO()
    bomb = pa.table({"text": pa.array([b"\0" * (200 << 20)], pa.large_binary())})
    pq.write_table(bomb, sink, compression="zstd", use_dictionary=False, write_statistics=False)
    num_bytes = sink.tell()
    assert num_bytes < 100_000, "a bomb"
    with pytest.raises(ValueError, match=r"column text asks for 209,.* bytes of memory; in a file of"):
        check_bounds(pq.read_metadata(sink), 0, num_bytes=num_bytes)


def test_every_row_group_is_held_against_the_size_of_its_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelstore.parquet_bounds._ALWAYS_BYTES", 0)
    monkeypatch.setattr("labelstore.parquet_bounds._MOST_PER_BYTE", 0)
    with pytest.raises(DamagedDatasetError, match=r"row group 0 does not decode: column .* asks for"):
        list(labelstore.open_dataset(root))


def test_reading_asks_no_network_and_imports_nothing_of_the_dataset(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    for name in ("labelstore.py", "conftest.py", "tokenizer.py", "data/__init__.py", "sitecustomize.py"):
        (root / name).write_text(f"open({str(marker)!r}, 'w')\n")
    (root / "README.md").write_text("{{ ''.__class__.__mro__ }}\n")

    def refused(*arguments: object) -> None:
        raise AssertionError(f"the network was asked: {arguments}")

    monkeypatch.setattr("socket.socket.connect", refused)
    monkeypatch.setattr("socket.getaddrinfo", refused)
    monkeypatch.chdir(root)
    assert len(list(labelstore.open_dataset(root))) == 3
    labelstore.verify_dataset(root)
    convert_datasets([str(root)], tmp_path / "converted", labelgen_version="0", watcher=SilentWatcher())
    assert not marker.exists()


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@host/prompts.jsonl",
        "https://hunter2@host/prompts.jsonl",
        "s3://AKIA:hunter2@bucket/labels",
        "https://host/p.jsonl?X-Amz-Signature=hunter2",
        "https://host/p.jsonl?a=1&token=hunter2",
        "https://account.blob.core.windows.net/c/p.jsonl?sv=1&sig=hunter2",
        "simplecache::https://user:hunter2@host/x",
    ],
)
def test_a_url_with_a_key_in_it_is_refused_and_not_repeated(url: str) -> None:
    for check in (as_location, check_holds_no_key, labelstore.open_dataset):
        with pytest.raises(ValueError, match="Keys are taken from the environment only") as caught:
            check(url)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://bucket/a@b", "https://host/a?revision=main", "abfs://container@account/labels"])
def test_a_url_without_a_key_is_taken(url: str) -> None:
    assert as_location(url) == url


def test_json_names_are_never_classes(root: Path) -> None:
    """Fields that a class does not have are refused, whatever they are called."""
    for name in ("__class__", "__reduce__", "py/object"):
        content = unseal((root / ENTRY_NAME).read_bytes(), origin="")
        with pytest.raises(DamagedDatasetError):
            Entry.from_json({**content, name: json.dumps("os.system")}, origin="x")
