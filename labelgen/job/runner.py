"""Carries a run through. The one file that sees prompts, teacher and dataset."""

from __future__ import annotations

import concurrent.futures
import itertools
import time
from pathlib import Path
from typing import Any

import labelgen
from labelgen.job.blocks import BlockCollector, CompleteBlock
from labelgen.job.fingerprint import fingerprint_fields
from labelgen.job.progress import NullWatcher, RunProgress, RunSummary, RunWatcher
from labelgen.job.requests import PromptRequests
from labelgen.job.spec import RunSpec
from labelgen.prompts.rejects import REJECTED_NAME, RejectLog
from labelgen.prompts.snapshot import Ingest, PromptSnapshot
from labelgen.prompts.sources import find_sources
from labelgen.teachers.teacher import Teacher
from labelstore.codecs import codec_named
from labelstore.dataset_writer import DatasetWriter, check_folder, utc_now
from labelstore.entry import total_counts
from labelstore.header import Header

__all__ = ["Job", "run"]

ENGINE_LOG = ".labelgen/logs/engine.log"
_LOW_KEPT_MASS = 0.8


def run(spec: RunSpec, *, teacher: Teacher | None = None, watcher: RunWatcher | None = None) -> RunSummary:
    """Label what a spec describes and return what came of it.

    Run again, it goes on with what is missing; finished, it does nothing. `teacher` takes the place of the one that
    the spec names, and is left open.

    Raises:
        ValueError: the spec asks for what cannot be: a missing source, no such model, top-k above the vocabulary.
        ImportError: the engine is not installed.
        StorageError: the output folder holds something else, other settings' labels, or damage.
        EngineError: the engine did not start, or gave what labels must not be made of.
    """
    return Job(spec, teacher=teacher).run(watcher or NullWatcher())


class Job:
    """A run that has been checked: its sources are there, its teacher is known, its folder is free or its own."""

    def __init__(self, spec: RunSpec, *, teacher: Teacher | None = None) -> None:
        """Check everything that can be checked without starting the engine or writing a file.

        Raises:
            ValueError, ImportError, StorageError: as `run`.
        """
        self._spec = spec
        check_folder(spec.output_dir)
        self._sources = find_sources(
            spec.sources,
            task=spec.task,
            fields=spec.fields,
            recorded=PromptSnapshot(spec.output_dir).recorded_sources,
        )
        self._owns_teacher = teacher is None
        self._teacher: Teacher = teacher or _load_teacher(spec)
        if self._teacher.selection != spec.selection:
            raise ValueError(f"the teacher captures {self._teacher.selection}, the spec asks for {spec.selection}")
        self._facts = self._teacher.facts
        sampling, self._sampling_origins = spec.sampling.resolve(self._facts.sampling_defaults)
        self._requests = PromptRequests(
            spec=spec, facts=self._facts, tokenizer=self._teacher.tokenizer, sampling=sampling
        )
        self._header = Header(
            task=spec.task,
            teacher=spec.teacher,
            vocab_size=self._facts.vocab_size,
            selection=spec.selection,
            fingerprint_fields=fingerprint_fields(spec, self._facts, sampling),
            labelgen_version=labelgen.__version__,
            created_at=utc_now(),
        )

    def run(self, watcher: RunWatcher) -> RunSummary:
        """Do it; see `run`."""
        spec, root = self._spec, self._spec.output_dir
        writer = DatasetWriter(root, self._header, codec=codec_named(spec.codec))
        rejects = RejectLog(writer.store)
        snapshot = PromptSnapshot(root)
        ingest = snapshot.ingest(
            self._sources,
            block_size=spec.block_size,
            limit=spec.limit,
            sample=spec.sample,
            rejects=rejects,
            max_rejects=spec.max_rejects,
        )
        blocks = snapshot.blocks
        if not blocks:
            raise ValueError(f"no prompts in {', '.join(spec.sources)}: {_why_none(ingest, root)}")
        missing = [block for block in blocks if block not in writer.entries]
        self._check_chats(snapshot, missing)
        for note in self._notes(writer, ingest, missing):
            watcher.note(note)
        labelling = _Labelling(self, snapshot, missing, writer, rejects, watcher)
        try:
            if missing:
                labelling.run()
        finally:
            if self._owns_teacher:
                self._teacher.close()
        manifest, orphans = writer.finish()
        if orphans:
            watcher.note(f"moved {len(orphans)} files that a killed job left in data/ to .labelgen/orphans/")
        counts = total_counts(manifest.entries)
        return RunSummary(
            output_dir=root,
            counts=counts,
            num_bytes=sum(shard.num_bytes for entry in manifest.entries for shard in entry.shards),
            num_new_labels=labelling.num_labels,
            num_new_records=labelling.num_records,
            num_rejected=len(rejects),
            num_duplicates=ingest.num_duplicates,
            seconds=labelling.seconds,
            notes=tuple(self._warnings(snapshot, manifest_counts=counts, blocks=blocks)),
        )

    def _check_chats(self, snapshot: PromptSnapshot, missing: list[str]) -> None:
        """Refuse a prompt set of chats for a teacher without a chat template: every row would be rejected."""
        if not missing or self._teacher.tokenizer.has_chat_template:
            return
        if all(prompt.messages is not None for prompt in snapshot.read_block(missing[0])):
            raise ValueError(
                f"the prompts are chats, and --teacher {self._spec.teacher} has no chat template; "
                f"give 'prompt' rows, or a teacher that was trained to chat"
            )

    @property
    def teacher(self) -> Teacher:
        return self._teacher

    @property
    def requests(self) -> PromptRequests:
        return self._requests

    @property
    def recorded(self) -> dict[str, Any]:
        """What each block's entry says of how it was made."""
        recorded = {"labelgen_version": labelgen.__version__, **self._facts.recorded}
        if self._spec.task == "generate":
            recorded["responses"] = self._spec.responses
            recorded["sampling_origins"] = self._sampling_origins
            recorded["stop_id_origins"] = {str(i): origin for i, origin in self._facts.stop_ids.items()}
        return recorded

    def _notes(self, writer: DatasetWriter, ingest: Ingest, missing: list[str]) -> list[str]:
        notes = []
        if not missing:
            notes.append("everything is labelled already; nothing to do")
        elif writer.entries:
            notes.append(f"{len(writer.entries)} blocks are labelled already; going on with {len(missing)}")
        if ingest.num_duplicates:
            notes.append(f"{ingest.num_duplicates:,} rows are in the snapshot already and are not labelled twice")
        if ingest.num_rejected:
            notes.append(f"{ingest.num_rejected:,} rows are rejected; the reasons are in {REJECTED_NAME}")
        if missing:
            notes.extend(self._facts.notes)
        recorded = self.recorded
        for entry in writer.entries.values():
            changed = [
                name for name, value in recorded.items() if name in entry.recorded and entry.recorded[name] != value
            ]
            if changed:
                changes = ", ".join(f"{name}: {entry.recorded[name]}, now {recorded[name]}" for name in changed)
                notes.append(f"blocks labelled before were made otherwise ({changes}); they stay as they are")
                break
        return notes

    def _warnings(self, snapshot: PromptSnapshot, *, manifest_counts: Any, blocks: list[str]) -> list[str]:
        warnings = []
        finished = sum(manifest_counts.finish_reasons.values())
        truncated = manifest_counts.finish_reasons.get("length", 0)
        if truncated * 10 > finished > 0:
            warnings.append(
                f"{truncated:,} of {finished:,} responses ({truncated / finished:.0%}) were cut at --max-tokens"
            )
        if manifest_counts.num_labels and manifest_counts.kept_mass_sum / manifest_counts.num_labels < _LOW_KEPT_MASS:
            warnings.append(
                "the candidates keep little of the teacher's distribution; a larger --top-k or --keep-mass keeps more"
            )
        has_plain = any(prompt.prompt is not None for prompt in snapshot.read_block(blocks[0])[:1])
        if has_plain and self._teacher.tokenizer.has_chat_template:
            warnings.append("'prompt' rows go to the teacher as plain text; its chat template takes 'messages' rows")
        return warnings


class _Labelling:
    """The labelling of some blocks: the teacher works, complete blocks are encoded and written in a thread beside."""

    def __init__(
        self,
        job: Job,
        snapshot: PromptSnapshot,
        blocks: list[str],
        writer: DatasetWriter,
        rejects: RejectLog,
        watcher: RunWatcher,
    ) -> None:
        self._job = job
        self._collector = BlockCollector(snapshot, blocks, job.requests)
        self._total_prompts = sum(snapshot.num_prompts(block) for block in blocks)
        self._writer = writer
        self._rejects = rejects
        self._watcher = watcher
        self.num_records = 0
        self.num_labels = 0
        self.seconds = 0.0

    def run(self) -> None:
        num_requests = 0
        requests = self._collector.requests()
        first = next(requests, None)
        if first is not None:  # where every prompt is rejected, no engine is started
            self._job.teacher.start()
            requests = itertools.chain([first], requests)
        started = time.monotonic()
        writing: concurrent.futures.Future[None] | None = None
        with concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="labelgen-writer") as pool:
            for answer in self._job.teacher.label(requests):
                record = self._collector.take(answer)
                num_requests += 1
                if record is not None:
                    self.num_records += 1
                    self.num_labels += len(record.labels)
                self.seconds = time.monotonic() - started
                if writing is not None and writing.done():
                    writing.result()  # a failed write ends the job now, not when the next block is complete
                    writing = None
                for block in self._collector.take_complete():
                    if writing is not None:
                        writing.result()  # one block at a time is written: memory stays bounded, failures surface
                    writing = pool.submit(self._publish, block)
                self._report(num_requests)
            for block in self._collector.take_complete():  # blocks of rejects only
                if writing is not None:
                    writing.result()
                writing = pool.submit(self._publish, block)
            if writing is not None:
                writing.result()

    def _publish(self, block: CompleteBlock) -> None:
        for reject in block.rejects:
            self._rejects.add(reject)
        was_first = self._writer.publish_block(
            block.block,
            block.records,
            num_prompts=block.num_prompts,
            num_rejected=block.num_rejected,
            recorded=self._job.recorded,
        )
        if not was_first:
            self._watcher.note(f"block {block.block} was published by another job first; this one's copy is dropped")

    def _report(self, num_requests: int) -> None:
        self._watcher.advance(
            RunProgress(
                num_requests=num_requests,
                num_prompts=self._collector.num_prompts_drawn,
                total_prompts=self._total_prompts,
                num_labels=self.num_labels,
                num_rejected=self._collector.num_rejected,
                seconds=self.seconds,
            )
        )


def _load_teacher(spec: RunSpec) -> Teacher:
    from labelgen.teachers.vllm_teacher import VLLMTeacher

    return VLLMTeacher(
        spec.teacher,
        selection=spec.selection,
        settings=spec.engine,
        log_path=spec.output_dir / ENGINE_LOG,
        for_scoring=spec.task == "score",
        chat_template=spec.chat_template,
    )


def _why_none(ingest: Ingest, root: Path) -> str:
    if ingest.num_rejected:
        return f"all {ingest.num_rejected:,} rows are rejected; the reasons are in {root / REJECTED_NAME}"
    if ingest.num_unchanged_sources:
        return f"they have not changed since all their rows were rejected; see {root / REJECTED_NAME}"
    return "there are no rows"
