"""Another try for what was rejected: the sources are read again, and prompts without a record get a new block."""

from __future__ import annotations

from labelgen.prompts.prompt import Prompt
from labelgen.prompts.rejects import RejectLog
from labelgen.prompts.snapshot import PromptSnapshot
from labelstore.dataset_writer import DatasetWriter
from labelstore.entry import Entry
from labelstore.shard_reader import ShardReader

__all__ = ["retry_rejected"]


def retry_rejected(snapshot: PromptSnapshot, writer: DatasetWriter, rejects: RejectLog, *, block_size: int) -> int:
    """Prepare the next try; return how many prompts stand in new blocks.

    Rows are tried again as their sources are read again; with other options, they may be prompts now. A prompt of
    which some responses were refused and others not is left as it is. Killed and repeated, it prepares nothing twice.

    Raises:
        DamagedDatasetError: a published block with rejects does not read.
    """
    with_record: set[str] = set()
    waiting: set[str] = set()
    without: dict[str, Prompt] = {}
    for block in snapshot.blocks:
        entry = writer.entries.get(block)
        prompts = snapshot.read_block(block)
        if entry is None:
            waiting.update(prompt.prompt_id for prompt in prompts)
        elif entry.num_rejected == 0:
            with_record.update(without.keys() & {prompt.prompt_id for prompt in prompts})
        else:
            recorded = _prompts_with_record(writer, entry)
            with_record |= recorded
            without |= {prompt.prompt_id: prompt for prompt in prompts if prompt.prompt_id not in recorded}
    again = [prompt for name, prompt in without.items() if name not in with_record and name not in waiting]
    snapshot.add_blocks(again, block_size=block_size)
    snapshot.forget_sources()
    rejects.forget(prompt.prompt_id for prompt in again)
    return len(again)


def _prompts_with_record(writer: DatasetWriter, entry: Entry) -> set[str]:
    found: set[str] = set()
    for shard in entry.shards:
        reader = ShardReader(writer.store, shard)
        for index in range(reader.num_row_groups):
            found.update(reader.hard_columns(index, ["prompt_id"]).column(0).to_pylist())
    return found
