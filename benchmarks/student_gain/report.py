"""The result of the benchmark: a table, a picture, and the dated files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dated_result import write_result

from student_gain.plot import write_plot
from student_gain.rows import QUALITIES, MethodRow, rows_of

__all__ = ["table_of", "write_report"]


def write_report(result: Mapping[str, Any], *, images_dir: Path, is_result: bool, command: str) -> None:
    """Print the table and draw the picture; write both as a dated result if asked to."""
    rows = rows_of(result)
    table = table_of(rows, result["teacher_itself"])
    print(table)
    write_plot(rows, path=images_dir / "student-gain.png", title=_title(result))
    if is_result:
        write_result(
            "student-gain",
            title="What a student gains from soft labels",
            table=table,
            note=_note(result),
            command=command,
            content={**result, "rows": [dataclasses.asdict(row) for row in rows]},
        )
    else:
        print(json.dumps({"rows": [dataclasses.asdict(row) for row in rows]}))


def table_of(rows: Sequence[MethodRow], teacher: Mapping[str, float]) -> str:
    """Return the Markdown table, with the teacher itself as its last row."""
    lines = [
        "| labels | candidates | bytes/label | KL to the teacher | behind full | share of the gain | loss "
        "| calibration error | same top-1 | read, µs/label |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        behind = "" if row.behind_full is None else _with_spread(*row.behind_full, form="+.4f")
        share = "" if row.share_of_gain is None else f"{row.share_of_gain:.0%}"
        read = "" if row.read_microseconds_per_label is None else f"{row.read_microseconds_per_label:.1f}"
        values = [_with_spread(row.mean[name], row.spread[name]) for name in QUALITIES]
        lines.append(
            f"| {row.method} | {row.candidates_per_label:,.1f} | {row.bytes_per_label:,.1f} | {values[0]} | {behind} "
            f"| {share} | {' | '.join(values[1:])} | {read} |"
        )
    teacher_values = " | ".join(f"{teacher[name]:.4f}" for name in QUALITIES[1:])
    lines.append(f"| *the teacher itself* | | | 0 | | | {teacher_values} | |")
    return "\n".join(lines)


def _with_spread(mean: float, spread: float | None, *, form: str = ".4f") -> str:
    return f"{mean:{form}}" if spread is None else f"{mean:{form}} ± {spread:.4f}"


def _note(result: Mapping[str, Any]) -> str:
    recipe = result["recipe"]
    seeds = len({run["seed"] for run in result["runs"]})
    seconds = sum(run["seconds"] for run in result["runs"])
    return f"""\
![Held-out KL against bytes a label](../../docs/images/student-gain.png)

Teacher {result["teacher"]}, text: {result["kind"]}. {_title(result)}; {recipe["num_layers"]} layers of
{recipe["hidden_size"]}, random at first, output layer tied. AdamW, highest rate {recipe["learning_rate"]}; one record a
step, the first {recipe["max_length"]} tokens of it; the same tokens in the same order for all methods; {seeds} seeds of
weights and order. Nothing was tuned for a method; no soft loss is mixed with hard labels.

*KL* is KL(teacher || student) over the whole vocabulary, *loss* -ln of the student's probability of the next token,
*calibration error* that of its likeliest token in 15 bins, all of {result["held_out_labels"]:,} held-out labels. *±* is
the standard deviation over seeds; *behind full* is the difference to the full distribution's student of the same seed,
which begins alike and reads the same. *Share of the gain*: 0% is the KL of hard labels, 100% that of the full
distribution. *Bytes* are of the files, hard columns included, a codec's model spread over a million labels; the full
distribution as float16. *Read*: processor time of a shuffled pass to batches. Codec `standard` where none is named.
Students took {seconds / 60:.0f} minutes in all.
"""


def _title(result: Mapping[str, Any]) -> str:
    recipe, millions = result["recipe"], result["num_parameters"] / 1e6
    return f"A student of {millions:.1f}M parameters after {recipe['num_steps']:,} steps"
