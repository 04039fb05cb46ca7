"""One record on stdout: what was asked, what the teacher wrote, and what else it believed."""

from __future__ import annotations

import itertools
import json
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from labelgen.cli.plain_text import plain
from labelgen.cli.token_text import TokenText
from labelstore.record import LabelRecord

__all__ = ["print_record"]

_BAR_WIDTH = 24
_CONTEXT_TOKENS = 10
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def print_record(
    record: LabelRecord, token_text: TokenText, *, num_positions: int, num_candidates: int, as_json: bool
) -> None:
    """Print a record; in detail, the positions at which the teacher was least sure."""
    if as_json:
        click.echo(json.dumps(_to_json(record, token_text)))
        return
    console = Console(highlight=False)
    console.print(Text(plain(f"record {record.record_id}"), style="bold"), _facts(record))
    for role, content in _prompt_parts(record):
        console.print(Text(plain(f"{role}: "), style="cyan"), Text(plain(content), style="dim"), sep="")
    for text in _labelled_texts(record, token_text):
        console.print(text)
    for label in _least_sure(record, num_positions):
        console.print(_position_line(record, label, token_text))
        console.print(_candidates_table(record, label, token_text, num_candidates))


def _facts(record: LabelRecord) -> Text:
    facts = f"{len(record.input_ids)} tokens, {len(record.labels)} labelled"
    if record.finish_reason is not None:
        facts += f", finished by {record.finish_reason}"
    return Text(plain(facts), style="dim")


def _prompt_parts(record: LabelRecord) -> list[tuple[str, str]]:
    if record.messages is not None:
        return [(str(message["role"]), str(message.get("content") or "")) for message in record.messages]
    return [("prompt", record.prompt)] if record.prompt is not None else []


def _labelled_texts(record: LabelRecord, token_text: TokenText) -> list[Text]:
    """Return the labelled tokens of each span, each coloured by how likely the teacher found it."""
    texts = []
    targets = iter(zip(record.target_ids.tolist(), record.target_logprobs.tolist(), strict=True))
    for (start, stop), kind in zip(record.spans.tolist(), record.span_kinds, strict=True):
        text = Text("labelled: " if len(record.spans) == 1 else f"labelled, {kind}: ", style="cyan")
        for token, logprob in itertools.islice(targets, stop - start):
            shown = token_text(token).replace("·", " ").replace("⏎", "⏎\n")
            probability = np.exp(logprob)
            style = "green" if probability > 0.5 else "yellow" if probability > 0.1 else "red"
            text.append(plain(shown), style=style)
        texts.append(text)
    return texts


def _least_sure(record: LabelRecord, num_positions: int) -> list[int]:
    """Return the labels whose first candidate is least likely, in the order of the text."""
    offsets = record.candidate_offsets
    filled = np.flatnonzero(np.diff(offsets) > 0)
    best = record.logprobs.reshape(-1)[offsets[filled]]
    return sorted(filled[np.argsort(best, kind="stable")[:num_positions]].tolist())


def _position_line(record: LabelRecord, label: int, token_text: TokenText) -> Text:
    position = int(record.positions[label])
    before = record.input_ids[max(0, position - _CONTEXT_TOKENS) : position].tolist()
    context = "".join(token_text(token) for token in before).replace("·", " ")
    return Text(plain(f"\nposition {position}, after “…{context}”"), style="dim")


def _candidates_table(record: LabelRecord, label: int, token_text: TokenText, num_candidates: int) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(width=2)
    table.add_column(min_width=16, no_wrap=True)
    table.add_column(justify="right")
    table.add_column(width=_BAR_WIDTH)
    start, stop = (int(offset) for offset in record.candidate_offsets[label : label + 2])
    shown = range(start, min(start + num_candidates, stop))
    target, ids = int(record.target_ids[label]), record.token_ids.reshape(-1)
    for i in shown:
        probability = float(np.exp(record.logprobs.reshape(-1)[i]))
        _add_row(table, token_text(int(ids[i])), probability, is_target=int(ids[i]) == target)
    if target not in ids[shown.start : shown.stop]:
        rank = int(record.target_ranks[label])
        probability = float(np.exp(record.target_logprobs[label]))
        _add_row(table, f"{token_text(target)}  (rank {rank})", probability, is_target=True)
    rest = 1 - float(np.exp(record.logprobs.reshape(-1)[start : shown.stop].astype(np.float64)).sum())
    table.add_row("", Text("all others", style="dim"), Text(f"{max(rest, 0):.3f}", style="dim"), _bar(rest, "dim"))
    return table


def _add_row(table: Table, token: str, probability: float, *, is_target: bool) -> None:
    style = "bold green" if is_target else ""
    table.add_row(
        Text("→" if is_target else "", style=style),
        Text(plain(token), style=style),
        Text(f"{probability:.3f}", style=style),
        _bar(probability, "green" if is_target else "blue"),
    )


def _bar(probability: float, style: str) -> Text:
    eighths = round(min(max(probability, 0.0), 1.0) * _BAR_WIDTH * 8)
    return Text("█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else ""), style=style)


def _to_json(record: LabelRecord, token_text: TokenText) -> dict[str, Any]:
    offsets = record.candidate_offsets.tolist()
    ids, logprobs = record.token_ids.reshape(-1).tolist(), record.logprobs.reshape(-1).tolist()
    return {
        "record_id": record.record_id,
        "prompt_id": record.prompt_id,
        "response_index": record.response_index,
        "document_offset": record.document_offset,
        "finish_reason": record.finish_reason,
        "prompt": record.prompt,
        "messages": record.messages,
        "text": record.text,
        "kept": dict(record.kept),
        "input_ids": record.input_ids.tolist(),
        "spans": record.spans.tolist(),
        "span_kinds": list(record.span_kinds),
        "labels": [
            {
                "position": position,
                "token": token_text(target),
                "target_id": target,
                "target_logprob": target_logprob,
                "target_rank": rank,
                "tail_mass": tail_mass,
                "token_ids": ids[start:stop],
                "logprobs": logprobs[start:stop],
            }
            for position, target, target_logprob, rank, tail_mass, start, stop in zip(
                record.positions.tolist(),
                record.target_ids.tolist(),
                record.target_logprobs.tolist(),
                record.target_ranks.tolist(),
                record.tail_mass.tolist(),
                offsets,
                offsets[1:],
                strict=False,
            )
        ],
    }
