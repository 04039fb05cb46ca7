"""A request that kills the engine is found and refused, and only it; a broken engine is not blamed on prompts."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

import labelgen
import labelstore
from labelgen.job.heartbeat import Heartbeat, HeartbeatWriter, ProcessName, read_heartbeats, remove_heartbeats
from labelgen.job.predecessors import find_predecessors
from labelgen.job.suspects import SuspectFinder
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.sampling import SamplingChoice
from labelgen.teachers.teacher import (
    Answer,
    EngineDeathError,
    EngineError,
    GenerateRequest,
    Refusal,
    Request,
    ScoreRequest,
)
from labelstore.local_store import LocalStore
from labelstore.selection import Selection
from rejected_rows import rejected_rows

SELECTION = Selection(top_k=4)
SAMPLING, _ = SamplingChoice().resolve({})


class MortalTeacher(FakeTeacher):
    """Works on many requests at once, and dies when it comes to one whose prompt is poison."""

    num_slots = 64

    def __init__(self) -> None:
        super().__init__(selection=SELECTION, vocab_size=300, max_model_len=64)
        self.num_deaths = 0
        self.num_starts = 0
        self.groups: list[int] = []  # how many requests were in flight at each death
        self._is_running = False
        self._rng = random.Random(0)

    def start(self) -> None:
        self.num_starts += not self._is_running
        self._is_running = True

    def close(self) -> None:
        self._is_running = False

    def kills(self, request: Request) -> bool:
        ids = request.input_ids if isinstance(request, ScoreRequest) else request.prompt_ids
        return "poison" in self.tokenizer.decode(ids)

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        assert self._is_running, "a dead engine was asked"
        waiting, in_flight = iter(requests), list[Request]()
        while True:
            while len(in_flight) < self.num_slots and (request := next(waiting, None)) is not None:
                in_flight.append(request)
            if not in_flight:
                return
            request = in_flight.pop(self._rng.randrange(len(in_flight)))
            if self.kills(request):
                self._is_running = False
                self.num_deaths += 1
                self.groups.append(len(in_flight) + 1)
                raise EngineDeathError("the engine died: boom. Run it again", cause="boom")
            yield from super().label([request])


def request(name: str, text: str = "fine") -> GenerateRequest:
    ids = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int32) + 1
    return GenerateRequest(request_id=name, prompt_ids=ids, sampling=SAMPLING, max_tokens=2, seed=0)


def answers(teacher: MortalTeacher, requests: list[Request], **known: object) -> dict[str, Answer | Refusal]:
    finder = SuspectFinder(teacher, note=lambda _: None)
    teacher.start()
    finder.learn(**known)  # type: ignore[arg-type]
    got = list(finder.label(iter(requests)))
    assert len(got) == len({answer.request_id for answer in got}) and finder.in_flight == []
    return {answer.request_id: answer for answer in got}


def test_one_poison_in_500_is_rejected_by_name_and_only_it(tmp_path: Path) -> None:
    source = tmp_path / "p.jsonl"
    rows = [{"id": f"r{i}", "prompt": "the poison" if i == 333 else f"question {i}"} for i in range(500)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(source),),
        output_dir=tmp_path / "out",
        teacher="mortal",
        selection=SELECTION,
        codec="open",
        block_size=100,
        max_tokens=2,
    )
    teacher = MortalTeacher()
    summary = labelgen.run(spec, teacher=teacher)
    assert summary.counts.num_records == 499 and summary.num_rejected == 1
    (reject,) = rejected_rows(tmp_path / "out")
    assert (reject["id"], reject["line"]) == ("r333", 334)
    assert reject["reason"] == "response 0: it kills the engine, also with nothing beside it: boom"
    names = [record.prompt_id for record in labelstore.open_dataset(tmp_path / "out")]
    assert names == [f"r{i}" for i in range(500) if i != 333]
    first, second, third = teacher.groups
    assert first == 64 and second <= 8 and third == 1, "64 suspects are cut into groups of 8, those into single ones"
    assert teacher.num_starts == 1 + 3


def test_several_poisons_are_each_found() -> None:
    requests: list[Request] = [request(f"b/{i}/0", "poison" if i in (3, 5, 80, 199) else "fine") for i in range(200)]
    got = answers(MortalTeacher(), requests)
    assert {name for name, answer in got.items() if isinstance(answer, Refusal)} == {
        "b/3/0",
        "b/5/0",
        "b/80/0",
        "b/199/0",
    }
    assert len(got) == 200


def test_the_other_responses_to_a_guilty_prompt_are_not_tried() -> None:
    teacher = MortalTeacher()
    requests: list[Request] = [
        request(f"b/{i}/{response}", "poison" if i == 70 else "fine") for i in range(90) for response in range(4)
    ]
    got = answers(teacher, requests)
    refused = {name: answer.reason for name, answer in got.items() if isinstance(answer, Refusal)}
    assert set(refused) == {f"b/70/{response}" for response in range(4)}
    assert sorted(refused.values())[:3] == ["another response to its prompt killed the engine"] * 3
    assert len(got) == 360 and teacher.num_deaths == 3


def test_a_death_by_chance_blames_nobody() -> None:
    class Unlucky(MortalTeacher):
        def kills(self, request: Request) -> bool:
            return self.num_deaths == 0 and request.request_id == "b/9/0"

    got = answers(Unlucky(), [request(f"b/{i}/0") for i in range(100)])
    assert len(got) == 100 and all(isinstance(answer, Answer) for answer in got.values())


def test_a_broken_engine_ends_the_job_and_blames_no_prompt() -> None:
    class Broken(MortalTeacher):
        def kills(self, request: Request) -> bool:
            return True

    finder = SuspectFinder(teacher := Broken(), note=lambda _: None)
    teacher.start()
    with pytest.raises(EngineError, match="died 3 times in a row with a single request"):
        list(finder.label(request(f"b/{i}/0") for i in range(100)))


def test_a_single_prompt_that_kills_the_engine_is_rejected_too() -> None:
    got = answers(MortalTeacher(), [request("b/0/0", "poison")])
    assert isinstance(got["b/0/0"], Refusal)


def test_suspects_of_earlier_jobs_run_last_and_apart_and_the_condemned_not_at_all() -> None:
    seen: list[tuple[str, ...]] = []

    class Watched(MortalTeacher):
        def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
            group = list(requests)
            seen.append(tuple(request.request_id for request in group))
            yield from super().label(group)

    got = answers(
        Watched(),
        [request(f"b/{i}/0") for i in range(10)],
        suspect_ids=frozenset({"b/2/0", "b/4/0"}),
        verdicts={"b/7/0": "9 jobs died"},
    )
    assert seen == [tuple(f"b/{i}/0" for i in (0, 1, 3, 5, 6, 8, 9)), ("b/2/0",), ("b/4/0",)]
    verdict = got["b/7/0"]
    assert len(got) == 10 and isinstance(verdict, Refusal) and verdict.reason == "9 jobs died"


# Deaths of the job itself: each leaves a heartbeat behind, and nothing else.


def leave_heartbeat(
    root: Path, in_flight: tuple[str, ...], *, is_alone: bool = False, state: str = "labelling"
) -> None:
    """Do what a job does that takes over from dead ones and is killed then."""
    before = find_predecessors(LocalStore(root))
    beat = Heartbeat(
        process=ProcessName(host=ProcessName.of_this().host, pid=2**22 + 1, started_ticks=1),  # nobody's
        state=state,
        started_at=0.0,
        beat_at=float(len(before.deaths)),
        in_flight=in_flight,
        is_alone=is_alone,
        deaths=before.deaths,
        lone_deaths=before.lone_deaths,
    )
    HeartbeatWriter(LocalStore(root), beat=lambda: beat).write()
    remove_heartbeats(LocalStore(root), before.superseded)


def test_a_prompt_that_takes_the_job_down_again_and_again_is_refused_in_the_end(tmp_path: Path) -> None:
    for _ in range(2):
        leave_heartbeat(tmp_path, ("a", "b", "poison"))
        assert not find_predecessors(LocalStore(tmp_path)).suspect_ids, "a node may be switched off twice"
    leave_heartbeat(tmp_path, ("b", "poison"))
    assert find_predecessors(LocalStore(tmp_path)).suspect_ids == {"b", "poison"}
    for _ in range(2):
        leave_heartbeat(tmp_path, ("poison",), is_alone=True)
        assert find_predecessors(LocalStore(tmp_path)).verdicts == {}
    leave_heartbeat(tmp_path, (), state="reading")  # killed before it labelled anything: says nothing
    leave_heartbeat(tmp_path, ("c",), state="stopped")  # a stop is no death
    leave_heartbeat(tmp_path, ("poison",), is_alone=True)
    predecessors = find_predecessors(LocalStore(tmp_path))
    assert predecessors.verdicts == {"poison": "6 jobs in a row died over it, the last 3 with nothing beside it"}
    assert len(read_heartbeats(LocalStore(tmp_path))) == 1
    leave_heartbeat(tmp_path, ("d",))  # answered, so no longer in flight when the next one died
    assert find_predecessors(LocalStore(tmp_path)).deaths == {"d": 1}
