"""`labelgen push` against a hub on loopback that behaves badly on purpose."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hub_server import Fault, HubServer, use_hub
from labelgen.cli import main
from labelgen.push import push as shipping
from labelgen.push.hub import HubRepo, PushError
from labelgen.push.secrets import find_secret_patterns, own_secrets
from labelstore.codecs import codec_named
from labelstore.dataset_writer import DatasetWriter
from labelstore.errors import DamagedDatasetError
from make_records import make_dataset, make_header, make_record

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own upload

REPO = "me/my-labels"
TOKEN = "hf_" + "q7Zk" * 9
SECRET = "s3cr3t/value+of-mine"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the client waits for, at once."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return waited


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        use_hub(server, monkeypatch)
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "labels")


def push(root: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["push", str(root), REPO, *options])


def push_dataset(root: Path, *, note: Callable[[str], None] = lambda message: None) -> shipping.PushSummary:
    repo = HubRepo(REPO, note=note)
    return shipping.push(shipping.prepare_push(root, repo), repo)


def shared(root: Path) -> set[str]:
    return {"README.md", "manifest.json", *(f"data/{path.name}" for path in (root / "data").iterdir())}


def test_what_is_shared_is_readme_manifest_and_shards_and_all_of_it_arrives(hub: HubServer, root: Path) -> None:
    (root / "notes.txt").write_text("not for others")
    result = push(root)
    assert result.exit_code == 0, result.output
    assert hub.names(REPO) == shared(root)
    for name in shared(root):
        assert hub.content(REPO, name) == (root / name).read_bytes()
    assert hub.repos[REPO].visibility == "private"
    assert hub.tokens == {f"Bearer {TOKEN}", None}  # None: to where large files are stored
    assert "4 files" in result.stdout and "hf://datasets/me/my-labels" in result.stdout


def test_public_pictures_and_more_are_shared_when_asked(hub: HubServer, root: Path) -> None:
    (root / "card").mkdir()
    (root / "card/lengths.png").write_bytes(b"\x89PNG")
    (root / ".labelgen/job.yaml").write_text("teacher: fake\n")
    result = push(root, "--public", "--include", ".labelgen/job.yaml", "--json")
    values = json.loads(result.stdout)
    assert hub.names(REPO) == {*shared(root), "card/lengths.png", ".labelgen/job.yaml"}
    assert values["files"] == 6 and values["commit"] == hub.repos[REPO].head
    assert hub.repos[REPO].visibility == "public"
    assert "matches no file" in push(root, "--include", "nothing-*").stderr
    assert "must stay below" in push(root, "--include", "../*").stderr


def test_the_manifest_comes_after_all_shards(hub: HubServer, root: Path) -> None:
    push_dataset(root)
    for tree in hub.repos[REPO].commits.values():
        assert "manifest.json" not in tree or tree.keys() == shared(root)


@pytest.mark.parametrize("kind", ["429", "503", "cut", "cut late"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/repos/create"),
        ("POST", "/preupload/"),
        ("POST", "/objects/batch"),
        ("PUT", "/upload/"),
        ("POST", "/commit/"),
        ("GET", "/tree/"),
    ],
    ids=lambda value: value.strip("/"),
)
def test_a_bad_line_is_outlasted(method: str, path: str, kind: str, hub: HubServer, root: Path) -> None:
    hub.faults = [Fault(method, path, kind, times=2)]
    summary = push_dataset(root)
    assert hub.faults[0].times == 0
    assert summary.num_files == 4
    for name in shared(root):
        assert hub.content(REPO, name) == (root / name).read_bytes()


@pytest.mark.parametrize("kind", ["500", "cut"])
def test_a_large_file_goes_in_parts(kind: str, hub: HubServer, root: Path) -> None:
    hub.in_parts = True
    hub.faults = [Fault("PUT", "/upload/", kind, times=3)]
    push_dataset(root)
    assert hub.requests["upload"] == 4  # two parts of each
    for name in shared(root):
        assert hub.content(REPO, name) == (root / name).read_bytes()


def test_what_arrived_is_not_sent_again(hub: HubServer, root: Path) -> None:
    hub.faults = [Fault("POST", "/commit/", "503", times=100)]
    with pytest.raises(PushError, match="the same command goes on from there"):
        push_dataset(root)
    assert hub.requests["upload"] == 2
    hub.faults = []
    push_dataset(root)
    assert hub.requests["upload"] == 2
    assert hub.names(REPO) == shared(root)
    num_commits = len(hub.repos[REPO].commits)
    push_dataset(root)  # nothing is new
    assert len(hub.repos[REPO].commits) == num_commits


def test_a_retry_says_attempt_limit_and_cause(hub: HubServer, root: Path, waits: list[float]) -> None:
    hub.faults = [Fault("POST", "/commit/", "503", times=2)]
    notes: list[str] = []
    push_dataset(root, note=notes.append)
    assert [note.partition("; ")[2] for note in notes] == [
        "trying again in 5 s (1 of 5)",
        "trying again in 10 s (2 of 5)",
    ]
    assert all(note.startswith("uploading: HfHubHTTPError: ") and "503" in note for note in notes)
    assert {5.0, 10.0} <= set(waits)


@pytest.mark.parametrize(("status", "hint"), [("401", "hf auth login"), ("403", "may not write to me/my-labels")])
def test_what_will_not_pass_is_told_at_once(status: str, hint: str, hub: HubServer, root: Path) -> None:
    hub.faults = [Fault("POST", "/preupload/", status, times=1)]
    result = push(root)
    assert result.exit_code == 1
    assert hint in result.stderr
    assert hub.faults[0].times == 0 and hub.names(REPO) == set()


def test_a_name_that_is_none_and_a_missing_library_are_told_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(main, ["push", str(root), "my-labels"])
    assert result.exit_code == 1 and "my-labels: is no repository of a hub; give it as OWNER/NAME" in result.stderr
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'labelgen[hub]'" in push(root).stderr


def test_a_file_that_arrived_changed_is_found(hub: HubServer, root: Path) -> None:
    hub.faults = [Fault("PUT", "/upload/", "corrupt")]
    with pytest.raises(PushError, match=r"is not what was sent: data/.*parquet: has the sha256"):
        push_dataset(root)


def test_shards_that_the_dataset_has_no_more_are_removed(hub: HubServer, root: Path) -> None:
    push_dataset(root)
    writer = DatasetWriter(root, make_header(), codec=codec_named("open"))
    old = writer.entries["000001"].shards[0].name
    (root / ".labelgen/entries/000001.0.withdrawn").write_bytes(b"")
    writer = DatasetWriter(root, make_header(), codec=codec_named("open"))
    writer.publish_block("000001", [make_record(9)], num_prompts=1, num_rejected=0, recorded={})
    summary = push_dataset(root)
    assert summary.num_removed == 1
    assert old not in hub.names(REPO) and hub.names(REPO) == shared(root)


def test_another_teachers_labels_are_not_written_over(hub: HubServer, root: Path, tmp_path: Path) -> None:
    push_dataset(root)
    header = make_header(teacher="other", fingerprint_fields={"weights": "other"})
    DatasetWriter(tmp_path / "other", header, codec=codec_named("open")).finish()
    before = hub.names(REPO)
    with pytest.raises(PushError, match="holds labels of another fingerprint"):
        push_dataset(tmp_path / "other")
    assert hub.names(REPO) == before


def test_a_dataset_without_shards_shares_no_other_file(hub: HubServer, tmp_path: Path) -> None:
    DatasetWriter(tmp_path / "labels", make_header(), codec=codec_named("open")).finish()
    push_dataset(tmp_path / "labels")
    assert hub.names(REPO) == {"README.md", "manifest.json"}


def test_what_is_no_dataset_and_a_missing_readme_are_named(hub: HubServer, root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "is no label dataset" in push(tmp_path / "empty").stderr
    assert "no such folder" in push(tmp_path / "missing").stderr
    (root / "README.md").unlink()
    assert "has no README.md; 'labelgen card" in push(root).stderr


def test_a_damaged_shard_is_not_shared(hub: HubServer, root: Path) -> None:
    shard = next((root / "data").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedDatasetError, match="not the file that was published"):
        push_dataset(root)
    assert REPO not in hub.repos


def dataset_with(root: Path, **fields: Any) -> Path:
    writer = DatasetWriter(root, make_header(), codec=codec_named("standard"))
    records = [make_record(0), make_record(1, **fields)]
    writer.publish_block("000000", records, num_prompts=2, num_rejected=0, recorded={"note": fields.get("note")})
    writer.finish()
    return root


@pytest.mark.parametrize(
    "fields",
    [
        {"text": f"it is {SECRET}."},
        {"messages": [{"role": "user", "content": SECRET}]},
        {"kept": {"deep": [{"er": SECRET}]}},
        {"messages": None, "prompt": SECRET},
        {"prompt_id": SECRET},
        {"text": TOKEN},
    ],
    ids=["text", "messages", "kept", "prompt", "id", "hub_token"],
)
def test_an_own_secret_in_a_record_stops_it(
    fields: dict[str, object], hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", SECRET)
    result = push(dataset_with(tmp_path / "labels", **fields))
    assert result.exit_code == 1 and hub.repos == {}
    assert "record 1: " in result.stderr and "nothing was sent" in result.stderr
    assert SECRET not in result.output and TOKEN not in result.output


@pytest.mark.parametrize("name", ["README.md", "extra.bin"])
def test_an_own_secret_in_a_file_stops_it(
    name: str, hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", SECRET)
    monkeypatch.setattr("labelstore.store._PIECE_BYTES", 64)  # it stands across pieces
    (root / name).write_bytes(b"\xff" * 50 * (name != "README.md") + b"x" * 50 + SECRET.encode() + b"y" * 200)
    result = push(root, "--include", name)
    assert f"{name}: the value of DATABASE_PASSWORD" in result.stderr and hub.repos == {}


def test_what_looks_like_a_secret_stops_it_in_text_only(hub: HubServer, root: Path) -> None:
    fake = b"AKIA" + b"ABCDEFGH23456789"
    (root / "extra.bin").write_bytes(b"\xff\0 " + fake)
    assert push(root, "--include", "extra.bin").exit_code == 0
    (root / "notes.md").write_bytes(b"line\nkey " + fake)
    result = push(root, "--include", "notes.md")
    assert "notes.md: what looks like an AWS key id, in line 2" in result.stderr


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"OPENAI_API_KEY": "abc-123-def"}, ["the value of OPENAI_API_KEY"]),
        ({"WHATEVER": "ghp_" + "a1" * 18}, ["the value of WHATEVER"]),
        ({"HF_TOKEN": TOKEN}, ["the Hugging Face token"]),
        ({"USE_AUTH": "disabled", "TOKEN_COUNT": "12345678", "MY_TOKEN": "short", "SECRET_FILE": "/etc/passwd"}, []),
        ({"DB_PASSWORD": "correcthorsebattery"}, ["the value of DB_PASSWORD"]),
        ({"GIT_AUTHOR_NAME": "A. Name 42", "TOKENIZER": "Qwen/Qwen3-8B"}, []),
        ({"PATH": "/usr/bin:/bin", "LANG": "en_US.UTF-8", "KEYBOARD": "de-nodeadkeys"}, []),
    ],
)
def test_own_secrets_are_known_by_name_or_form(variables: dict[str, str], expected: list[str]) -> None:
    found = own_secrets(variables, hub_token=variables.get("HF_TOKEN"))
    assert [secret.origin for secret in found] == expected
    assert not any(value in repr(found) for value in variables.values())


@pytest.mark.parametrize(
    "text",
    [b"sk-" + b"a1" * 20, b"-----BEGIN RSA PRIVATE KEY-----", b"postgres://me:hunter2@host/db", b"glpat-" + b"x1" * 10],
)
def test_secret_patterns_are_found(text: bytes) -> None:
    assert len(find_secret_patterns(b"before\n" + text)) == 1


def test_a_plain_card_looks_like_no_secret(root: Path) -> None:
    assert CliRunner().invoke(main, ["card", str(root), "--no-plots"]).exit_code == 0
    assert find_secret_patterns((root / "README.md").read_bytes()) == []
    assert find_secret_patterns((root / "manifest.json").read_bytes()) == []
