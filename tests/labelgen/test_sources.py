"""Sources as people have them: what is in them becomes the same prompts, and what is no prompt becomes a reject."""

from __future__ import annotations

import bz2
import gzip
import http.server
import io
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelgen.prompts import row_formats
from labelgen.prompts.prompt import Prompt, Reject
from labelgen.prompts.prompt_fields import PromptFields, Task
from labelgen.prompts.sources import find_sources, read_prompts

ROWS: list[dict[str, Any]] = [{"id": f"r{i}", "prompt": f'question, "{i}"\n\tö', "topic": i} for i in range(5)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def read(*names: object, task: Task = "generate", **fields: Any) -> list[Prompt | Reject]:
    sources = find_sources([str(name) for name in names], task=task, fields=PromptFields(**fields))
    return [row for source in sources for row in read_prompts(source)]


def contents(rows: list[Prompt | Reject]) -> list[tuple[str, str | None]]:
    return [(row.prompt_id, row.prompt) for row in rows if isinstance(row, Prompt)]


def reasons(rows: list[Prompt | Reject]) -> dict[int, str]:
    return {row.line: row.reason for row in rows if isinstance(row, Reject)}


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(data)
    return bytes(sink.getvalue().to_pybytes())


def as_csv(delimiter: str) -> bytes:
    import csv

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["id", "prompt", "topic"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return b"\xef\xbb\xbf" + text.getvalue().encode()


def as_parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


FORMATS: dict[str, Callable[[], bytes]] = {
    "p.jsonl": lambda: LINES,
    "p.json": lambda: LINES,
    "p.jsonl.gz": lambda: gzip.compress(LINES[:50]) + gzip.compress(LINES[50:]),
    "p.jsonl.zst": lambda: zstd(LINES[:50]) + zstd(LINES[50:]),
    "p.ndjson.bz2": lambda: bz2.compress(LINES),
    "p.csv": partial(as_csv, ","),
    "p.tsv": partial(as_csv, "\t"),
    "p.csv.zst": lambda: zstd(as_csv(",")),
    "p.parquet": as_parquet,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_prompts(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FORMATS[name]())
    assert contents(read(tmp_path / name)) == [(row["id"], row["prompt"]) for row in ROWS]


def test_every_format_is_read_behind_a_url() -> None:
    fs = fsspec.filesystem("memory")
    for name, make in FORMATS.items():
        fs.pipe(f"/prompts/{name}", make())
    try:
        assert len(read("memory://prompts")) == len(FORMATS) * 5  # a folder
        assert len(read("memory://prompts/*.csv*")) == 10  # a pattern
        assert contents(read("memory://prompts/p.parquet")) == [(row["id"], row["prompt"]) for row in ROWS]
        (source,) = find_sources(["memory://prompts/p.jsonl"], task="generate", fields=PromptFields())
        before = source.state
        fs.pipe("/prompts/p.jsonl", LINES + LINES)
        assert before is not None and source.state != before
        with pytest.raises(ValueError, match=r"memory://prompts/nothing.jsonl: no such file"):
            read("memory://prompts/nothing.jsonl")
    finally:
        fs.rm("/prompts", recursive=True)


@pytest.fixture
def web_folder(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and its address on a web server of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_web_is_a_source(web_folder: tuple[Path, str]) -> None:
    folder, address = web_folder
    for name in ("p.jsonl", "p.jsonl.gz"):
        (folder / name).write_bytes(FORMATS[name]())
        assert contents(read(f"{address}/{name}?download=true")) == [(row["id"], row["prompt"]) for row in ROWS]
    with pytest.raises(ValueError, match=r"nothing.jsonl: no such file"):
        read(f"{address}/nothing.jsonl")


def test_a_folder_is_its_files_and_a_pattern_those_that_match(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/c.jsonl", "a/.hidden.jsonl", ".git/d.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"prompt": name}) + "\n")
    (tmp_path / "notes.docx").write_text("not read")
    assert [prompt for _, prompt in contents(read(tmp_path))] == ["a/c.jsonl", "b.jsonl"]
    assert [prompt for _, prompt in contents(read(f"{tmp_path}/**/*.jsonl"))] == ["a/c.jsonl", "b.jsonl"]
    assert [prompt for _, prompt in contents(read(f"{tmp_path}/b*", f"{tmp_path}/*.jsonl"))] == ["b.jsonl"]
    with pytest.raises(ValueError, match=r"no file matches"):
        read(f"{tmp_path}/*.csv")
    (tmp_path / "[odd].jsonl").write_text('{"prompt": "odd"}\n')
    assert contents(read(f"{tmp_path}/[odd].jsonl"))[0][1] == "odd"


def test_a_folder_without_a_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a text to score, not to answer")
    with pytest.raises(ValueError, match=r"the folder has none of \.jsonl"):
        read(tmp_path)
    (row,) = read(tmp_path, task="score")
    assert isinstance(row, Prompt) and row.prompt_id == str(tmp_path / "notes.txt")


def test_bad_lines_do_not_end_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_formats, "MAX_ROW_BYTES", 200_000)
    path = tmp_path / "p.jsonl"
    lines = [
        b'{"prompt": "a"}',
        b"",
        b"not json",
        b'{"prompt": "\xff"}',
        b"[" * 100_000,
        b'{"prompt": "' + b"x" * 700_000 + b'"}',
        b'{"messages": [{"role": "user", "content": "x", "weight": NaN}]}',
        b'{"prompt": ' + b"9" * 5_000 + b"}",
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "b"}',
    ]
    path.write_bytes(b"\n".join(lines))
    rows = read(path)
    assert [prompt for _, prompt in contents(rows)] == ["a", "b"]
    found = reasons(rows)
    for line, reason in {
        3: "is not JSON",
        4: "is not UTF-8",
        5: "is not JSON",
        6: "is longer than",
        7: "hold what is no JSON",
        8: "is not JSON",
        9: "half of a surrogate pair",
    }.items():
        assert reason in found[line], (line, found)


def test_bad_csv_rows_do_not_end_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_formats, "MAX_ROW_BYTES", 1_000)
    path = tmp_path / "p.csv"
    rows = [b"id,prompt", b"1,a", b"2,b,c", b"3,\xff", b"4,", b"5," + b"x" * 3_000, b'6,"two', b'lines"', b"7,z"]
    path.write_bytes(b"\r\n".join(rows) + b"\r\n")
    found = read(path)
    assert contents(found) == [("1", "a"), ("6", "two\r\nlines"), ("7", "z")]
    assert reasons(found) == {
        3: "has 3 fields, the header has 2",
        4: "is not UTF-8",
        5: "'prompt' is empty",
        6: "is longer than 16 MiB",
    }
    path.write_bytes(b"id,id\n1,2\n")
    with pytest.raises(ValueError, match="names the column 'id' twice"):
        read(path)


def test_an_open_quote_costs_a_row_and_not_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_formats, "MAX_ROW_BYTES", 1_000)
    path = tmp_path / "p.csv"
    path.write_text('prompt\n"never closed\n' + "filler\n" * 300 + "last\n")
    found = read(path)
    assert "is not CSV: field larger than field limit" in reasons(found)[2]
    assert contents(found)[-1][1] == "last"


def test_a_file_cut_short_says_where(tmp_path: Path) -> None:
    lines = b"".join(b'{"prompt": "%d"}\n' % number for number in range(100_000))
    for name, data in (("p.jsonl.gz", gzip.compress(lines)), ("p.jsonl.zst", zstd(lines))):
        (tmp_path / name).write_bytes(data[:-12])
        with pytest.raises(ValueError, match=rf"{name}: cannot be read behind line \d+ \(Truncated"):
            read(tmp_path / name)


def test_a_source_that_cannot_be_read_is_refused_at_once(tmp_path: Path) -> None:
    for name, content, message in [
        ("empty.jsonl", b"", "the file is empty"),
        ("p.docx", b"x", r"cannot tell what is in a \.docx file"),
        ("p.txt", b"x", r"cannot tell what is in a \.txt file"),
        ("p.parquet", b"not parquet", "is not a Parquet file"),
        ("p.parquet.gz", b"x", "unpack it first"),
        ("p.json", b'[{"prompt": "a"}]', r"is one JSON array; write a row a line: jq -c '\.\[\]'"),
        ("p.jsonl.gz", b"not gzip", "cannot be read"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read(tmp_path / name)
    with pytest.raises(ValueError, match="no such file"):
        read(tmp_path / "missing.jsonl")


def test_a_table_without_the_field_names_those_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": ["a"], "answer": ["b"]}), tmp_path / "p.parquet")
    with pytest.raises(
        ValueError, match=r"no column 'prompt' or 'messages'; it has 'question', 'answer'.*--prompt-field"
    ):
        read(tmp_path / "p.parquet")
    assert contents(read(tmp_path / "p.parquet", prompt="question"))[0][1] == "a"


def test_a_table_gives_a_chat_as_a_line_does(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    rows: list[dict[str, Any]] = [
        {"id": "a", "messages": [{"role": "user", "content": "x"}], "tools": tools},
        {"id": "b", "messages": [{"role": "user", "content": "y"}, {"role": "tool", "content": "4", "name": "f"}]},
    ]
    as_text = [{**row, "messages": json.dumps(row["messages"]), "tools": json.dumps(row.get("tools"))} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "nested.parquet")
    pq.write_table(pa.Table.from_pylist(as_text), tmp_path / "text.parquet")
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    hashes = {
        name: [row.content_hash for row in read(tmp_path / name) if isinstance(row, Prompt)]
        for name in ("p.jsonl", "nested.parquet", "text.parquet")
    }
    assert len(hashes["p.jsonl"]) == 2
    assert hashes["nested.parquet"] == hashes["text.parquet"] == hashes["p.jsonl"]
    first = read(tmp_path / "nested.parquet")[0]
    assert isinstance(first, Prompt) and first.tools == tools and first.kept == {"tools": tools}


def test_a_local_dataset_is_a_source_with_its_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    saved = datasets.DatasetDict(
        train=datasets.Dataset.from_list(ROWS), test=datasets.Dataset.from_list([{"id": "t", "prompt": "test"}])
    )
    saved.save_to_disk(tmp_path / "saved")
    wanted = [(row["id"], row["prompt"]) for row in ROWS]
    assert contents(read(f"hf:{tmp_path}/saved?split=train")) == wanted
    assert contents(read(f"hf:{tmp_path}/saved?split=test")) == [("t", "test")]
    with pytest.raises(ValueError, match=r"has the splits train, test; choose one: .*\?split=train"):
        read(tmp_path / "saved")
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(LINES)
    for streaming in ("true", "false"):
        assert contents(read(f"hf:{folder}?streaming={streaming}")) == wanted
    (source,) = find_sources([f"hf:{folder}"], task="generate", fields=PromptFields())
    before = source.state
    (folder / "train.jsonl").write_bytes(LINES + b'{"id": "new", "prompt": "x"}\n')
    assert before is not None and before["split"] == "train" and source.state != before
    for name, message in [
        (f"hf:{folder}?splt=train", "knows no 'splt'"),
        (f"hf:{folder}?streaming=maybe", "must be true or false"),
        (f"hf:{folder}?revision=main", "a folder has no revisions"),
        (f"hf:{tmp_path}/nothing", "no such folder, and the hub gave no such dataset"),
    ]:
        with pytest.raises(ValueError, match=message):
            read(name)


def test_a_hubs_dataset_is_pinned_to_the_commit_it_was_read_in(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets, hub = pytest.importorskip("datasets"), pytest.importorskip("huggingface_hub")
    commits = {None: "b" * 40, "v1": "a" * 40, "a" * 40: "a" * 40}

    class Found:
        def __init__(self, sha: str) -> None:
            self.sha = sha

    # The hub itself is out of reach of a test; what it answers about a revision is all that is replaced.
    monkeypatch.setattr(hub.HfApi, "dataset_info", lambda _, name, revision: Found(commits[revision]))
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_, **__: ["train"])

    def state(name: str, **recorded: Any) -> Any:
        (source,) = find_sources([name], task="generate", fields=PromptFields(), recorded=recorded)
        return source.state

    first = state("hf:owner/name?revision=v1")
    assert first == {"revision": "a" * 40, "config": None, "split": "train"}
    assert state("hf:owner/name")["revision"] == "b" * 40
    assert state("hf:owner/name", **{"hf:owner/name": first})["revision"] == "a" * 40  # main has moved on meanwhile
