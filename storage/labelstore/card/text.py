"""The card's text: what is in a dataset, how far it can be trusted, and how to make it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.card.distributions import Distributions
from labelstore.card.header_block import header_block
from labelstore.dataset import LabelDataset
from labelstore.entry import LabelCounts, ShardEntry, total_counts
from labelstore.markdown import escape_markdown, fence, plain_line
from labelstore.record import LabelRecord
from labelstore.rescored import Rescored
from labelstore.stream_bytes import STREAM_TITLES, sum_streams

__all__ = ["Licences", "card_text"]

_MAX_LISTED_SHARDS = 50
_SHOWN_CHARACTERS = 400
_ALT_TEXTS = {
    "lengths.png": "Histograms: tokens and labels a record",
    "labels.png": "How much of the distribution labels keep, and how likely the token that follows was",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Licences:
    """Licences as somebody gave them; None: not known."""

    dataset: str | None = None
    teacher: str | None = None
    prompts: str | None = None


def card_text(
    dataset: LabelDataset,
    distributions: Distributions,
    *,
    title: str,
    licences: Licences,
    job: str | None,
    plots: Sequence[str],
) -> str:
    """Return the card as Markdown; `job` is the job file that made the dataset, `plots` are names of pictures."""
    counts = total_counts(dataset.entries)
    shards = [shard for entry in dataset.entries for shard in entry.shards]
    tags = ["distillation", "soft-labels", "labelgen", f"codec-{'-'.join(_codecs(shards)) or 'none'}"]
    parts = [
        header_block(title=title, licence=licences.dataset, num_records=counts.num_records, tags=tags),
        f"# {escape_markdown(title)}",
        _what_it_is(dataset, counts),
        "## Load it\n\n"
        + fence(
            "import labelstore  # pip install labelgen\n\n"
            'dataset = labelstore.open_dataset("path/to/this/folder")  # or "hf://datasets/OWNER/NAME"\n'
            "record = dataset[0]\n"
            "record.input_ids, record.positions, record.token_ids, record.logprobs, record.tail_mass",
            language="python",
        )
        + "\n\n`record.token_ids[n]` and `record.logprobs[n]` are what the teacher believed about the token "
        "`input_ids[positions[n]]`; they belong to a student's `logits[positions[n] - 1]`. "
        + _other_tools(_codecs(shards)),
        _licences(licences),
        _sizes(counts, dataset.num_bytes, shards),
        _fidelity(counts, dataset.rescored, _codecs(shards)),
        _lengths(counts, distributions),
        "\n\n".join(f"![{_ALT_TEXTS[name.rsplit('/', 1)[-1]]}]({name})" for name in plots),
        _example(distributions.first),
        _made_by(dataset, job),
        _checksums(dataset, shards),
    ]
    return "\n\n".join(part for part in parts if part)


def _what_it_is(dataset: LabelDataset, counts: LabelCounts) -> str:
    header = dataset.header
    did = "answered prompts" if header.task == "generate" else "read given texts"
    return (
        f"The teacher **{escape_markdown(header.teacher)}** {did}; this is what it believed about each of "
        f"{counts.num_labels:,} tokens: for distilling a student with the same tokenizer, without the teacher.\n\n"
        + _table(
            {
                "records": f"{counts.num_records:,}",
                "labels": f"{counts.num_labels:,} of {counts.num_tokens:,} tokens",
                "kept of each label": escape_markdown(str(header.selection)),
                "rows of the output layer": f"{header.vocab_size:,}",
                "precision": escape_markdown(_precision(dataset)),
                "logprobs": "natural logarithms, raw: before temperature, top-p and penalties",
                "sampling": escape_markdown(_sampling(dataset)),
            }
        )
    )


def _precision(dataset: LabelDataset) -> str:
    fields = dataset.header.fingerprint_fields
    names = {"dtype": "dtype", "head_dtype": "head", "kv_cache_dtype": "KV cache", "quantization": "quantization"}
    return ", ".join(f"{name} {fields[key]}" for key, name in names.items() if fields.get(key) is not None)


def _sampling(dataset: LabelDataset) -> str:
    fields = dataset.header.fingerprint_fields
    settings = fields.get("sampling")
    if not isinstance(settings, dict):
        return ""
    values = {**settings, "seed": fields.get("run_seed"), "max_tokens": fields.get("max_tokens")}
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, [], ()))


def _other_tools(codecs: Sequence[str]) -> str:
    tools = "`datasets.load_dataset`, DuckDB, pandas and polars read"
    if codecs == ["open"]:
        return f"{tools} all columns as they are."
    return (
        f"{tools} texts, ids and hard labels as they are; the soft labels are packed, and "
        f"`labelgen convert --codec open` gives them as plain columns."
    )


def _licences(licences: Licences) -> str:
    def shown(licence: str | None) -> str:
        return "unknown: ask before you use it" if licence is None else escape_markdown(licence)

    return "## Licences\n\n" + _table(
        {
            "this dataset": shown(licences.dataset),
            "the teacher": shown(licences.teacher),
            "the prompts": shown(licences.prompts),
        }
    )


def _sizes(counts: LabelCounts, num_bytes: int, shards: Sequence[ShardEntry]) -> str:
    rows = {"on disk": f"{num_bytes:,} bytes in {len(shards):,} {'shard' if len(shards) == 1 else 'shards'}"}
    if counts.num_labels:
        rows["a label"] = f"{num_bytes / counts.num_labels:,.1f} bytes, everything included"
        streams = sum_streams(shard.stream_bytes for shard in shards)
        rows |= {
            f"… {escape_markdown(STREAM_TITLES.get(name, name))}": f"{size / counts.num_labels:,.2f} bytes a label"
            for name, size in streams.items()
            if size
        }
    return "## Size\n\n" + _table({"codec": ", ".join(_codecs(shards)), **rows})


def _fidelity(counts: LabelCounts, rescored: Rescored | None, codecs: Sequence[str]) -> str:
    if not counts.num_labels:
        return ""
    codec_kl = counts.codec_kl_sum / counts.num_labels
    rows = {
        "kept mass": f"{counts.kept_mass_sum / counts.num_labels:.4f} of the teacher's distribution, mean",
        "truncation KL": f"{counts.truncation_kl_sum / counts.num_labels:.4f} nats: what the tokens that are not kept "
        f"cost a student that renormalizes the candidates; the mass of all others (`tail_mass`) is there",
        "codec KL": f"{codec_kl:.2g} nats: what storing the values lost" if codec_kl else "0: every value bit for bit",
        "noise floor": _noise_floor(rescored),
    }
    problems = [] if rescored is None else [f"- ✗ {escape_markdown(problem)}" for problem in rescored.problems]
    return "\n\n".join(["## Fidelity", _table(rows), *(["\n".join(problems)] if problems else [])])


def _noise_floor(rescored: Rescored | None) -> str:
    if rescored is None or not rescored.num_labels:
        return "unknown: no teacher has read records again"
    argmax = f"the most likely token the same in {rescored.num_argmax_equal:,}"
    if rescored.num_argmax_tied:
        argmax += f", tied in {rescored.num_argmax_tied:,}"
    if rescored.num_argmax_different:
        argmax += f", another in {rescored.num_argmax_different:,}"
    difference = "no difference beyond the codec's rounding"
    if rescored.largest_nats:
        difference = f"off by {rescored.median_nats:.1e} nats (median) and {rescored.p999_nats:.1e} (p99.9)"
    return (
        f"the teacher read {rescored.num_labels:,} labels of {rescored.num_records:,} records again: {difference}, "
        f"KL {rescored.kl_nats:.1e} nats, {argmax}"
    )


def _lengths(counts: LabelCounts, distributions: Distributions) -> str:
    if not len(distributions.labels):
        return ""
    rows = {
        "tokens a record": _quantiles(distributions.tokens),
        "labels a record": _quantiles(distributions.labels),
        "candidates a label": _quantiles(distributions.candidates) if len(distributions.candidates) else "",
    }
    if counts.finish_reasons:
        reasons = sorted(counts.finish_reasons.items())
        rows["finished by"] = ", ".join(
            f"{escape_markdown(reason)} {count:,} ({count / counts.num_records:.1%})" for reason, count in reasons
        )
    of = f"Of {len(distributions.labels):,} records from all over the dataset. " if distributions.is_sample else ""
    return f"## Lengths\n\n{of}`length`: cut at the most tokens allowed; `stop`: ended by itself.\n\n" + _table(rows)


def _quantiles(values: NDArray[np.int64]) -> str:
    low, middle, high, highest = np.quantile(values, [0.05, 0.5, 0.95, 1.0])
    if low == highest:
        return f"{highest:,.0f}"
    return f"{middle:,.0f} (median), {low:,.0f} to {high:,.0f} (5% to 95%), {highest:,.0f} at most"


def _example(record: LabelRecord | None) -> str:
    if record is None:
        return ""
    prompt = record.prompt
    if record.messages:
        last = record.messages[-1]
        prompt = f"{last.get('role')}: {last.get('content')}"
    shown = {"id": record.record_id, "prompt": prompt, "labelled": record.text}
    return "## A record\n\n" + _table(
        {name: escape_markdown(_cut(text)) for name, text in shown.items() if text is not None}
    )


def _made_by(dataset: LabelDataset, job: str | None) -> str:
    header = dataset.header
    recorded = dataset.entries[0].recorded if dataset.entries else {}
    engine = " ".join(str(recorded[name]) for name in ("engine", "vllm_version", "device") if name in recorded)
    made = f"With labelgen {escape_markdown(header.labelgen_version)}, begun {escape_markdown(header.created_at)}"
    made += f", {escape_markdown(engine)}." if engine else "."
    chain = dict.fromkeys(
        f"- {escape_markdown(_conversion_step(step))}"
        for entry in dataset.entries
        for step in entry.recorded.get("converted_from", [])
    )
    if chain:
        made += "\n\nConverted from, oldest first:\n\n" + "\n".join(chain)
    elif job is not None:
        made += (
            f"\n\nTo make it again, with the same teacher and prompts, save this as `job.yaml` and run "
            f"`labelgen {header.task} -c job.yaml`:\n\n{fence(job, language='yaml')}"
        )
    else:
        made += "\n\nIts job file is not at hand; the settings that change a label are in `manifest.json`."
    return f"## How it was made\n\n{made}"


def _conversion_step(step: Mapping[str, Any]) -> str:
    kept = ", ".join(f"{name}={value}" for name, value in step["selection"].items())
    return f"{step['location']}: {kept}, codec {step['codec']}, labelgen {step['labelgen_version']}"


def _checksums(dataset: LabelDataset, shards: Sequence[ShardEntry]) -> str:
    text = (
        "## Checksums\n\n`labelgen verify` checks every byte. The fingerprint is the hash of all that changes a "
        f"label: two datasets with the same one can be joined.\n\n`{dataset.header.fingerprint}`"
    )
    if len(shards) > _MAX_LISTED_SHARDS:
        return f"{text}\n\n`manifest.json` has the sha256 of each of the {len(shards):,} shards."
    sums = "\n".join(f"{shard.sha256}  {shard.name}" for shard in shards)
    return (
        f"{text}\n\n<details><summary>sha256 of the shards</summary>\n\n{fence(sums)}\n\n</details>" if sums else text
    )


def _table(rows: dict[str, str]) -> str:
    lines = [f"| {name} | {text} |" for name, text in rows.items() if text]
    return "\n".join(["| | |", "|---|---|", *lines])


def _codecs(shards: Sequence[ShardEntry]) -> list[str]:
    return sorted({shard.codec for shard in shards})


def _cut(text: str) -> str:
    line = plain_line(text)
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}…"
