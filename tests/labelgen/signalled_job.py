"""`labelgen generate` with a fake teacher whose answers take long: a program for the tests of signals."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from labelgen.cli import main
from labelgen.job import runner
from labelgen.job.spec import RunSpec
from labelgen.teachers.fake import FakeTeacher
from labelgen.teachers.teacher import Answer, Refusal, Request

NUM_QUICK = 10


class SlowTeacher(FakeTeacher):
    """Answers ten requests at once; four more are in flight until a file says that they may finish."""

    def __init__(self, spec: RunSpec, release_path: Path) -> None:
        super().__init__(selection=spec.selection, vocab_size=300, max_model_len=64)
        self._release_path = release_path

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        waiting = iter(requests)
        for _ in range(NUM_QUICK):
            yield from super().label([next(waiting)])
        in_flight = [next(waiting) for _ in range(4)]
        print("waiting", flush=True)
        while not self._release_path.exists():
            time.sleep(0.01)
        yield from super().label(in_flight)
        yield from super().label(waiting)


if __name__ == "__main__":
    release_path = Path(sys.argv[1])
    runner.load_teacher = lambda spec: SlowTeacher(spec, release_path)  # type: ignore[attr-defined]
    main(sys.argv[2:])
