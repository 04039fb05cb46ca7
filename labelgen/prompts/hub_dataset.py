"""A dataset of the `datasets` library as a source: from a hub, in a folder, or saved with save_to_disk."""

from __future__ import annotations

import hashlib
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelgen.prompts.prompt_fields import PromptFields, Task
from labelgen.prompts.row_formats import without_nulls
from labelgen.prompts.source_files import is_saved_dataset

__all__ = ["PREFIX", "HubDatasetSource"]

PREFIX = "hf:"
_PARAMETERS = ("config", "split", "revision", "streaming")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubDatasetSource:
    """One split of a dataset; a hub's is pinned to a commit."""

    name: str  # as the user gave it: hf:owner/name?config=..&split=..&revision=..&streaming=..
    task: Task
    fields: PromptFields
    location: str  # hub name or folder
    config: str | None
    split: str
    revision: str | None  # the commit of a hub's dataset; None for a folder
    streaming: bool

    @classmethod
    def resolve(
        cls, name: str, *, task: Task, fields: PromptFields, recorded: Mapping[str, Any] | None = None
    ) -> HubDatasetSource:
        """Look a dataset up. Without a revision of its own, the one recorded when it was read first is used again.

        Raises:
            ImportError: the `datasets` library is missing.
            ValueError: a parameter is unknown, or there is no such dataset, revision, configuration or split.
        """
        location, _, query = name.removeprefix(PREFIX).partition("?")
        given = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        unknown = [parameter for parameter in given if parameter not in _PARAMETERS]
        if unknown:
            raise ValueError(f"{name}: knows no {unknown[0]!r}; there are {', '.join(_PARAMETERS)}")
        streaming = given.get("streaming", "true").lower()
        if streaming not in ("true", "false"):
            raise ValueError(f"{name}: streaming must be true or false, got {streaming!r}")
        _require_datasets(name)
        is_local = Path(location).is_dir()
        revision = None
        if not is_local:
            revision = _commit_of(name, location, given.get("revision") or (recorded or {}).get("revision"))
        elif "revision" in given:
            raise ValueError(f"{name}: a folder has no revisions")
        config = given.get("config")
        return cls(
            name=name,
            task=task,
            fields=fields,
            location=location,
            config=config,
            split=given.get("split") or _only_split(name, location, config, revision),
            revision=revision,
            streaming=streaming == "true",
        )

    @property
    def state(self) -> Mapping[str, Any]:
        """What tells that the dataset has not changed: its commit, or its files' sizes and times."""
        chosen = {"config": self.config, "split": self.split}
        if self.revision is not None:
            return {"revision": self.revision, **chosen}
        paths = sorted(path for path in Path(self.location).rglob("*") if path.is_file())
        stats = [(str(path.relative_to(self.location)), path.stat()) for path in paths]
        listing = repr([(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats])
        return {"files": hashlib.sha256(listing.encode()).hexdigest(), **chosen}

    def check(self) -> None:
        """All is checked when it is resolved."""

    def rows(self) -> Iterator[tuple[int, object]]:
        """Yield (row number from 1, row).

        Raises:
            ValueError: the dataset cannot be read on.
        """
        line = 0
        try:
            for row in self._load():
                line += 1
                yield line, without_nulls(dict(row))
        except Exception as error:  # a hub's reader raises what its many libraries raise
            raise ValueError(f"{self.name}: cannot be read behind row {line} ({_first_line(error)})") from error

    def _load(self) -> Any:
        import datasets

        if is_saved_dataset(self.location):
            saved = datasets.load_from_disk(self.location)
            return saved[self.split] if isinstance(saved, datasets.DatasetDict) else saved
        return datasets.load_dataset(
            self.location, self.config, split=self.split, revision=self.revision, streaming=self.streaming
        )


def _commit_of(name: str, location: str, revision: str | None) -> str:
    """Return the commit that a revision stands for: a branch may move while a job runs for a week."""
    import huggingface_hub

    try:
        return str(huggingface_hub.HfApi().dataset_info(location, revision=revision).sha)
    except Exception as error:  # not found, not allowed, no network: each library has its own
        raise ValueError(f"{name}: no such folder, and the hub gave no such dataset ({_first_line(error)})") from error


def _only_split(name: str, location: str, config: str | None, revision: str | None) -> str:
    import datasets

    try:
        if is_saved_dataset(location):
            saved = datasets.load_from_disk(location)
            splits = list(saved) if isinstance(saved, datasets.DatasetDict) else [str(saved.split or "train")]
        else:
            splits = datasets.get_dataset_split_names(location, config, revision=revision)
    except Exception as error:
        raise ValueError(f"{name}: cannot be opened ({_first_line(error)})") from error
    if len(splits) != 1:
        raise ValueError(
            f"{name}: has the splits {', '.join(splits)}; choose one: {name}{_joint(name)}split={splits[0]}"
        )
    return str(splits[0])


def _require_datasets(name: str) -> None:
    try:
        import datasets  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{name}: needs the datasets library: pip install 'labelgen[datasets]'") from error


def _joint(name: str) -> str:
    return "&" if "?" in name else "?"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
