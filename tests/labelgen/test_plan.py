"""Plans against what comes of them: with the fake teacher, whose labels are really encoded."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from labelgen.cli import main
from labelgen.cli.render_plan import print_plan
from labelgen.job.spec import RunSpec
from labelgen.plan.choice import choose, parse_bytes
from labelgen.plan.plan import Plan, make_plan
from labelgen.plan.plot import plot_plan
from labelgen.plan.probe import count_prompts, probe_teacher
from labelgen.plan.projection import JobSize, Projection
from labelgen.plan.size_guess import guess_bytes_per_label, guess_truncation_kl
from labelgen.teachers.fake import FakeTeacher
from labelstore.dataset import open_dataset
from labelstore.selection import Selection
from make_records import make_dataset

MAX_TOKENS = 40


@pytest.fixture(autouse=True)
def _fake_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(spec: RunSpec) -> FakeTeacher:
        return FakeTeacher(selection=spec.selection, max_model_len=128)

    monkeypatch.setattr("labelgen.job.runner.load_teacher", load)


def write_prompts(path: Path) -> Path:
    rows = [{"id": f"p{i}", "prompt": f"question number {i}, and why?"} for i in range(240)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_prompts(tmp_path / "prompts.jsonl")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def plan() -> Plan:
    """A plan of 240 prompts from 40 of them, labelled with K = 16."""
    with tempfile.TemporaryDirectory(prefix="labelgen-test-") as folder:
        spec = RunSpec(
            task="generate",
            sources=(str(write_prompts(Path(folder) / "prompts.jsonl")),),
            output_dir=Path(folder) / "unused",
            teacher="fake",
            max_tokens=MAX_TOKENS,
        )
        teacher = FakeTeacher(selection=Selection(top_k=16), max_model_len=128)
        probe = probe_teacher(spec, num_prompts=40, top_k=16, teacher=teacher)
        num_prompts = count_prompts(spec)
    return make_plan(
        probe, num_prompts=num_prompts, num_labels=None, block_size=2048, budget_bytes=None, max_kl_nats=5.0
    )


def row_of(plan: Plan, codec: str, selection: Selection) -> Projection:
    (row,) = [row for row in plan.projections if row.codec == codec and row.selection == selection]
    return row


def test_a_probe_says_what_the_job_takes(plan: Plan, prompts: Path, tmp_path: Path) -> None:
    assert plan.num_prompts == 240 and plan.num_probed_records == 40 and plan.seconds is not None
    for codec in ("open", "standard"):
        out = tmp_path / codec
        options = ["--teacher", "fake", "--max-tokens", MAX_TOKENS, "--top-k", 16, "--codec", codec]
        made = call("generate", prompts, "-o", out, *options)
        assert made.exit_code == 0, made.output
        real = open_dataset(out)
        row = row_of(plan, codec, Selection(top_k=16))
        # Labels of no model repeat themselves as those of text do not; with real teachers it is within a tenth.
        assert row.num_bytes == pytest.approx(real.num_bytes, rel=0.2), codec
        assert plan.num_labels == pytest.approx(real.num_labels, rel=0.1)
        assert row.low < row.bytes_per_label < row.high and row.num_shards == 1


def test_a_plan_has_both_losses_for_every_choice(plan: Plan) -> None:
    exact, standard, small = (row_of(plan, codec, Selection(top_k=16)) for codec in ("exact", "standard", "small"))
    assert exact.codec_kl_nats < 1e-6 < standard.codec_kl_nats < small.codec_kl_nats
    assert exact.bytes_per_label > standard.bytes_per_label > small.bytes_per_label
    assert exact.truncation_kl_nats == standard.truncation_kl_nats == small.truncation_kl_nats
    narrow = row_of(plan, "open", Selection(top_k=8))
    assert narrow.kept_mass < standard.kept_mass and narrow.truncation_kl_nats > standard.truncation_kl_nats
    by_mass = row_of(plan, "open", Selection(keep_mass=0.9, max_k=16))
    assert by_mass.candidates_per_label <= 16 and by_mass.kept_mass <= standard.kept_mass


def test_a_plan_is_shown_as_a_table_as_json_and_as_a_picture(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_plan(plan, as_json=False)
    shown = capsys.readouterr().out
    for text in (
        "truncation",
        "top_k=16",
        "keep_mass=0.95",
        "whole job",
        "codec KL, beside truncation's",
        "* --top-k 8",
    ):
        assert text in shown
    print_plan(plan, as_json=True)
    values = json.loads(capsys.readouterr().out)
    assert values["labels"] == plan.num_labels and len(values["rows"]) == len(plan.projections) == 20
    assert values["choice"]["chosen"]["selection"] == {"top_k": 8} and "the smallest of" in values["choice"]["reason"]
    plot_plan(plan, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_a_job_file_can_be_planned(prompts: Path, tmp_path: Path) -> None:
    job = call("generate", prompts, "-o", tmp_path / "out", "--teacher", "fake", "--dry-run", "--yaml")
    (tmp_path / "job.yaml").write_text(job.stdout)
    probe = ["--probe", 20, "--probe-top-k", 4, "--max-tokens", MAX_TOKENS, "--prompts", 1000]
    result = call("plan", prompts, "-c", tmp_path / "job.yaml", *probe, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["prompts"] == 1000 and plan["probed_records"] == 20 and plan["seconds"] > 0
    counted = call("plan", prompts, "-c", tmp_path / "job.yaml", *probe[:-2], "--json", "--quiet")
    assert counted.exit_code == 0 and json.loads(counted.stdout)["prompts"] > 20, counted.output


def test_a_finished_dataset_says_what_less_would_save(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--teacher", "fake", "--max-tokens", MAX_TOKENS, "--top-k", 4, "--codec", "open", "--limit", 60]
    assert call("generate", write_prompts(tmp_path / "p.jsonl"), "-o", out, *options).exit_code == 0
    dataset = open_dataset(out)
    result = call("plan", out, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["labels"] == dataset.num_labels and plan["labels_per_second"] is None
    (row,) = [row for row in plan["rows"] if row["codec"] == "open" and row["selection"] == {"top_k": 4}]
    assert row["num_bytes"] == pytest.approx(dataset.num_bytes, rel=0.1)


def test_what_cannot_be_planned_is_one_line(prompts: Path, tmp_path: Path) -> None:
    refused: list[tuple[list[object], int, str]] = [
        ([], 2, "say how large the job is with --labels"),
        ([prompts, "--probe", 20], 2, "--probe needs SOURCES and --teacher"),
        (["-", "--probe", 20, "--teacher", "fake"], 2, "say with --prompts how many prompts"),
        ([prompts, "--probe", 4, "--teacher", "fake"], 1, "too few to plan from; probe at least 16 prompts"),
        (["--labels", 100, "--budget", "much"], 1, "--budget must be a size such as 500GB"),
        (
            [make_dataset(tmp_path / "d", selection=Selection(draws=5))],
            1,
            "a plan is made from labels with --top-k alone",
        ),
    ]
    for arguments, exit_code, message in refused:
        result = call("plan", *arguments)
        assert result.exit_code == exit_code and message in " ".join(result.output.split()), result.output


def test_without_an_engine_a_plan_is_marked_as_a_guess() -> None:
    plan = json.loads(call("plan", "--labels", "1e9", "--budget", "110GB", "--json").stdout)
    assert plan["is_guess"] and plan["measurements"].startswith("benchmarks/results/")
    fits = {(row["top_k"], row["codec"]) for row in plan["rows"] if row["fits"]}
    assert (64, "standard") in fits and (128, "standard") not in fits and (64, "open") not in fits
    shown = call("plan", "--labels", "1e9")
    assert "1,000,000,000 labels: a guess" in shown.stdout and "--probe 64 measures it" in shown.stdout


def test_the_guess_holds_what_was_measured_since() -> None:
    root = Path(__file__).resolve().parent.parent.parent
    rows = json.loads((root / "benchmarks/results/storage-2026-11-24.json").read_text())["rows"]
    measured = [row for row in rows if row["is_codec"]]
    assert len(measured) > 50
    for row in measured:
        parts = dict(part.split("=") for part in row["selection"].split(", "))
        selection = Selection(**{n: float(v) if n == "keep_mass" else int(v) for n, v in parts.items()})  # type: ignore[arg-type]
        size, kl = guess_bytes_per_label(selection, row["method"]), guess_truncation_kl(selection)
        assert size.low <= row["bytes_per_label"] * 1.001 <= size.high * 1.001
        assert (kl is not None) == (selection.top_k is not None)
        assert kl is None or kl.low * 0.9 <= row["truncation_kl_nats"] <= kl.high * 1.1


def projection(top_k: int, codec: str, size: float, truncation: float, codec_kl: float) -> Projection:
    return Projection(
        selection=Selection(top_k=top_k),
        codec=codec,
        candidates_per_label=top_k,
        kept_mass=0.9,
        truncation_kl_nats=truncation,
        codec_kl_nats=codec_kl,
        bytes_per_label=size,
        low=0.9 * size,
        high=1.1 * size,
        num_bytes=1e9 * size,
        num_shards=1,
    )


CHOICES = [
    projection(16, "standard", 20, 0.2, 4e-4),
    projection(64, "standard", 65, 0.1, 4e-4),
    projection(64, "small", 58, 0.1, 2e-3),
    projection(128, "small", 107, 0.07, 2e-3),
]


def test_a_budget_takes_what_loses_least_and_fits_with_its_interval() -> None:
    assert choose(CHOICES, budget_bytes=72e9).chosen is CHOICES[1]
    assert choose(CHOICES, budget_bytes=70e9).chosen is CHOICES[2]  # 65 GB fit, 71.5 GB would not
    assert choose(CHOICES, budget_bytes=1e12).chosen is CHOICES[3]
    nothing = choose(CHOICES, budget_bytes=1e9)
    assert nothing.chosen is None and "the smallest, top_k=16 with --codec standard, takes 20 GB" in nothing.reason


def test_a_bound_on_the_loss_takes_the_smallest_and_keeps_the_two_losses_apart() -> None:
    assert choose(CHOICES, max_kl_nats=0.1).chosen is CHOICES[2]
    assert choose([*CHOICES, projection(64, "bad", 1, 0.05, 0.3)], max_kl_nats=0.1).chosen is CHOICES[2]
    assert choose(CHOICES, max_kl_nats=0.1, budget_bytes=30e9).chosen is None
    assert "the least truncation KL here is 0.07" in choose(CHOICES, max_kl_nats=0.01).reason


def test_sizes_are_read_with_their_units() -> None:
    assert [parse_bytes(text) for text in ("500GB", "1.5 TB", "2GiB", "7")] == [5e11, 1.5e12, 2**31, 7]
    for text in ("much", "5 parsecs", "-1GB"):
        with pytest.raises(ValueError, match="--budget must be a size"):
            parse_bytes(text)


def test_a_job_is_as_many_blocks_as_its_labels_fill() -> None:
    assert JobSize(num_labels=10, labels_per_block=4).num_blocks == 3
    assert JobSize(num_labels=3, labels_per_block=4).num_blocks == 1
