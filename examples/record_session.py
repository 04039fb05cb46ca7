"""Records a terminal session with a real teacher as Markdown: from a plan to labels, with Ctrl-C in the middle.

python examples/record_session.py > docs/session.md
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from teachers import fetch_teacher

ROOT = Path(__file__).resolve().parent.parent
_JOB = "labelgen generate chats.jsonl -o labels --teacher SmolLM2-135M-Instruct --max-tokens 48 --block-size 16"
_INTERRUPTED = f"{_JOB} --flush-seconds 1"
_PLAN = "--max-tokens 48 --prompts 1000000 --probe 16 --budget 3GB"
_SEGMENTS_BEFORE_CTRL_C = 3
_COMMANDS = [
    f"labelgen plan chats.jsonl --teacher SmolLM2-135M-Instruct {_PLAN}",
    _INTERRUPTED,
    "labelgen status labels",
    _JOB,
    "labelgen verify labels",
    "labelgen inspect labels",
    "labelgen inspect labels --record question-05#0 --positions 2",
    "labelgen convert labels -o small --codec small",
]
_HEADER = """\
# A session

What a terminal shows, as `examples/record_session.py` recorded it on two CPU cores: what a job of a million chats would
take, then 72 of them, interrupted with Ctrl-C and gone on with, and what became of them.

```text
"""


def main() -> None:
    teacher_dir = fetch_teacher("smollm2")
    print(_HEADER, end="")
    with tempfile.TemporaryDirectory(prefix="labelgen-session-") as folder:
        desk = Path(folder)
        (desk / teacher_dir.name).symlink_to(teacher_dir)
        shutil.copy(ROOT / "examples/prompts/chats.jsonl", desk)
        for command in _COMMANDS:
            shown = record(command, desk, is_interrupted=command == _INTERRUPTED)
            print(f"$ {command}\n{shown.replace(f'{desk}/', '')}", flush=True)
    print("```")


def record(command: str, desk: Path, *, is_interrupted: bool) -> str:
    """Return what a command prints; an interrupted one gets Ctrl-C when some responses are on disk."""
    program, *arguments = shlex.split(command)
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / program), *arguments],
        cwd=desk,
        env={**os.environ, "COLUMNS": "110"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if is_interrupted:
        journal_dir = desk / "labels/.labelgen/journal"
        while process.poll() is None and len(list(journal_dir.glob("*.parquet"))) < _SEGMENTS_BEFORE_CTRL_C:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
    shown, _ = process.communicate()
    if process.returncode != (130 if is_interrupted else 0):
        sys.exit(f"{command} ended with {process.returncode}:\n{shown}")
    return "".join(f"{line.rstrip()}\n" for line in shown.splitlines())


if __name__ == "__main__":
    main()
