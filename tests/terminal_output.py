"""What people see, as committed text: `python tests/terminal_output.py` writes it to tests/golden/ for review.

Help of every command is docs/cli.md.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from click.testing import CliRunner

from labelgen.cli import main
from labelgen.cli.progress import progress_line
from labelgen.cli.render import print_summary
from labelgen.job.progress import RunProgress, RunSummary
from labelstore.entry import LabelCounts

__all__ = ["GOLDEN_DIR", "terminal_output"]

GOLDEN_DIR = Path(__file__).resolve().parent / "golden"

_SUMMARY = RunSummary(
    output_dir=Path("labels"),
    counts=LabelCounts(
        num_records=2_000,
        num_labels=120_000,
        num_tokens=200_000,
        kept_mass_sum=114_000.0,
        truncation_kl_sum=6_200.0,
        codec_kl_sum=52.0,
        finish_reasons={"stop": 1_500, "length": 500},
    ),
    num_bytes=8_100_000,
    num_new_labels=60_000,
    num_new_records=1_000,
    num_rejected=3,
    num_duplicates=1,
    seconds=42.5,
    notes=("500 of 2,000 responses (25%) were cut at --max-tokens",),
)
_PROGRESS = [
    RunProgress(
        num_requests=0, num_prompts=5, total_prompts=2_000, num_labels=0, num_rejected=0, seconds=0.0, num_in_flight=5
    ),
    RunProgress(
        num_requests=3,
        num_prompts=259,
        total_prompts=2_000,
        num_labels=12,
        num_rejected=0,
        seconds=1.5,
        num_prompts_done=3,
        num_prompts_answered=3,
        num_in_flight=256,
        kept_mass=0.9731,
    ),
    RunProgress(
        num_requests=900,
        num_prompts=1_100,
        total_prompts=2_000,
        num_labels=54_000,
        num_rejected=3,
        seconds=38.0,
        num_prompts_done=1_000,
        num_prompts_answered=900,
        num_in_flight=100,
        kept_mass=0.9512,
        num_published_labels=40_000,
        num_published_bytes=2_700_000,
    ),
]
_ERRORS = [
    ["generate", "prompts.jsonl", "-o", "labels", "--teacher", "MODEL"],
    ["generate", "prompts.docx", "-o", "labels", "--teacher", "MODEL"],
    ["generate", "prompts.jsonl", "-o", "labels", "--teacher", "MODEL", "--tpo-k", "5"],
    ["generate", "prompts.jsonl", "-o", "labels", "--teacher", "MODEL", "--top-k", "0"],
    ["generate", "prompts.jsonl", "-o", "labels", "--teacher", "MODEL", "--max-rejects", "some"],
    ["generate", "prompts.jsonl", "-o", "labels", "--teacher", "MODEL", "--limit", "5", "--sample-prompts", "5"],
    ["generate", "prompts.jsonl", "-o", "labels", "--teacher", "MODEL", "--yaml"],
    ["generate", "prompts.jsonl"],
    ["generat"],
    ["plan"],
    ["plan", "--labels", "10", "--budget", "much"],
    ["inspect", "labels"],
]


def terminal_output() -> dict[str, str]:
    """Return every committed text by the name of its file; run it where there are no files."""
    summary = io.StringIO()
    with contextlib.redirect_stdout(summary), contextlib.redirect_stderr(summary):
        print_summary(_SUMMARY, as_json=False)
    return {
        "summary.txt": "".join(f"{line.rstrip()}\n" for line in summary.getvalue().splitlines()),
        "progress.txt": "".join(f"{progress_line(progress)}\n" for progress in _PROGRESS),
        "errors.txt": "\n".join(_error_of(arguments) for arguments in _ERRORS),
    }


def _error_of(arguments: list[str]) -> str:
    result = CliRunner().invoke(main, arguments, prog_name="labelgen")
    assert result.exit_code, arguments
    return f"$ labelgen {' '.join(arguments)}\n{result.output}"


if __name__ == "__main__":
    GOLDEN_DIR.mkdir(exist_ok=True)
    for name, text in terminal_output().items():
        (GOLDEN_DIR / name).write_text(text)
