"""Carries a run through. The one file that sees prompts, teacher and dataset."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import labelgen
from labelgen.job.blocks import BlockCollector
from labelgen.job.concerns import find_concerns
from labelgen.job.fingerprint import fingerprint_fields
from labelgen.job.job_options import job_file_bytes
from labelgen.job.labelling import Labelling
from labelgen.job.predecessors import Predecessors, find_predecessors
from labelgen.job.preview import JobPreview, make_preview
from labelgen.job.progress import NullWatcher, RunSummary, RunWatcher
from labelgen.job.publisher import BlockPublisher
from labelgen.job.pulse import Pulse
from labelgen.job.requests import PromptRequests
from labelgen.job.retry import retry_rejected
from labelgen.job.spec import RunSpec
from labelgen.job.stopping import JobStoppedError, StoppedError, StopSignals
from labelgen.job.suspects import SuspectFinder
from labelgen.prompts.label_dataset import LabelDatasetSource
from labelgen.prompts.prompt import Prompt
from labelgen.prompts.rejects import RejectLog
from labelgen.prompts.snapshot import Ingest, PromptSnapshot
from labelgen.prompts.sources import find_sources
from labelgen.prompts.thinking import find_think_tokens
from labelgen.prompts.token_spans import kinds_of
from labelgen.rescore.at_end import rescore_at_end
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.teacher import EngineError, Teacher
from labelstore.codecs import codec_named
from labelstore.dataset_writer import DatasetWriter, check_folder, utc_now
from labelstore.entry import total_counts
from labelstore.header import Header
from labelstore.journal import Journal, Recovery
from labelstore.location import Location
from labelstore.reject_log import REJECTED_DIR
from labelstore.rescored import Rescored
from labelstore.store import open_writable_store, update

__all__ = ["Job", "run"]

ENGINE_LOG = ".labelgen/logs/engine.log"
JOB_NAME = ".labelgen/job.yaml"


def run(
    spec: RunSpec,
    *,
    teacher: Teacher | None = None,
    watcher: RunWatcher | None = None,
    stop: StopSignals | None = None,
) -> RunSummary:
    """Label what a spec describes and return what came of it.

    Run again, it goes on with what is missing; finished, it does nothing. `teacher` takes the place of the one that
    the spec names, and is left open. Signals are taken where an entered `stop` is given; without one, Ctrl-C is a
    KeyboardInterrupt as in any Python program, and what was done is on disk then too.

    Raises:
        ValueError: the spec asks for what cannot be: a missing source, no such model, top-k above the vocabulary.
        ImportError: the engine is not installed.
        StorageError: the output folder holds something else, other settings' labels, or damage.
        EngineError: the engine did not start, or gave what labels must not be made of.
        JobStoppedError: a signal told the job to stop.
    """
    return Job(spec, teacher=teacher).run(watcher or NullWatcher(), stop=stop)


class Job:
    """A run that has been checked: its sources are there, its teacher is known, its folder is free or its own."""

    def __init__(self, spec: RunSpec, *, teacher: Teacher | None = None) -> None:
        """Check everything that can be checked without starting the engine or writing a file.

        Raises:
            ValueError, ImportError, StorageError: as `run`.
        """
        self._spec = spec
        self._store = open_writable_store(spec.output_dir)
        check_folder(self._store)
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
        self._datasets = [source for source in self._sources if isinstance(source, LabelDatasetSource)]
        for dataset in self._datasets:
            dataset.check_tokenizer(self._facts.fingerprint_fields)
        sampling, self._sampling_origins = spec.sampling.resolve(self._facts.sampling_defaults)
        if spec.task == "generate":
            self._teacher.check_sampling(sampling)
        self._sampling = sampling
        think_tokens = find_think_tokens(self._teacher.tokenizer, spec.think_tokens)
        self._requests = PromptRequests(
            spec=spec,
            facts=self._facts,
            tokenizer=self._teacher.tokenizer,
            sampling=sampling,
            think_tokens=think_tokens,
        )
        self._header = Header(
            task=spec.task,
            teacher=spec.teacher,
            vocab_size=self._facts.vocab_size,
            selection=spec.selection,
            fingerprint_fields=fingerprint_fields(spec, self._facts, sampling, think_tokens=think_tokens),
            labelgen_version=labelgen.__version__,
            created_at=utc_now(),
        )

    def preview(self) -> JobPreview:
        """Return what the job would do, without starting the engine or writing a file."""
        try:
            return make_preview(self._requests, self._sources)
        finally:
            if self._owns_teacher:
                self._teacher.close()

    def run(self, watcher: RunWatcher, *, stop: StopSignals | None = None) -> RunSummary:
        """Do it; see `run`."""
        stop = stop or StopSignals()
        predecessors = find_predecessors(self._store)
        with Pulse(self._store, predecessors) as pulse:
            try:
                return self._run(watcher, stop, predecessors, pulse)
            except StoppedError:
                raise self._stopped(stop, pulse) from None
            finally:
                if self._owns_teacher:
                    self._teacher.close()

    def _run(self, watcher: RunWatcher, stop: StopSignals, predecessors: Predecessors, pulse: Pulse) -> RunSummary:
        spec, root = self._spec, self._spec.output_dir
        with stop.interruptible():
            self._store.make_ready()
            journal = Journal(
                self._journal_place(), fingerprint=self._header.fingerprint, flush_seconds=spec.flush_seconds
            )
            writer = DatasetWriter(root, self._header, codec=codec_named(spec.codec), is_begun=journal.has_segments)
            rejects = RejectLog(writer.store)
            update(writer.store, JOB_NAME, job_file_bytes(spec))
            snapshot = PromptSnapshot(root)
            if spec.retry_rejected:
                num_again = retry_rejected(snapshot, writer, rejects, block_size=spec.block_size)
                watcher.note(f"{num_again:,} rejected prompts are tried again, and all rows of the sources")
            ingest = self._ingest(snapshot, rejects, watcher)
            blocks = snapshot.blocks
            missing = [block for block in blocks if block not in writer.entries]
            if missing:
                self._check_prompts(snapshot.read_block(missing[0]))
            recovery = journal.recover(
                {block: snapshot.block_sha256(block) for block in journal.segment_blocks if block in missing},
                published=writer.entries,
            )
            num_records = total_counts(writer.entries.values()).num_records + recovery.num_records
        for note in self._notes(writer, ingest, missing, recovery):
            watcher.note(note)
        if missing and self._owns_teacher:
            watcher.note(f"the engine's log is {self._store.local_dir / ENGINE_LOG}")
        for note in predecessors.notes(num_records=num_records) if missing else ():
            watcher.note(note)
        finder = SuspectFinder(self._teacher, note=watcher.note, before_group=pulse.beat)
        labelling = Labelling(
            self._teacher,
            BlockCollector(snapshot, missing, self._requests, journal, max_rejects=spec.max_rejects),
            BlockPublisher(writer, journal, snapshot, rejects, recorded=self.recorded, note=watcher.note),
            journal,
            finder,
            watcher,
            total_prompts=sum(snapshot.num_prompts(block) for block in missing),
        )
        if missing:
            pulse.follow(labelling, finder, num_prompts_before=_num_prompts(writer), num_records_before=num_records)
            labelling.run(predecessors, stop)
        rescored: Rescored | None = None
        if labelling.num_records and spec.rescore_at_end:
            with stop.interruptible():
                rescored = self._rescore(writer, watcher)
        with stop.interruptible():
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
            notes=tuple(
                find_concerns(
                    counts,
                    num_new_records=labelling.num_records,
                    num_looping=labelling.num_looping,
                    asks_plain=self._asks_plain(snapshot, blocks),
                )
            ),
            rescored=rescored,
        )

    def _ingest(self, snapshot: PromptSnapshot, rejects: RejectLog, watcher: RunWatcher) -> Ingest:
        spec = self._spec
        ingest = snapshot.ingest(
            self._sources,
            block_size=spec.block_size,
            limit=spec.limit,
            sample=spec.sample,
            rejects=rejects,
            max_rejects=spec.max_rejects,
            watch=lambda read: watcher.stage(f"reading prompts: {read.num_rows:,} rows, {read.num_new:,} new"),
        )
        if not snapshot.blocks:
            raise ValueError(f"no prompts in {', '.join(spec.sources)}: {_why_none(ingest, spec.output_dir)}")
        return ingest

    def _journal_place(self) -> Location:
        """Return where the journal is: in the dataset, or in a folder of this dataset's own below --journal-dir."""
        if self._spec.journal_dir is None:
            return self._spec.output_dir
        output = self._spec.output_dir
        place = str(output.absolute()) if isinstance(output, Path) else output
        return self._spec.journal_dir / f"{place.rsplit('/', 1)[-1]}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"

    def _stopped(self, stop: StopSignals, pulse: Pulse) -> JobStoppedError:
        """Return what a stopped job says: what is done, and how to go on."""
        beat = pulse.stop()
        done = (
            f"{beat.done_prompts:,} of {beat.total_prompts:,} prompts are done" if beat.total_prompts else "no labels"
        )
        in_flight = f"; {len(beat.in_flight):,} responses in flight are given up" if beat.in_flight else ""
        return stop.error(
            f"{done}, {beat.num_labels:,} labels by this job, all of them on disk in {self._spec.output_dir}{in_flight}"
        )

    def _rescore(self, writer: DatasetWriter, watcher: RunWatcher) -> Rescored | None:
        """Let the teacher read records again; that it cannot costs no label."""
        try:
            return rescore_at_end(writer.store, self._teacher, num_records=self._spec.rescore_at_end)
        except EngineError as error:
            watcher.note(f"all is labelled, but the teacher could not read records again: {error}")
            return None

    def _check_prompts(self, prompts: list[Prompt]) -> None:
        """Refuse a prompt set of which every row would be rejected, as far as a block's first rows can tell."""
        is_chat = [prompt.messages is not None and not prompt.sequences for prompt in prompts]
        if all(is_chat) and not self._teacher.tokenizer.has_chat_template:
            raise ValueError(
                f"the prompts are chats, and --teacher {self._spec.teacher} has no chat template; "
                f"give 'prompt' rows, or a teacher that was trained to chat"
            )
        if self._spec.task == "score" and self._spec.label_spans != "all":
            wanted = kinds_of(self._spec.label_spans)
            if not any(set(wanted) & prompt.scored_kinds for prompt in prompts):
                found = sorted({kind for prompt in prompts for kind in prompt.scored_kinds})
                raise ValueError(
                    f"--label-spans {self._spec.label_spans} labels {', '.join(wanted)}, and what is to be scored has "
                    f"only {', '.join(found)}"
                )

    @property
    def recorded(self) -> dict[str, Any]:
        """What each block's entry says of how it was made."""
        recorded = {"labelgen_version": labelgen.__version__, **self._facts.recorded}
        if self._datasets:
            recorded["scored_datasets"] = [
                {"location": dataset.name, "fingerprint": dataset.header.fingerprint, "teacher": dataset.header.teacher}
                for dataset in self._datasets
            ]
        if self._spec.task == "generate":
            recorded["responses"] = self._spec.responses
            recorded["sampling_origins"] = self._sampling_origins
            origins = {**dict.fromkeys(self._sampling.stop_ids, "option"), **self._facts.stop_ids}
            recorded["stop_id_origins"] = {str(token_id): origins[token_id] for token_id in sorted(origins)}
            recorded["scored_after_writing"] = self._sampling.is_constrained
        return recorded

    def _notes(self, writer: DatasetWriter, ingest: Ingest, missing: list[str], recovery: Recovery) -> list[str]:
        notes = []
        if not missing:
            notes.append("everything is labelled already; nothing to do")
        elif writer.entries:
            notes.append(f"{len(writer.entries)} blocks are labelled already; going on with {len(missing)}")
        if recovery.num_records or recovery.num_refused:
            refused = f", and {recovery.num_refused:,} refusals" if recovery.num_refused else ""
            notes.append(f"{recovery.num_records:,} responses of unfinished blocks are in the journal{refused}")
        notes.extend(f"a segment of the journal is set aside: {what}" for what in recovery.set_aside)
        if ingest.num_duplicates:
            notes.append(f"{ingest.num_duplicates:,} rows are in the snapshot already and are not labelled twice")
        if ingest.num_rejected:
            notes.append(f"{ingest.num_rejected:,} rows are rejected; the reasons are in {REJECTED_DIR}/")
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

    def _asks_plain(self, snapshot: PromptSnapshot, blocks: list[str]) -> bool:
        """Return whether a teacher with a chat template is given plain prompts."""
        has_plain = any(prompt.prompt is not None for prompt in snapshot.read_block(blocks[0])[:1])
        return has_plain and self._teacher.tokenizer.has_chat_template


def _num_prompts(writer: DatasetWriter) -> int:
    """Return how many prompts are in published blocks."""
    return sum(entry.num_prompts for entry in writer.entries.values())


def _load_teacher(spec: RunSpec) -> Teacher:
    from labelgen.teachers.vllm_teacher import VLLMTeacher

    return VLLMTeacher(
        spec.teacher,
        selection=spec.selection,
        settings=_engine_settings(spec),
        log_path=open_writable_store(spec.output_dir).local_dir / ENGINE_LOG,
        for_scoring=spec.task == "score",
        chat_template=spec.chat_template,
    )


def _engine_settings(spec: RunSpec) -> EngineSettings:
    """Return how the engine is started: with the tokens whose distance it is to bound, where there is a budget."""
    if spec.think_tokens is None or spec.sampling.max_think_tokens is None:
        return spec.engine
    start, end = spec.think_tokens
    marks = {"reasoning_start_str": start, "reasoning_end_str": end}
    return replace(spec.engine, engine_args={**spec.engine.engine_args, "reasoning_config": marks})


def _why_none(ingest: Ingest, root: Location) -> str:
    if ingest.num_rejected:
        return f"all {ingest.num_rejected:,} rows are rejected; the reasons are in {root}/{REJECTED_DIR}/"
    if ingest.num_unchanged_sources:
        return f"they have not changed since all their rows were rejected; see {root}/{REJECTED_DIR}/"
    return "there are no rows"
