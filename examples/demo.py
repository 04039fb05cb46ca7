"""`make demo`: a real teacher labels the example prompts, and the labels are looked at from every side."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from teachers import fetch_teacher

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = "demo-labels"

READ_BACK = """\
import labelstore
dataset = labelstore.open_dataset("demo-labels")
record = dataset[0]
print(dataset, record.text[:60], record.token_ids.shape, record.logprobs[0, :3], sep="\\n")
"""


def main() -> None:
    teacher_dir = fetch_teacher("smollm2").relative_to(ROOT)
    shutil.rmtree(ROOT / OUTPUT, ignore_errors=True)
    prompts = "examples/prompts/chats.jsonl"
    show("labelgen", "generate", prompts, "-o", OUTPUT, "--teacher", str(teacher_dir), *_GENERATE_OPTIONS)
    show("labelgen", "verify", OUTPUT)
    show("labelgen", "inspect", OUTPUT, "--record", "question-03#0", "--positions", "4")
    print("\nReading it back:\n")
    print("".join(f"    {line}\n" for line in READ_BACK.splitlines()))
    run(sys.executable, "-c", READ_BACK)


# Greedy answers of a small teacher are dull, and at its own temperature of 1.0 they ramble.
_GENERATE_OPTIONS = ("--top-k", "64", "--max-tokens", "48", "--temperature", "0.6", "--column", "category")


def show(*command: str) -> None:
    """Run a command of ours the way a person would, with the command line shown."""
    print(f"\n$ {' '.join(command)}", flush=True)
    run(str(Path(sys.executable).parent / command[0]), *command[1:])


def run(*command: str) -> None:
    result = subprocess.run(command, cwd=ROOT)
    if result.returncode:
        sys.exit(result.returncode)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"demo: {error}")
