"""The command line: python -m labelgen.storage_benchmark --teacher MODEL -o FOLDER."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

import click

from labelgen.storage_benchmark.benchmark import Benchmark
from labelgen.storage_benchmark.measure import SELECTIONS
from labelgen.storage_benchmark.report import write_report
from labelgen.storage_benchmark.texts import DEFAULT_KINDS, Document, default_documents, read_documents
from labelstore.selection import Selection

_SMOKE_CHARS = 400


@click.command()
@click.option("--teacher", "teachers", metavar="MODEL", multiple=True, help="Model folder or hub name; repeatable.")
@click.option("--captured", is_flag=True, help="Label nothing: measure what --cache holds of any teacher.")
@click.option("--top-k", "top_ks", metavar="K", type=int, multiple=True, help="Measure these alone; repeatable.")
@click.option(
    "--texts",
    metavar="KIND=PATH",
    multiple=True,
    help="A kind of text: a folder of text files, or a .jsonl file with 'text' rows; repeatable.  "
    "[default: documentation, manual pages and source code that are installed here]",
)
@click.option("--chat-teacher", metavar="MODEL", help="Who answers the chats that are labelled.  [default: --teacher]")
@click.option("--dtype", help="Precision of the teachers.  [default: float32 on a CPU, else the model's own]")
@click.option(
    "--also",
    metavar="MODEL:KIND:DTYPE",
    multiple=True,
    help="Label one kind of text in another precision too; repeatable.",
)
@click.option(
    "-o", "--output", "output_dir", required=True, type=click.Path(path_type=Path), help="Folder of the result."
)
@click.option("--images", "images_dir", type=click.Path(path_type=Path), help="Folder of the plots.  [default: -o]")
@click.option(
    "--cache",
    "cache_dir",
    type=click.Path(path_type=Path),
    default=Path(".cache/storage-benchmark"),
    show_default=True,
    help="Where the teachers' labels are kept, to be measured again in minutes.",
)
@click.option("--repeats", type=int, default=3, show_default=True, help="Timings, of which the median counts.")
@click.option("--smoke", is_flag=True, help="A fake teacher and next to no labels: does it run?")
def main(
    teachers: tuple[str, ...],
    captured: bool,
    top_ks: tuple[int, ...],
    texts: tuple[str, ...],
    chat_teacher: str | None,
    dtype: str | None,
    also: tuple[str, ...],
    output_dir: Path,
    images_dir: Path | None,
    cache_dir: Path,
    repeats: int,
    smoke: bool,
) -> None:
    """Measure what each codec makes of a teacher's labels: bytes a label, what is lost, how fast.

    Every teacher labels every kind of text once, into --cache; all selections are cut from that.
    """
    if not teachers and not captured:
        raise click.UsageError("give --teacher MODEL, or --captured to measure what was labelled before")
    try:
        kinds = {} if captured else _read_texts(texts, is_smoke=smoke)
        result = Benchmark(
            teachers=teachers,
            texts=kinds,
            chat_teacher=chat_teacher or next(iter(teachers), ""),
            is_captured_only=captured,
            selections=[Selection(top_k=k) for k in top_ks] or SELECTIONS,
            cache_dir=cache_dir,
            dtype=dtype,
            also=[_parse_also(option, kinds) for option in also],
            num_repeats=repeats,
            is_smoke=smoke,
            say=_say,
        ).run()
        path = write_report(result, folder=output_dir, images_dir=images_dir or output_dir)
    except (ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(path)


def _read_texts(texts: Sequence[str], *, is_smoke: bool) -> dict[str, list[Document]]:
    found: dict[str, list[Document]] = {}
    for option in texts:
        kind, equals, path = option.partition("=")
        if not equals or not kind or "/" in kind:
            raise ValueError(f"--texts must be KIND=PATH, as in prose=my-texts.jsonl, got {option!r}")
        found[kind] = read_documents(Path(path))
    for kind in [] if texts else DEFAULT_KINDS:
        found[kind] = default_documents(kind)
        if not found[kind]:
            folders = ", ".join(str(folder) for folder, _ in DEFAULT_KINDS[kind])
            _say(f"skipped: {kind}, as nothing of it is installed in {folders}")
            del found[kind]
    if is_smoke:
        for kind, documents in found.items():
            found[kind] = [dataclasses.replace(one, text=one.text[:_SMOKE_CHARS]) for one in documents]
    return found


def _parse_also(option: str, kinds: Collection[str]) -> tuple[str, str, str]:
    parts = option.rsplit(":", 2)
    if len(parts) != 3 or parts[1] not in kinds:
        raise ValueError(f"--also must be MODEL:KIND:DTYPE with a kind of {', '.join(kinds)}, got {option!r}")
    return parts[0], parts[1], parts[2]


def _say(message: str) -> None:
    click.echo(message, err=True)


if __name__ == "__main__":
    main()
