"""Files as sources: on this machine or behind any URL that fsspec knows, one by one, in folders or by pattern."""

from __future__ import annotations

import contextlib
import glob
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from labelgen.prompts.prompt_fields import PromptFields, Task
from labelgen.prompts.row_formats import read_csv, read_document, read_json_lines, read_parquet

__all__ = ["FileSource", "find_files", "is_saved_dataset"]

_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_LINES = (".jsonl", ".ndjson", ".json")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_TABLES = (".parquet",)
_DOCUMENTS = (".txt", ".md", ".py")
_BUFFER_BYTES = 1 << 18
_GLOB_SIGNS = set("*?[")
# What file systems say of a file that tells when it has changed.
_STATE_KEYS = ("size", "mtime", "created", "ETag", "etag", "LastModified", "last_modified", "updated", "md5", "sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """One file with prompts."""

    name: str  # as the user gave it, or as it stands in the folder that was given
    task: Task
    fields: PromptFields

    @property
    def state(self) -> Mapping[str, Any] | None:
        """What tells that the file has not changed; None where its file system says nothing."""
        if not _is_url(self.name):
            stat = Path(self.name).stat()
            return {"num_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        fs, path = fsspec.url_to_fs(self.name)
        info = fs.info(path)
        state = {key: str(info[key]) for key in _STATE_KEYS if info.get(key) is not None}
        return state if len(state) > 1 else None  # a size alone tells too little

    def rows(self) -> Iterator[tuple[int, object]]:
        """Yield (line, row); see `row_formats`.

        Raises:
            ValueError: the file cannot be read on; what was read before stays.
        """
        line = 0
        try:
            with self._open() as file:
                for line, row in self._read(file):
                    yield line, row
        except (OSError, EOFError, pa.ArrowException, ValueError) as error:
            raise ValueError(f"{self.name}: cannot be read behind line {line} ({error})") from error

    def check(self) -> None:
        """Refuse what can be seen to be no source before anything else starts.

        Raises:
            ValueError: the file is missing, empty, damaged, of an unknown kind, or without a field that is needed.
        """
        kinds = _kinds(self.task)
        if _kind_of(self.name) not in kinds:
            given = Path(self.name).suffix or "nameless"
            raise ValueError(f"{self.name}: cannot tell what is in a {given} file; give {', '.join(kinds)}")
        if _kind_of(self.name) in _TABLES and _compression_of(self.name):
            raise ValueError(f"{self.name}: a Parquet file is compressed inside; unpack it first")
        try:
            with self._open() as file:
                if _kind_of(self.name) in _TABLES:
                    self._check_columns(pq.read_schema(file).names)
                elif not (start := file.read(1)):
                    raise ValueError(f"{self.name}: the file is empty")
                elif start == b"[" and _kind_of(self.name) == ".json":
                    raise ValueError(
                        f"{self.name}: is one JSON array; write a row a line: jq -c '.[]' {self.name} > prompts.jsonl"
                    )
        except FileNotFoundError as error:
            raise ValueError(f"{self.name}: no such file") from error
        except pa.ArrowException as error:
            raise ValueError(f"{self.name}: is not a Parquet file ({error})") from error
        except OSError as error:
            raise ValueError(f"{self.name}: cannot be read ({error})") from error

    def _check_columns(self, names: list[str]) -> None:
        wanted = self.fields.contents(self.task).values()
        if not any(set(fields) <= set(names) for fields in wanted):
            missing = " or ".join(" and ".join(repr(name) for name in fields if name not in names) for fields in wanted)
            option = "--text-field" if self.task == "score" else "--prompt-field"
            raise ValueError(
                f"{self.name}: has no column {missing}; it has {', '.join(map(repr, names))}. "
                f"Name the right one with {option}"
            )

    def _read(self, file: BinaryIO) -> Iterator[tuple[int, object]]:
        kind = _kind_of(self.name)
        if kind in _TABLES:
            return read_parquet(file, columns=self.fields.needed(self.task))
        if kind in _DELIMITERS:
            return read_csv(file, delimiter=_DELIMITERS[kind])
        if kind in _LINES:
            return read_json_lines(file)
        return read_document(file, name=self.name, text_field=self.fields.text or "text")

    @contextlib.contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        compression = _compression_of(self.name)
        with contextlib.ExitStack() as opened:
            if _is_url(self.name):
                fs, path = fsspec.url_to_fs(self.name)
                file = opened.enter_context(fs.open(path, "rb"))
            else:
                file = opened.enter_context(Path(self.name).open("rb"))
            if compression is not None:
                file = opened.enter_context(pa.CompressedInputStream(file, compression))
            # Not all files can read a line of bounded length; buffered, any can.
            yield cast(BinaryIO, file if _kind_of(self.name) in _TABLES else io.BufferedReader(file, _BUFFER_BYTES))


def find_files(name: str, *, task: Task) -> list[str]:
    """Return the files that a path, folder, pattern or URL stands for, sorted; those of a folder by their kind.

    Raises:
        ValueError: nothing is there.
        ImportError: the URL's file system needs a package; the message names it.
    """
    if _is_url(name):
        fs, path = fsspec.url_to_fs(name)
        if _is_pattern(name):
            found = [fs.unstrip_protocol(match) for match in fs.glob(path)]
        elif name.startswith(("http:", "https:")) or not fs.isdir(path):
            return [name]
        else:
            found = _readable([fs.unstrip_protocol(match) for match in fs.find(path)], task)
    elif Path(name).is_dir():
        paths = (path for path in Path(name).rglob("*") if path.is_file())
        found = _readable([str(path) for path in paths if not _is_hidden(path.relative_to(name))], task)
    elif _is_pattern(name) and not Path(name).exists():
        found = [path for path in glob.glob(name, recursive=True) if Path(path).is_file()]  # noqa: PTH207 - keeps the spelling
    else:
        return [name]
    if not found:
        what = "no file matches" if _is_pattern(name) else f"the folder has none of {', '.join(_kinds(task))}"
        raise ValueError(f"{name}: {what}")
    return sorted(found)


def is_saved_dataset(name: str) -> bool:
    """Return whether a folder is what `datasets` wrote with save_to_disk."""
    path = Path(name)
    return (path / "dataset_dict.json").is_file() or (
        (path / "dataset_info.json").is_file() and (path / "state.json").is_file()
    )


def _readable(names: list[str], task: Task) -> list[str]:
    return [name for name in names if _kind_of(name) in _kinds(task)]


def _kinds(task: Task) -> tuple[str, ...]:
    return _LINES + tuple(_DELIMITERS) + _TABLES + (_DOCUMENTS if task == "score" else ())


def _kind_of(name: str) -> str:
    path = Path(name.split("?", 1)[0] if _is_url(name) else name)
    return Path(path.stem).suffix.lower() if path.suffix in _COMPRESSIONS else path.suffix.lower()


def _compression_of(name: str) -> str | None:
    return _COMPRESSIONS.get(Path(name.split("?", 1)[0] if _is_url(name) else name).suffix)


def _is_url(name: str) -> bool:
    return "://" in name


def _is_pattern(name: str) -> bool:
    is_http = name.startswith(("http:", "https:"))  # there, ? begins a query
    return not is_http and bool(_GLOB_SIGNS & set(name))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
