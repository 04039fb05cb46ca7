"""A dataset on a hub is read where it is: ranges of its files, not whole ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import labelstore
from hub_server import HubServer, use_hub
from labelgen.push.hub import HubRepo
from labelgen.push.push import prepare_push, push
from labelstore.codecs import codec_named
from labelstore.dataset import LabelDataset
from labelstore.dataset_writer import DatasetWriter
from labelstore.same_records import find_difference
from labelstore.selection import Selection
from make_records import make_header, make_record

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own upload

URL = "hf://datasets/me/my-labels"
NUM_RECORDS = 100
RECORDS = [make_record(i, num_labels=300, top_k=16) for i in range(NUM_RECORDS)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub") / "labels"
    writer = DatasetWriter(root, make_header(selection=Selection(top_k=16)), codec=codec_named("open"))
    writer.publish_block("000000", RECORDS, num_prompts=NUM_RECORDS, num_rejected=0, recorded={})
    writer.finish()
    return root


@pytest.fixture
def hub(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr("labelgen.push.push.own_secrets", lambda environment, hub_token: [])
    with HubServer() as server:
        use_hub(server, monkeypatch)
        repo = HubRepo("me/my-labels", note=print)
        push(prepare_push(root, repo), repo)
        server.ranges.clear()
        yield server


def test_opening_reads_the_manifest_alone(hub: HubServer) -> None:
    dataset = labelstore.open_dataset(URL)
    assert (len(dataset), dataset.num_labels) == (NUM_RECORDS, 300 * NUM_RECORDS)
    assert {name for name, *_ in hub.ranges} == {"manifest.json"}


def test_one_record_costs_a_footer_and_a_row_group(hub: HubServer, root: Path) -> None:
    dataset = labelstore.open_dataset(URL)
    hub.ranges.clear()
    assert find_difference(dataset[90], RECORDS[90], tolerance=None) is None
    (entry,) = dataset.entries[0].shards
    assert len(entry.row_group_records) == 2  # so that there is something not to read
    assert {name for name, *_ in hub.ranges} == {entry.name}
    num_read = sum(stop - start for _, start, stop, _ in hub.ranges)
    assert num_read < 0.6 * entry.num_bytes
    assert all(stop - start < size for _, start, stop, size in hub.ranges)


def test_all_records_come_as_they_are_in_the_folder(hub: HubServer, root: Path) -> None:
    dataset: LabelDataset = labelstore.open_dataset(URL)
    assert [record.record_id for record in dataset] == [record.record_id for record in RECORDS]


def test_no_dataset_and_no_repository_are_told_apart_from_a_bad_line(hub: HubServer) -> None:
    hub.repos["me/empty"] = type(hub.repos["me/my-labels"])(visibility="public")
    for url in ("hf://datasets/me/empty", "hf://datasets/me/nothing"):
        with pytest.raises(labelstore.NotADatasetError, match="is no label dataset"):
            labelstore.open_dataset(url)
