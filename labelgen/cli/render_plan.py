"""A plan on stdout: one table for every K, mass and codec."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from labelgen.cli.plain_text import echo
from labelgen.cli.render import print_rows
from labelgen.cli.units import bytes_text
from labelgen.plan.plan import Plan
from labelgen.plan.projection import Projection
from labelgen.plan.size_guess import MEASUREMENTS, guess_bytes_per_label, guess_truncation_kl
from labelstore.codecs import CODECS
from labelstore.selection import Selection

__all__ = ["print_guess", "print_plan"]

_GUESSED_TOP_KS = (8, 16, 32, 64, 128, 256)
_SECONDS_PER_HOUR = 3600
_FILE_WIDTH = 140  # a file has no width of its own, and a table that is folded is no table


def print_guess(*, num_labels: int, budget_bytes: float | None, max_kl_nats: float | None, as_json: bool) -> None:
    """Print what is guessed of a job of so many labels, without a teacher."""
    rows: list[dict[str, Any]] = []
    for top_k in _GUESSED_TOP_KS:
        selection = Selection(top_k=top_k)
        kl = guess_truncation_kl(selection)
        assert kl is not None, "it is known of top_k"
        for codec in CODECS:
            size = guess_bytes_per_label(selection, codec)
            fits = budget_bytes is None or size.high * num_labels <= budget_bytes
            loses_little = max_kl_nats is None or kl.high <= max_kl_nats
            rows.append(
                {
                    "top_k": top_k,
                    "codec": codec,
                    "bytes_per_label": [size.low, size.high],
                    "bytes": [size.low * num_labels, size.high * num_labels],
                    "truncation_kl_nats": [kl.low, kl.high],
                    "fits": fits and loses_little,
                }
            )
    if as_json:
        click.echo(json.dumps({"is_guess": True, "labels": num_labels, "measurements": MEASUREMENTS, "rows": rows}))
        return
    table = _table(("kept", "truncation KL, nats", *CODECS))
    for top_k in _GUESSED_TOP_KS:
        of_k = [row for row in rows if row["top_k"] == top_k]
        low, high = of_k[0]["truncation_kl_nats"]
        cells = [f"{bytes_text(round(row['bytes'][0]))} to {bytes_text(round(row['bytes'][1]))}" for row in of_k]
        table.add_row(f"top_k={top_k}", f"{low:.2f} to {high:.2f}", *_marked(cells, [row["fits"] for row in of_k]))
    echo(f"{num_labels:,} labels: a guess, from other teachers and texts ({MEASUREMENTS})", bold=True)
    _wide_console().print(table)
    if budget_bytes is not None or max_kl_nats is not None:
        echo("* is within --budget and --max-kl at the upper end of the guess")
    echo("labelgen plan PROMPTS --teacher MODEL --probe 64 measures it")


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """Print a plan as a table or as JSON."""
    if as_json:
        click.echo(json.dumps(_plan_values(plan)))
        return
    rows = {
        "planned from": f"{plan.num_probed_labels:,} labels of {plan.num_probed_records:,} records",
        "prompts": "" if plan.num_prompts is None else f"{plan.num_prompts:,}",
        "labels": f"{plan.num_labels:,}{_labels_note(plan)}",
        "hours": _hours_text(plan),
    }
    print_rows(plan.teacher, rows)
    table = _table(("kept", "candidates", "kept mass", "truncation KL", *(f"{codec}, bytes/label" for codec in CODECS)))
    for row in _by_selection(plan.projections):
        first = row[0]
        cells = [f"{each.bytes_per_label:,.1f} ±{(each.high - each.low) / 2:,.1f}" for each in row]
        is_chosen = [plan.choice is not None and each is plan.choice.chosen for each in row]
        table.add_row(
            str(first.selection),
            f"{first.candidates_per_label:,.1f}",
            f"{first.kept_mass:.4f}",
            f"{first.truncation_kl_nats:.4f}",
            *_marked(cells, is_chosen),
        )
    totals = _table(("kept", *(f"{codec}, whole job" for codec in CODECS), "files"))
    for row in _by_selection(plan.projections):
        cells = [bytes_text(round(each.num_bytes)) for each in row]
        totals.add_row(str(row[0].selection), *cells, f"{max(each.num_shards for each in row):,}")
    console = _wide_console()
    for each in (table, totals):
        console.print()
        console.print(each)
    losses = {codec: max(row.codec_kl_nats for row in plan.projections if row.codec == codec) for codec in CODECS}
    console.print(
        "\ncodec KL, beside truncation's: " + ", ".join(f"{codec} {kl:.2g}" for codec, kl in losses.items()) + " nats",
        soft_wrap=True,
    )
    if plan.choice is not None:
        _print_choice(plan)


def _print_choice(plan: Plan) -> None:
    assert plan.choice is not None, "asked for"
    chosen = plan.choice.chosen
    if chosen is None:
        echo(plan.choice.reason)
        return
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in chosen.selection.to_json().items())
    echo(
        f"* {options} --codec {chosen.codec}: {bytes_text(round(chosen.num_bytes))}, truncation KL "
        f"{chosen.truncation_kl_nats:.3g}, codec KL {chosen.codec_kl_nats:.2g} nats; {plan.choice.reason}"
    )


def _plan_values(plan: Plan) -> dict[str, Any]:
    return {
        "is_guess": False,
        "teacher": plan.teacher,
        "probed_records": plan.num_probed_records,
        "probed_labels": plan.num_probed_labels,
        "prompts": plan.num_prompts,
        "labels": plan.num_labels,
        "labels_per_prompt": plan.labels_per_prompt,
        "labels_per_prompt_error": plan.labels_per_prompt_error,
        "labels_per_second": plan.labels_per_second,
        "seconds": plan.seconds,
        "rows": [_projection_values(row) for row in plan.projections],
        "choice": None
        if plan.choice is None
        else {
            "chosen": None if plan.choice.chosen is None else _projection_values(plan.choice.chosen),
            "reason": plan.choice.reason,
        },
    }


def _projection_values(projection: Projection) -> dict[str, Any]:
    values = dataclasses.asdict(projection)
    return {**values, "selection": projection.selection.to_json()}


def _hours_text(plan: Plan) -> str:
    if plan.seconds is None:
        return ""
    hours = plan.seconds / _SECONDS_PER_HOUR
    return f"{hours:,.2f} at {plan.labels_per_second:,.0f} labels/s, as the probe ran; more at once run faster"


def _labels_note(plan: Plan) -> str:
    if not plan.labels_per_prompt_error:
        return ""
    return f", {plan.labels_per_prompt:,.0f} ±{plan.labels_per_prompt_error:,.0f} a prompt"


def _by_selection(projections: Sequence[Projection]) -> list[list[Projection]]:
    rows: dict[str, list[Projection]] = {}
    for projection in projections:
        rows.setdefault(str(projection.selection), []).append(projection)
    return list(rows.values())


def _marked(cells: Sequence[str], is_marked: Sequence[bool]) -> list[str]:
    return [f"{cell} *" if marked else cell for cell, marked in zip(cells, is_marked, strict=True)]


def _wide_console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_FILE_WIDTH)


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
    return table
