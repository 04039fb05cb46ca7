"""Carries a run through. The one file that sees prompts, teacher and dataset."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from labelgen.job.claim import Claim
from labelgen.job.concerns import find_concerns
from labelgen.job.dispatcher import Dispatcher
from labelgen.job.executor import Executor
from labelgen.job.job_options import job_file_bytes
from labelgen.job.labelling import Labelling
from labelgen.job.predecessors import Predecessors, find_predecessors, share_of
from labelgen.job.preview import JobPreview, make_preview
from labelgen.job.progress import NullWatcher, RunSummary, RunWatcher
from labelgen.job.pulse import Pulse
from labelgen.job.replica import TeacherLoader
from labelgen.job.replicated_labelling import ReplicaPool, ReplicatedLabelling
from labelgen.job.retry import retry_rejected
from labelgen.job.setup import JobSetup
from labelgen.job.spec import RunSpec
from labelgen.job.spec_teacher import engine_log_name, load_replica_teacher, load_teacher
from labelgen.job.stopping import JobStoppedError, StoppedError, StopSignals
from labelgen.prompts.label_dataset import LabelDatasetSource
from labelgen.prompts.prompt import Prompt
from labelgen.prompts.rejects import RejectLog
from labelgen.prompts.snapshot import Ingest, PromptSnapshot
from labelgen.prompts.sources import STDIN, Source, find_sources
from labelgen.prompts.token_spans import kinds_of
from labelgen.rescore.at_end import rescore_at_end
from labelgen.teachers.teacher import EngineError, Teacher
from labelstore.dataset_writer import DatasetWriter, check_folder
from labelstore.entry import Entry, generations_in_force, total_counts
from labelstore.journal import Journal, Recovery
from labelstore.location import Location
from labelstore.manifest import Manifest
from labelstore.reject_log import REJECTED_DIR
from labelstore.rescored import Rescored
from labelstore.store import open_writable_store, update

PoolMaker = Callable[..., ReplicaPool]  # as RayPool

__all__ = ["Job", "run"]

JOB_NAME = ".labelgen/job.yaml"


def run(
    spec: RunSpec,
    *,
    teacher: Teacher | None = None,
    replica_teacher: TeacherLoader | None = None,
    watcher: RunWatcher | None = None,
    stop: StopSignals | None = None,
) -> RunSummary:
    """Label what a spec describes and return what came of it.

    Run again, it goes on with what is missing; finished, it does nothing. `teacher` takes the place of the one that
    the spec names, and is left open; replicas have teachers of their own, which `replica_teacher` makes in their
    processes. Signals are taken where an entered `stop` is given; without one, Ctrl-C is a KeyboardInterrupt as in any
    Python program, and what was done is on disk then too.

    Raises:
        ValueError: the spec asks for what cannot be: a missing source, no such model, top-k above the vocabulary.
        ImportError: the engine is not installed.
        StorageError: the output folder holds something else, other settings' labels, or damage.
        EngineError: the engine did not start, or gave what labels must not be made of.
        JobStoppedError: a signal told the job to stop.
    """
    return Job(spec, teacher=teacher, replica_teacher=replica_teacher).run(watcher or NullWatcher(), stop=stop)


class Job:
    """A run that has been checked: its sources are there, its teacher is known, its folder is free or its own."""

    def __init__(
        self,
        spec: RunSpec,
        *,
        teacher: Teacher | None = None,
        replica_teacher: TeacherLoader | None = None,
        make_pool: PoolMaker | None = None,
    ) -> None:
        """Check everything that can be checked without starting the engine or writing a file.

        `replica_teacher` makes the teacher of each replica, in its process; `make_pool` what runs them instead of Ray.

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
        if spec.part is not None:
            _check_can_share(self._sources)
        self._owns_teacher = teacher is None
        self._replica_teacher = replica_teacher or load_replica_teacher
        self._make_pool = make_pool or _make_ray_pool
        self._teacher: Teacher = teacher or load_teacher(spec)
        self._facts = self._teacher.facts
        datasets = [source for source in self._sources if isinstance(source, LabelDatasetSource)]
        for dataset in datasets:
            dataset.check_tokenizer(self._facts.fingerprint_fields)
        self._scored_datasets = [
            {"location": dataset.name, "fingerprint": dataset.header.fingerprint, "teacher": dataset.header.teacher}
            for dataset in datasets
        ]
        self._setup = JobSetup.of(spec, self._teacher, scored_datasets=self._scored_datasets)

    def preview(self) -> JobPreview:
        """Return what the job would do, without starting the engine or writing a file."""
        try:
            return make_preview(self._setup.requests, self._sources)
        finally:
            if self._owns_teacher:
                self._teacher.close()

    def run(self, watcher: RunWatcher, *, stop: StopSignals | None = None) -> RunSummary:
        """Do it; see `run`."""
        stop = stop or StopSignals()
        spec = self._spec
        predecessors = find_predecessors(self._store, part=spec.part)
        with Pulse(self._store, predecessors, share=share_of(spec.part)) as pulse:
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
            executor = Executor(self._setup)
            writer, snapshot = executor.writer, executor.snapshot
            update(writer.store, JOB_NAME, job_file_bytes(spec))
            ingest = self._read_prompts(executor, watcher)
            blocks = snapshot.blocks
            held = [block for block in blocks if executor.holds(block)]
            missing = [block for block in held if block not in writer.entries]
            if missing:
                self._check_prompts(snapshot.read_block(missing[0]))
            journal = executor.new_journal()
            recovery = journal.recover(
                {block: snapshot.block_sha256(block) for block in journal.segment_blocks.intersection(missing)},
                published=writer.entries,
                elsewhere=set(blocks).difference(held),
            )
            num_records = total_counts(writer.entries.values()).num_records + recovery.num_records
        for note in self._notes(writer, ingest, missing, recovery):
            watcher.note(note)
        if missing and self._owns_teacher and not spec.is_replicated:
            watcher.note(f"the engine's log is {self._store.local_dir / engine_log_name(spec)}")
        for note in predecessors.notes(num_records=num_records) if missing else ():
            watcher.note(note)
        sizes = {block: snapshot.num_prompts(block) for block in missing}
        label = self._label_with_replicas if spec.is_replicated else self._label_here
        task = _Task(executor, journal, sizes, predecessors, num_records, watcher, stop, pulse)
        made = label(task) if missing else _Made()
        with stop.interruptible():
            num_left = len(set(blocks) - generations_in_force(writer.store).keys())
            entries = self._finish(writer, watcher) if num_left == 0 or spec.part is None else writer.entries.values()
        counts = total_counts(entries)
        return RunSummary(
            output_dir=root,
            counts=counts,
            num_bytes=sum(shard.num_bytes for entry in entries for shard in entry.shards),
            num_new_labels=made.num_labels,
            num_new_records=made.num_records,
            num_rejected=len(RejectLog(writer.store) if spec.is_replicated else executor.rejects),
            num_duplicates=ingest.num_duplicates,
            seconds=made.seconds,
            notes=tuple(
                find_concerns(
                    counts,
                    num_new_records=made.num_records,
                    num_looping=made.num_looping,
                    asks_plain=self._asks_plain(snapshot, blocks),
                )
            ),
            rescored=made.rescored,
            num_blocks_left=num_left,
        )

    def _label_here(self, task: _Task) -> _Made:
        """Label blocks with the engine of this process."""
        labelling = task.executor.labelling(
            self._teacher,
            task.sizes,
            task.journal,
            task.watcher,
            total_prompts=task.num_prompts,
            before_group=task.pulse.beat,
        )
        labelling.finder.learn(suspect_ids=task.predecessors.suspect_ids, verdicts=task.predecessors.verdicts)
        task.follow(labelling)
        labelling.run(task.stop)
        rescored: Rescored | None = None
        if labelling.num_records and self._spec.rescore_at_end:
            with task.stop.interruptible():
                rescored = self._rescore(task.executor.writer, task.watcher)
        return _Made.of(labelling, num_records=labelling.num_records, rescored=rescored)

    def _label_with_replicas(self, task: _Task) -> _Made:
        """Label blocks with engines of other processes, each of which reads the journal for itself."""
        writer = task.executor.writer
        num_published = total_counts(writer.entries.values()).num_records
        with task.stop.interruptible():
            pool = self._make_pool(
                self._spec,
                self._replica_teacher,
                needs_gpus=self._facts.recorded.get("device") == "cuda",
                scored_datasets=self._scored_datasets,
            )
        try:
            labelling = ReplicatedLabelling(
                pool,
                Dispatcher(task.sizes, task.predecessors, is_published=writer.is_published),
                task.watcher,
                store=self._store,
                total_prompts=task.num_prompts,
                learn=lambda known: task.pulse.learn(deaths=known.deaths, lone_deaths=known.lone_deaths),
                max_rejects=self._spec.max_rejects,
            )
            task.follow(labelling)
            labelling.run(task.stop)
            writer.read_on()
            # What a replica left of a block that it published as its last act.
            task.executor.new_journal().recover({}, published=writer.entries)
            num_new = total_counts(writer.entries.values()).num_records - num_published
            rescored: Rescored | None = None
            if num_new and self._spec.rescore_at_end:
                with task.stop.interruptible():
                    rescored = labelling.rescore(self._spec.rescore_at_end)
        finally:
            pool.close()
        return _Made.of(labelling, num_records=num_new, rescored=rescored)

    def _finish(self, writer: DatasetWriter, watcher: RunWatcher) -> Collection[Entry]:
        """Fold the dataset's entries; return them."""
        manifest, orphans = writer.finish()
        if orphans:
            watcher.note(f"moved {len(orphans)} files that a killed job left in data/ to .labelgen/orphans/")
        return manifest.entries

    def _read_prompts(self, executor: Executor, watcher: RunWatcher) -> Ingest:
        """Let one job at a time read what is new in the sources; the others wait, and mostly find nothing new then."""
        spec, snapshot, rejects = self._spec, executor.snapshot, executor.rejects

        def is_needed() -> bool:
            return spec.retry_rejected or snapshot.is_behind(self._sources, limit=spec.limit, sample=spec.sample)

        ingest = Ingest(num_unchanged_sources=len(self._sources))
        claim = Claim(executor.writer.store, "reading-prompts")
        with claim.held(
            while_needed=is_needed, waiting=lambda who: watcher.stage(f"waiting for the prompts: {who} reads them")
        ) as is_held:
            if is_held:
                if spec.retry_rejected:
                    num_again = retry_rejected(snapshot, executor.writer, rejects, block_size=spec.block_size)
                    watcher.note(f"{num_again:,} rejected prompts are tried again, and all rows of the sources")
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
        executor.writer.read_on()  # a twin may have published while this job waited
        return ingest

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
            contents = Manifest(header=writer.header, entries=tuple(writer.entries.values()))
            return rescore_at_end(writer.store, contents, self._teacher, num_records=self._spec.rescore_at_end)
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
        recorded = self._setup.recorded
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


@dataclass(frozen=True, slots=True)
class _Task:
    """The blocks that are to be labelled, and all that labelling them needs."""

    executor: Executor
    journal: Journal
    sizes: dict[str, int]  # prompts of each block
    predecessors: Predecessors
    num_records: int  # that are there before
    watcher: RunWatcher
    stop: StopSignals
    pulse: Pulse

    @property
    def num_prompts(self) -> int:
        return sum(self.sizes.values())

    def follow(self, labelling: Labelling | ReplicatedLabelling) -> None:
        """Let the heartbeat say how the labelling stands."""
        num_before = sum(entry.num_prompts for entry in self.executor.writer.entries.values())
        self.pulse.follow(labelling, num_prompts_before=num_before, num_records_before=self.num_records)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What this run's labelling came to."""

    num_records: int = 0
    num_labels: int = 0
    num_looping: int = 0
    seconds: float = 0.0
    rescored: Rescored | None = None

    @classmethod
    def of(cls, labelling: Labelling | ReplicatedLabelling, *, num_records: int, rescored: Rescored | None) -> _Made:
        return cls(
            num_records=num_records,
            num_labels=labelling.num_labels,
            num_looping=labelling.num_looping,
            seconds=labelling.seconds,
            rescored=rescored,
        )


def _make_ray_pool(spec: RunSpec, load_teacher: TeacherLoader, **options: Any) -> ReplicaPool:
    from labelgen.job.ray_replicas import RayPool

    return RayPool(spec, load_teacher, **options)


def _check_can_share(sources: Sequence[Source]) -> None:
    """Refuse sources that every part would read for itself.

    Raises:
        ValueError: nothing can tell of one that it was read already.
    """
    for source in sources:
        if source.state is None:
            name = "the standard input" if source.name == STDIN else source.name
            raise ValueError(
                f"--part: nothing tells whether {name} was read already, so that each part would read it again; save "
                f"it to a file that all parts see"
            )


def _why_none(ingest: Ingest, root: Location) -> str:
    if ingest.num_rejected:
        return f"all {ingest.num_rejected:,} rows are rejected; the reasons are in {root}/{REJECTED_DIR}/"
    if ingest.num_unchanged_sources:
        return f"they have not changed since all their rows were rejected; see {root}/{REJECTED_DIR}/"
    return "there are no rows"
