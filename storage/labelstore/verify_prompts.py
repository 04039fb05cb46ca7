"""Checks what stands beside the labels: the snapshot of the prompts, the record of its sources, the rejects."""

from __future__ import annotations

from collections.abc import Iterator

from labelstore.entry import Entry
from labelstore.errors import DamagedDatasetError
from labelstore.finding import Finding
from labelstore.manifest import Manifest
from labelstore.prompt_files import PROMPTS_DIR, SOURCES_NAME, block_of_prompts, prompts_name
from labelstore.reject_log import find_reject_damage
from labelstore.sealed_json import unseal
from labelstore.sealed_parquet import read_sealed_table
from labelstore.store import ReadableStore, read_if_there

__all__ = ["SnapshotCheck"]


class SnapshotCheck:
    """The snapshot of a dataset, if it has one, beside its labels."""

    def __init__(self, store: ReadableStore, contents: Manifest) -> None:
        self._store = store
        self._contents = contents
        self._names = store.names(PROMPTS_DIR)
        self._blocks = {block for name in self._names if (block := block_of_prompts(name)) is not None}

    def check_block(self, entry: Entry, prompt_ids: set[str]) -> Iterator[Finding]:
        """Compare a block's prompts with the labels made of them: `prompt_ids` are those of its records."""
        if entry.block not in self._blocks:
            if self._blocks:
                yield Finding(
                    file=prompts_name(entry.block),
                    message="the prompts of a block with labels are missing from the snapshot",
                )
            return
        try:
            known = set(read_sealed_table(self._store, prompts_name(entry.block), columns=["prompt_id"])[0].to_pylist())
        except DamagedDatasetError as error:
            yield Finding(file=prompts_name(entry.block), message=str(error))
            return
        if len(known) != entry.num_prompts:
            yield Finding(
                file=prompts_name(entry.block),
                message=f"holds {len(known)} prompts, the block's entry says {entry.num_prompts}",
            )
        if strangers := sorted(prompt_ids - known):
            yield Finding(
                file=prompts_name(entry.block), message=f"labels of the block are of another prompt, {strangers[0]!r}"
            )

    def check_rest(self) -> Iterator[Finding]:
        """Check blocks without labels, foreign files, the record of sources and the rejects."""
        labelled = {entry.block for entry in self._contents.entries}
        for name in self._names:
            if (block := block_of_prompts(name)) is None:
                yield Finding(file=name, message="is no block of the snapshot; move it away")
            elif block not in labelled:
                try:
                    read_sealed_table(self._store, name, columns=["prompt_id"])
                except DamagedDatasetError as error:
                    yield Finding(file=name, message=str(error))
        yield from self._check_sources()
        yield from self._check_rejects()

    def _check_sources(self) -> Iterator[Finding]:
        if (data := read_if_there(self._store, SOURCES_NAME)) is None:
            return
        try:
            content = unseal(data, origin=f"{self._store}/{SOURCES_NAME}")
        except DamagedDatasetError as error:
            yield Finding(file=SOURCES_NAME, message=f"{error}; the next job reads all sources again")
            return
        if not isinstance(content.get("sources"), dict):
            yield Finding(file=SOURCES_NAME, message="does not say which sources were read")
        if (wanted := content.get("num_blocks", 0)) > len(self._blocks):
            yield Finding(file=f"{PROMPTS_DIR}/", message=f"has {len(self._blocks)} blocks, {wanted} were written")

    def _check_rejects(self) -> Iterator[Finding]:
        for name, message in find_reject_damage(self._store):
            yield Finding(file=name, message=message)
