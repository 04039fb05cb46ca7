"""What people have their prompts in, as one kind of thing: a source has a name, a state, and rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from labelgen.prompts.hub_dataset import PREFIX, HubDatasetSource
from labelgen.prompts.label_dataset import LabelDatasetSource, is_label_dataset
from labelgen.prompts.prompt import Prompt, Reject, parse_row
from labelgen.prompts.prompt_fields import PromptFields, Task
from labelgen.prompts.row_formats import BadRow, read_json_lines
from labelgen.prompts.source_files import FileSource, find_files, is_saved_dataset
from labelstore.location import check_holds_no_key

__all__ = ["STDIN", "Source", "find_sources", "read_prompts"]

STDIN = "-"


class Source(Protocol):
    """Where prompts come from."""

    @property
    def name(self) -> str: ...
    @property
    def task(self) -> Task: ...
    @property
    def fields(self) -> PromptFields: ...
    @property
    def state(self) -> Mapping[str, Any] | None:
        """What tells that it has not changed since it was read; None where nothing can."""

    def check(self) -> None:
        """Refuse with a ValueError what can be seen to be unreadable."""

    def rows(self) -> Iterator[tuple[int, object]]:
        """Yield (line, row); a BadRow is one that cannot be read, a Prompt is one that is read.

        Raises:
            ValueError: the reading cannot go on.
        """


def find_sources(
    names: Sequence[str],
    *,
    task: Task,
    fields: PromptFields,
    recorded: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Source]:
    """Return the sources that the names stand for, each once and checked: files, folders, patterns, URLs, datasets.

    `recorded` has the states of sources that were read before: a dataset keeps the revision that it was read in.

    Raises:
        ValueError: a source is missing, empty, damaged, or of a kind that this task cannot read.
        ImportError: reading it needs a package that is not installed.
    """
    found: dict[str, Source] = {}
    for name in names:
        check_holds_no_key(name)
        if name == STDIN:
            found[name] = _StdinSource(task=task, fields=fields)
        elif task == "score" and is_label_dataset(name):
            found[name] = LabelDatasetSource(name=name, task=task, fields=fields)
        elif (name.startswith(PREFIX) and "://" not in name) or is_saved_dataset(name):
            found[name] = HubDatasetSource.resolve(name, task=task, fields=fields, recorded=(recorded or {}).get(name))
        else:
            for path in find_files(name, task=task):
                found[path] = FileSource(name=path, task=task, fields=fields)
    for source in found.values():
        source.check()
    return list(found.values())


def read_prompts(source: Source) -> Iterator[Prompt | Reject]:
    """Yield each row of a source as a prompt, or as a reject that says why it is none.

    Raises:
        ValueError: the source cannot be read on.
    """
    name, task, fields = source.name, source.task, source.fields
    for line, row in source.rows():
        if isinstance(row, Prompt):
            yield row
            continue
        if isinstance(row, BadRow):
            yield Reject(source=name, line=line, reason=row.reason)
        else:
            yield parse_row(row, task=task, source=name, line=line, fields=fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class _StdinSource:
    """JSON lines on the standard input; empty when a job goes on is as good."""

    task: Task
    fields: PromptFields
    name: str = STDIN
    state: None = None

    def check(self) -> None:
        """Nothing can be known before it is read."""

    def rows(self) -> Iterator[tuple[int, object]]:
        return read_json_lines(sys.stdin.buffer)
