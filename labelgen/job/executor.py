"""Labels blocks: claims one, runs it, publishes it. Whoever hands the blocks out, it is done in this one way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from labelgen.job.blocks import BlockCollector
from labelgen.job.labelling import Labelling
from labelgen.job.progress import RunWatcher
from labelgen.job.publisher import BlockPublisher
from labelgen.job.setup import JobSetup
from labelgen.job.suspects import SuspectFinder
from labelgen.prompts.rejects import RejectLog
from labelgen.prompts.snapshot import PromptSnapshot
from labelgen.teachers.teacher import Teacher
from labelstore.codecs import codec_named
from labelstore.dataset_writer import DatasetWriter
from labelstore.journal import Journal
from labelstore.location import Location

__all__ = ["Executor"]


class Executor:
    """A dataset's folder, open for labelling its blocks."""

    def __init__(self, setup: JobSetup) -> None:
        """Open the folder of the setup's spec, or begin it.

        Raises:
            StorageError: the folder holds something else, other settings' labels, or damage.
        """
        self._setup = setup
        self._spec = spec = setup.requests.spec
        self.writer = DatasetWriter(
            spec.output_dir,
            setup.header,
            codec=codec_named(spec.codec),
            is_begun=self.new_journal().has_segments,
            holds=self.holds,
        )
        self.rejects = RejectLog(self.writer.store)
        self.snapshot = PromptSnapshot(spec.output_dir)

    def holds(self, block: str) -> bool:
        """Is a block in the part that this job labels?"""
        part = self._spec.part
        return part is None or part.holds(block)

    def new_journal(self) -> Journal:
        """Return the journal of one labelling."""
        spec = self._spec
        return Journal(
            _journal_place(spec.output_dir, spec.journal_dir),
            fingerprint=self._setup.header.fingerprint,
            flush_seconds=spec.flush_seconds,
        )

    def labelling(
        self,
        teacher: Teacher,
        blocks: Iterable[str],
        journal: Journal,
        watcher: RunWatcher,
        *,
        total_prompts: int,
        before_group: Callable[[], None],
    ) -> Labelling:
        """Return the labelling of some blocks, which are drawn one by one when the teacher has room."""
        return Labelling(
            teacher,
            BlockCollector(self.snapshot, blocks, self._setup.requests, journal, max_rejects=self._spec.max_rejects),
            BlockPublisher(
                self.writer, journal, self.snapshot, self.rejects, recorded=self._setup.recorded, note=watcher.note
            ),
            journal,
            SuspectFinder(teacher, note=watcher.note, before_group=before_group),
            watcher,
            total_prompts=total_prompts,
        )


def _journal_place(output: Location, journal_dir: Path | None) -> Location:
    """Return where the journal is: in the dataset, or in a folder of this dataset's own below --journal-dir."""
    if journal_dir is None:
        return output
    place = str(output.absolute()) if isinstance(output, Path) else output
    return journal_dir / f"{place.rsplit('/', 1)[-1]}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
