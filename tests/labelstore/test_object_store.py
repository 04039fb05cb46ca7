from __future__ import annotations

import pickle
import threading
import time
from pathlib import Path

import pytest

from labelstore.errors import NotADatasetError, UnreachableStoreError
from labelstore.object_store import ObjectStore
from labelstore.store import exists, open_store, open_writable_store, read_each, read_if_there, update
from s3_server import FAULTS, S3Proxy

URL = "s3://bucket/some/labels"


@pytest.fixture
def store(s3_proxy: S3Proxy) -> ObjectStore:
    return ObjectStore(URL)


def once(fault: str, method: str, part: str = "") -> object:
    """A fault of the first request of this kind."""
    left = [fault]
    return lambda verb, path: left.pop() if left and verb == method and part in path else None


def test_an_object_store_does_what_a_folder_does(store: ObjectStore, tmp_path: Path) -> None:
    local = open_writable_store(tmp_path / "folder")
    for each in (store, local):
        assert each.names("data") == [] and each.top_names() == [] and not exists(each, "data/a")
        each.make_ready()
        assert each.top_names() == []
        assert each.put_new("data/a", b"one") and not each.put_new("data/a", b"other")
        assert each.read("data/a") == b"one" and each.read("data/a", 1) == b"ne" and each.read("data/a", 1, 2) == b"n"
        assert each.read("data/a", 3) == each.read("data/a", 7, 9) == each.read("data/a", 1, 1) == b""
        path = each.scratch_path()
        path.write_bytes(b"a shard")
        assert each.put_new("data/b", path) and not path.exists()
        each.replace("empty", b"")
        each.jot("data/c", b"jotted")
        assert each.read("empty") == b"" and each.size("empty") == 0
        assert each.names("data") == ["data/a", "data/b", "data/c"]
        assert [name for name in each.top_names() if name != ".labelgen"] == ["data", "empty"]
        each.move("data/b", "moved/b")
        each.delete("data/c")
        each.delete("data/c")
        assert each.names("data") == ["data/a"] and each.read("moved/b") == b"a shard"
        assert read_if_there(each, "data/b") is None
        for read in (each.read, each.size):
            with pytest.raises(FileNotFoundError):
                read("data/b")
        assert each is local or not exists(each, "data")
        update(each, "empty", b"full")
        assert each.read("empty") == b"full" and each.remove_stale_scratch() == 0


def test_what_others_write_is_seen_at_once(store: ObjectStore) -> None:
    other = ObjectStore(URL)
    assert store.names("entries") == []
    assert other.put_new("entries/0", b"0")
    assert store.names("entries") == ["entries/0"] and store.size("entries/0") == 1
    other.replace("entries/0", b"01")
    assert store.size("entries/0") == 2 and pickle.loads(pickle.dumps(store)).read("entries/0") == b"01"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_request_that_fails_once_is_made_again(store: ObjectStore, s3_proxy: S3Proxy, fault: str) -> None:
    for number, method in enumerate(("PUT", "GET", "DELETE")):
        name = f"data/{number}"
        s3_proxy.fault = once(fault, method, name)  # type: ignore[assignment]
        assert store.put_new(name, b"content" * 1000), "a lost answer is one's own name"
        assert store.read(name) == b"content" * 1000
        assert store.put_new(name, b"other") is False
        store.delete(name)
        assert not exists(store, name)


def test_an_entry_whose_answer_was_lost_is_ones_own_and_anothers_is_not(store: ObjectStore, s3_proxy: S3Proxy) -> None:
    assert store.put_new("entries/0", b"of another")
    for content, is_own in ((b"of another", True), (b"mine", False)):
        s3_proxy.fault = once("lost", "PUT")  # type: ignore[assignment]
        assert store.put_new("entries/0", content) is is_own
    assert store.read("entries/0") == b"of another"


def test_many_files_are_read_at_once_and_come_in_order(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"entries/{number}" for number in range(40)]
    for name in names:
        store.replace(name, name.encode())
    gate = threading.Barrier(16, timeout=60)  # 16 are in flight together, or it breaks
    read = ObjectStore.read

    def read_together(self: ObjectStore, name: str) -> bytes:
        if int(name.rpartition("/")[2]) < 16:
            gate.wait()
        return read(self, name)

    monkeypatch.setattr(ObjectStore, "read", read_together)
    assert list(read_each(store, names)) == [name.encode() for name in names]
    with pytest.raises(FileNotFoundError):
        list(read_each(store, [*names[16:], "entries/99"]))


def test_a_store_that_stays_away_ends_the_wait(
    store: ObjectStore, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelstore.object_store._PATIENCE_SECONDS", 0.3)
    store.replace("a", b"")
    s3_proxy.fault = lambda method, path: "500"
    with pytest.raises(UnreachableStoreError, match=r"some/labels/a: the store did not write it in \d+ attempts over"):
        store.replace("a", b"")
    s3_proxy.requests.clear()
    with pytest.raises(UnreachableStoreError, match="in 1 attempts"):
        store.jot("a", b"")


def test_wrong_keys_end_at_once_and_say_where_keys_come_from(store: ObjectStore, s3_proxy: S3Proxy) -> None:
    s3_proxy.fault = lambda method, path: "403"
    started = time.monotonic()
    with pytest.raises(NotADatasetError, match=r"cannot be written to: .*Access Denied.*AWS_ACCESS_KEY_ID"):
        store.make_ready()
    with pytest.raises(UnreachableStoreError, match="refuses to list it"):
        store.names("data")
    assert time.monotonic() - started < 10 and len(s3_proxy.requests) <= 4


def test_keys_that_only_read_are_found_out_at_the_start(store: ObjectStore, s3_proxy: S3Proxy) -> None:
    s3_proxy.fault = lambda method, path: "403" if method == "PUT" else None
    assert store.top_names() == []
    with pytest.raises(NotADatasetError, match="refuses to write it"):
        store.make_ready()


def test_a_store_that_overwrites_is_refused(store: ObjectStore, s3_proxy: S3Proxy) -> None:
    s3_proxy.honours_conditions = False
    with pytest.raises(NotADatasetError, match=r"this store overwrites .*If-None-Match.* Give -o a local folder"):
        store.make_ready()
    assert store.top_names() == [], "nothing is left behind"


def test_a_missing_bucket_and_a_kind_without_exclusive_puts_are_refused(s3_proxy: S3Proxy) -> None:
    with pytest.raises(NotADatasetError, match=r"nobucket/labels: cannot be written to: .*bucket does not exist"):
        ObjectStore("s3://nobucket/labels").make_ready()
    with pytest.raises(NotADatasetError, match="datasets are not written to memory:// by a job"):
        ObjectStore("memory://labels").make_ready()


def test_uploads_in_parts_that_a_kill_left_are_aborted_and_others_are_not(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("some/labels/data/000000-0-0.parquet", "some/labels-of-others/data/0.parquet"):
        store._fs.call_s3("create_multipart_upload", Bucket="bucket", Key=key)
    with monkeypatch.context() as patch:
        patch.setattr("labelstore.object_store._STALE_SECONDS", 50 * 366 * 86400)  # the server dates all of 2010
        assert store.remove_stale_scratch() == 0, "a living job may be at it"
    assert store.remove_stale_scratch() == 1
    left = store._fs.call_s3("list_multipart_uploads", Bucket="bucket")["Uploads"]
    assert [upload["Key"] for upload in left] == ["some/labels-of-others/data/0.parquet"]


def test_a_url_of_a_folder_is_the_folder(tmp_path: Path) -> None:
    assert open_writable_store(f"file://{tmp_path}").location == tmp_path == open_store(f"file://{tmp_path}").location
