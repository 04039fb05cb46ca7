"""The whole benchmark: captures what is missing, then measures every selection of every teacher and kind of text."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelgen.prompts.prompt_fields import Task
from labelgen.storage_benchmark.capture import (
    CAPTURED,
    MAX_MODEL_LEN,
    Capture,
    LabelsWanted,
    capture_chats,
    capture_texts,
    read_capture,
)
from labelgen.storage_benchmark.chats import chat_prompts
from labelgen.storage_benchmark.coding import TrainedCodec
from labelgen.storage_benchmark.measure import SELECTIONS, Workload, measure_random_access, measure_selection
from labelgen.storage_benchmark.models import train_models, training_pool
from labelgen.storage_benchmark.rows import RandomAccess, StorageRow
from labelgen.storage_benchmark.texts import Document
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.teacher import Teacher
from labelstore.manifest import MANIFEST_NAME
from labelstore.selection import Selection

__all__ = ["Benchmark", "BenchmarkResult"]

CHAT = "chat"
_WANTED_ALSO = LabelsWanted(test=20_000, train=20_000)  # bfloat16 is several times slower on a CPU
RANDOM_ACCESS_SELECTION = Selection(top_k=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult:
    """What was measured."""

    rows: Sequence[StorageRow]
    random_access: Sequence[RandomAccess]
    vocab_sizes: Mapping[str, int]  # by teacher


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What to measure. A smoke run takes a fake teacher and next to no labels, and shows only that all of it works."""

    teachers: Sequence[str]  # model folders or hub names
    texts: Mapping[str, Sequence[Document]]  # by kind
    chat_teacher: str  # answers the chats; every teacher labels its answers
    cache_dir: Path
    dtype: str | None = None  # None: the engine's default
    also: Sequence[tuple[str, str, str]] = ()  # teacher, kind and another precision: rows of their own
    num_repeats: int = 3
    selections: Sequence[Selection] = tuple(SELECTIONS)
    is_captured_only: bool = False  # measure what the cache holds, whoever labelled it
    is_smoke: bool = False
    say: Callable[[str], None] = print

    def run(self) -> BenchmarkResult:
        """Capture and measure.

        Raises:
            ValueError, ImportError, EngineError: a teacher cannot label; see labelgen.run.
        """
        captures = list(self._captured() if self.is_captured_only else self._capture_all())
        if not captures:
            raise ValueError(f"{self.cache_dir} holds no finished capture")
        selections = [RANDOM_ACCESS_SELECTION, Selection(draws=12)] if self.is_smoke else self.selections
        if RANDOM_ACCESS_SELECTION not in selections:
            selections = [*selections, RANDOM_ACCESS_SELECTION]
        rows: list[StorageRow] = []
        random_access: list[RandomAccess] = []
        vocab_sizes: dict[str, int] = {}
        cuts_by_teacher: dict[str, list[Workload]] = {}
        models_by_teacher: dict[str, Mapping[str, bytes]] = {}
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="labelgen-storage-"))
            pool = None if self.is_smoke else stack.enter_context(training_pool())
            for capture in captures:
                workload = Workload.of(capture)
                vocab_sizes[workload.teacher] = workload.header.vocab_size
                self.say(f"training the codecs for {workload.teacher}, {workload.dtype}, {workload.kind}")
                models = train_models(capture, selections, pool=pool)
                for selection in selections:
                    self.say(f"measuring {workload.teacher}, {workload.dtype}, {workload.kind}: {selection}")
                    rows += measure_selection(
                        workload.cut(selection),
                        models[selection],
                        scratch_dir=Path(folder),
                        num_repeats=self.num_repeats,
                    )
                cuts_by_teacher.setdefault(workload.teacher, []).append(workload.cut(RANDOM_ACCESS_SELECTION))
                models_by_teacher.setdefault(workload.teacher, models[RANDOM_ACCESS_SELECTION])
            for teacher, cuts in cuts_by_teacher.items():
                same = [cut for cut in cuts if cut.dtype == cuts[0].dtype]
                random_access += self._time_random_access(same, models_by_teacher[teacher], scratch_dir=Path(folder))
        return BenchmarkResult(rows=rows, random_access=random_access, vocab_sizes=vocab_sizes)

    def _time_random_access(
        self, cuts: Sequence[Workload], models: Mapping[str, bytes], *, scratch_dir: Path
    ) -> Iterator[RandomAccess]:
        for name, model in models.items():
            self.say(f"measuring {cuts[0].teacher}, {name}: single records at random")
            num_labels = 2_000 if self.is_smoke else 1_000_000
            codec = TrainedCodec(name, model)
            yield measure_random_access(cuts, codec, scratch_dir=scratch_dir, num_labels=num_labels)

    def _captured(self) -> Iterator[Capture]:
        for path in sorted(self.cache_dir.glob(f"*/*/{MANIFEST_NAME}")):
            teacher, _, _ = path.parent.parent.name.rpartition("-")
            yield Capture(teacher=teacher.replace("--", "/"), kind=path.parent.name, path=path.parent)

    def _capture_all(self) -> Iterator[Capture]:
        chats = self._capture(self.chat_teacher, self.dtype, CHAT)
        with self._lazily(self.chat_teacher, self.dtype, task="generate") as teacher:
            has_chats = chats.is_complete or teacher().tokenizer.has_chat_template
            if has_chats:
                self._say_capture(chats)
                capture_chats(chats, chat_prompts(), teacher=teacher, wanted=self._wanted)
            else:
                self.say(f"skipped: chat answers, as {self.chat_teacher} has no chat template; see --chat-teacher")
        for name in self.teachers:
            with self._lazily(name, self.dtype, task="score") as teacher:
                for kind, documents in self.texts.items():
                    yield self._capture_texts(self._capture(name, self.dtype, kind), documents, teacher)
                if has_chats and name == self.chat_teacher:
                    yield chats
                elif has_chats:
                    yield self._capture_texts(self._capture(name, self.dtype, CHAT), _answers(chats), teacher)
        for name, kind, dtype in self.also:
            with self._lazily(name, dtype, task="score") as teacher:
                capture = self._capture(name, dtype, kind)
                wanted = self._wanted if self.is_smoke else _WANTED_ALSO
                yield self._capture_texts(capture, self.texts[kind], teacher, wanted=wanted)

    def _capture_texts(
        self,
        capture: Capture,
        documents: Sequence[Document],
        teacher: Callable[[], Teacher],
        *,
        wanted: LabelsWanted | None = None,
    ) -> Capture:
        self._say_capture(capture)
        capture_texts(capture, documents, teacher=teacher, wanted=wanted or self._wanted)
        return capture

    def _capture(self, teacher: str, dtype: str | None, kind: str) -> Capture:
        name = Path(teacher).name if Path(teacher).is_dir() else teacher
        folder = f"{name.replace('/', '--')}-{dtype or 'default'}"
        return Capture(teacher=name, kind=kind, path=self.cache_dir / folder / kind)

    def _say_capture(self, capture: Capture) -> None:
        what = "captured already" if capture.is_complete else "capturing, which takes minutes"
        self.say(f"{capture.teacher}, {capture.kind}: {what} ({capture.path})")

    @property
    def _wanted(self) -> LabelsWanted:
        return LabelsWanted(test=200, train=200) if self.is_smoke else LabelsWanted()

    @contextlib.contextmanager
    def _lazily(self, name: str, dtype: str | None, *, task: Task) -> Iterator[Callable[[], Teacher]]:
        """Give a function that opens the teacher when it is called first; close it at the end."""
        opened: list[Teacher] = []

        def teacher() -> Teacher:
            if not opened:
                opened.append(FakeTeacher(selection=CAPTURED) if self.is_smoke else self._open(name, dtype, task=task))
            return opened[0]

        try:
            yield teacher
        finally:
            for one in opened:
                one.close()

    def _open(self, name: str, dtype: str | None, *, task: Task) -> Teacher:
        from labelgen.teachers.vllm_teacher import VLLMTeacher

        settings: dict[str, Any] = {"dtype": dtype, "max_model_len": MAX_MODEL_LEN}
        return VLLMTeacher(
            name,
            selection=CAPTURED,
            settings=EngineSettings(**settings),
            log_path=self.cache_dir / "engine.log",
            for_scoring=task == "score",
        )


def _answers(chats: Capture) -> list[Document]:
    """Return the answers to the chats as texts, in the splits of their questions."""
    return [
        Document(name=record.record_id, text=record.text, split=split)
        for split, records in read_capture(chats).items()
        for record in records
        if record.text
    ]
