"""The dataset card: true figures, valid YAML, and nothing of others that becomes markup; who may write README.md."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from labelstore.card import Licences, write_card
from labelstore.card.header_block import size_category
from labelstore.codecs import codec_named
from labelstore.convert import SilentWatcher, convert_datasets
from labelstore.dataset import open_dataset
from labelstore.dataset_writer import DatasetWriter
from labelstore.entry import total_counts
from labelstore.errors import StorageError
from labelstore.markdown import escape_markdown, fence
from labelstore.readme import first_readme, is_unedited
from labelstore.rescored import RESCORED_NAME, Rescored
from labelstore.selection import Selection
from make_records import make_dataset, make_header, make_record

APACHE = Licences(dataset="apache-2.0", teacher="apache-2.0", prompts="CC BY 4.0")
EVIL = 'x</code><script>alert(1)</script> | [a](javascript:b) **c** ``` <img src=x> \u202e"\n# d'


def card_of(root: Path, *, licences: Licences = APACHE, **options: Any) -> str:
    write_card(root, licences=licences, **options)
    return (root / "README.md").read_text()


def parsed(text: str) -> Any:
    from huggingface_hub import DatasetCard

    return DatasetCard(text)


def test_the_hub_reads_the_header_block(tmp_path: Path) -> None:
    text = card_of(make_dataset(tmp_path / "labels"), title='My "labels": a # test \U0001f600', with_plots=False)
    data = parsed(text).data
    assert data.pretty_name == 'My "labels": a # test \U0001f600'
    assert data.license == "apache-2.0"
    assert data.size_categories == ["n<1K"]
    assert data.task_categories == ["text-generation"]
    assert data.to_dict()["configs"] == [{"config_name": "default", "data_files": "data/*.parquet"}]


@pytest.mark.parametrize(
    ("licence", "expected"),
    [(None, {"license": "unknown"}), ("My terms: 2", {"license": "other", "license_name": "My terms: 2"})],
)
def test_a_licence_that_is_no_hubs_name_is_other_and_one_that_is_not_given_unknown(
    licence: str | None, expected: dict[str, str], tmp_path: Path
) -> None:
    text = card_of(make_dataset(tmp_path / "labels"), licences=Licences(dataset=licence), with_plots=False)
    assert expected.items() <= parsed(text).data.to_dict().items()
    assert text.count("unknown: ask before you use it") == (3 if licence is None else 2)


def test_datasets_loads_a_folder_with_a_card(tmp_path: Path) -> None:
    from datasets import load_dataset

    root = make_dataset(tmp_path / "labels")
    card_of(root)
    assert load_dataset(str(root), split="train", cache_dir=str(tmp_path / "cache")).num_rows == 6


def test_the_card_has_the_datasets_own_figures(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "labels", codec="standard")
    (root / ".labelgen/job.yaml").write_text("prompts: [a.jsonl]\nteacher: fake\n")
    rescored = Rescored(
        num_records=4,
        num_labels=44,
        median_nats=1e-5,
        p999_nats=2e-4,
        largest_nats=3e-4,
        kl_nats=4.4e-4,
        num_argmax_equal=43,
        num_argmax_tied=1,
        num_argmax_different=0,
        problems=(),
        recorded={},
        created_at="2026-01-01T00:00:00+00:00",
    )
    (root / RESCORED_NAME).write_bytes(rescored.to_bytes())
    text = card_of(root)
    dataset = open_dataset(root)
    counts = total_counts(dataset.entries)
    for part in (
        f"{counts.num_labels:,} of {counts.num_tokens:,} tokens",
        f"{counts.kept_mass_sum / counts.num_labels:.4f} of the teacher's distribution",
        f"{counts.truncation_kl_sum / counts.num_labels:.4f} nats",
        f"{counts.codec_kl_sum / counts.num_labels:.2g} nats: what storing",
        f"{dataset.num_bytes:,} bytes in 2 shards",
        "44 labels of 4 records again",
        "the same in 43, tied in 1",
        "stop 6 (100.0%)",
        "labelgen generate -c job.yaml",
        "prompts: [a.jsonl]",
        dataset.header.fingerprint,
        *(f"{shard.sha256}  {shard.name}" for entry in dataset.entries for shard in entry.shards),
        "![Histograms: tokens and labels a record](card/lengths.png)",
    ):
        assert part in text, part
    for name in ("lengths.png", "labels.png"):
        assert (root / "card" / name).read_bytes().startswith(b"\x89PNG")


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    text = card_of(make_dataset(tmp_path / "labels"), with_plots=False)
    assert "unknown: no teacher has read records again" in text
    assert "Its job file is not at hand" in text
    assert "0: every value bit for bit" in text


def test_a_converted_dataset_names_where_it_comes_from(tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "a*b")
    convert_datasets(
        [str(source)], tmp_path / "cut", codec="exact", top_k=4, labelgen_version="0.1.0", watcher=SilentWatcher()
    )
    text = card_of(tmp_path / "cut", with_plots=False)
    assert "a&#42;b: top&#95;k=8, codec open, labelgen 0.1.0" in text
    assert "Its job file" not in text


@pytest.mark.parametrize("selection", [Selection(keep_mass=0.7, max_k=40), Selection(draws=20)], ids=["mass", "draws"])
def test_a_k_that_differs_is_described_and_drawn(selection: Selection, tmp_path: Path) -> None:
    text = card_of(make_dataset(tmp_path / "labels", selection=selection))
    assert re.search(r"candidates a label \| \d+ \(median\)", text)


def test_a_dataset_without_records_has_a_card(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path / "labels", make_header(), codec=codec_named("open"))
    writer.publish_block("000000", [], num_prompts=1, num_rejected=1, recorded={})
    assert "| records | 0 |" in card_of(tmp_path / "labels")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.add(tag)


def test_ids_prompts_and_names_become_no_markup(tmp_path: Path) -> None:
    header = make_header(teacher=EVIL)
    writer = DatasetWriter(tmp_path / "labels", header, codec=codec_named("open"))
    record = make_record(prompt_id=EVIL, messages=[{"role": "user", "content": EVIL}], text=EVIL)
    writer.publish_block("000000", [record], num_prompts=1, num_rejected=0, recorded={"engine": EVIL})
    first = (tmp_path / "labels/README.md").read_text()
    (tmp_path / "labels/.labelgen/job.yaml").write_text(f"teacher: {EVIL!r}\n````\n<b>\n")
    text = card_of(tmp_path / "labels", title=EVIL, with_plots=False)
    for page in (first, text):
        prose = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", parsed(page).text, flags=re.DOTALL | re.MULTILINE)
        tags = Tags()
        tags.feed(prose)
        assert tags.found <= {"details", "summary"}
        assert "](javascript" not in prose and "**c**" not in prose and "\u202e" not in prose
        assert "&lt;script&gt;alert" in prose
        assert all(line.count("|") == 3 for line in prose.splitlines() if line.startswith("|"))
    assert parsed(text).data.pretty_name.startswith("x</code><script>")


def test_a_code_block_holds_whatever_backticks_stand_in_it() -> None:
    assert fence("a ```` b") == "`````\na ```` b\n`````"
    assert escape_markdown("Qwen/Qwen2.5-0.5B") == "Qwen/Qwen2.5-0.5B"


@pytest.mark.parametrize(
    ("num_records", "expected"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**7, "10M<n<100M"), (10**12, "n>1T")],
)
def test_size_categories_are_the_hubs(num_records: int, expected: str) -> None:
    assert size_category(num_records) == expected


def test_an_edited_readme_is_kept_unless_asked(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "labels")
    text = card_of(root, with_plots=False)
    assert card_of(root, with_plots=False) == text  # unedited: written anew
    (root / "README.md").write_text(text.replace("## Size", "My note.\n\n## Size"))
    with pytest.raises(StorageError, match="was edited since labelgen wrote it"):
        write_card(root, licences=APACHE)
    assert "My note." in (root / "README.md").read_text()
    assert "My note." not in card_of(root, with_plots=False, overwrite=True)


def test_a_job_that_goes_on_keeps_card_and_edits(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "labels")
    for content in (card_of(root, with_plots=False), "# Mine\n"):
        (root / "README.md").write_text(content)
        DatasetWriter(root, make_header(), codec=codec_named("open")).finish()
        assert (root / "README.md").read_text() == content


@pytest.mark.parametrize("is_edited", [True, False])
def test_a_dataset_begun_anew_keeps_an_edited_readme_only(is_edited: bool, tmp_path: Path) -> None:
    DatasetWriter(tmp_path / "labels", make_header(), codec=codec_named("open"))
    path = tmp_path / "labels/README.md"
    assert is_unedited(path.read_bytes())
    if is_edited:
        path.write_text("# Mine\n")
    other = make_header(teacher="other", fingerprint_fields={"weights": "other"})
    DatasetWriter(tmp_path / "labels", other, codec=codec_named("open"))
    assert path.read_bytes() == (b"# Mine\n" if is_edited else first_readme(other))
