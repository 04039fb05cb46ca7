"""What one driver core encodes and writes: an engine that answers at once, everything else real, down to the disk.

    python benchmarks/driver_capacity.py [--labels 300000] [--top-k 64]

Each answer is put together of prepared labels, drawn at random and with log-probabilities scaled, so that no two are
alike. As those of a teacher, labels are of kinds: most candidates are among some hundred ids that belong to the kind.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import resource
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import labelgen
from labelgen.prompts.token_spans import TokenSpan
from labelgen.teachers.fake import FakeTokenizer
from labelgen.teachers.sampling import Sampling
from labelgen.teachers.teacher import Answer, GenerateRequest, Refusal, Request, TeacherFacts
from labelgen.teachers.vllm_logprobs import Positions, labels_of
from labelstore.codecs import DEFAULT_CODEC
from labelstore.journal import DEFAULT_FLUSH_SECONDS
from labelstore.selection import Selection

__all__ = ["InstantTeacher", "measure"]

VOCAB_SIZE = 151_936
_NUM_PREPARED = 32_768  # labels
_NUM_KINDS = 256


class InstantTeacher:
    """Answers at once; what vLLM would give becomes labels as with vLLM."""

    def __init__(self, *, top_k: int) -> None:
        self.selection = Selection(top_k=top_k)
        self.tokenizer = FakeTokenizer()
        self._positions = _make_positions(top_k)
        self._rng = np.random.default_rng(1)
        self.facts = TeacherFacts(
            name="instant",
            vocab_size=VOCAB_SIZE,
            max_model_len=1 << 20,
            max_scored_tokens=1 << 20,
            stop_ids={},
            sampling_defaults={},
            fingerprint_fields={"weights": "instant", **self.tokenizer.fingerprint_fields},
            recorded={"engine": "instant"},
        )

    def check_sampling(self, sampling: Sampling) -> None:
        pass

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        for request in requests:
            assert isinstance(request, GenerateRequest)
            drawn = self._rng.integers(_NUM_PREPARED, size=request.max_tokens)
            positions = Positions(
                token_ids=self._positions.token_ids[drawn],
                logprobs=self._positions.logprobs[drawn] * np.float32(1 + self._rng.random()),
                ranks=self._positions.ranks[drawn],
            )
            targets, first = positions.token_ids[:, 0], len(request.prompt_ids)
            yield Answer(
                request_id=request.request_id,
                input_ids=np.concatenate([request.prompt_ids, targets]),
                spans=(TokenSpan(start=first, stop=first + len(targets), kind=request.kind),),
                labels=labels_of(positions, targets, self.selection),
                finish_reason="length",
            )


def _make_positions(top_k: int) -> Positions:
    rng = np.random.default_rng(0)
    pool_size = 4 * top_k + 64  # ids that a kind of label prefers, the frequent ones for many kinds
    frequency = -np.log(1 + rng.permutation(VOCAB_SIZE))
    pools = np.stack([np.argpartition(-_disturbed(frequency, rng), pool_size)[:pool_size] for _ in range(_NUM_KINDS)])
    preferences = np.sort(rng.exponential(2.0, (_NUM_KINDS, pool_size)), axis=1)
    ids = np.empty((_NUM_PREPARED, top_k), dtype=np.int32)
    logits = np.empty((_NUM_PREPARED, top_k))
    for row in range(_NUM_PREPARED):
        kind = rng.integers(_NUM_KINDS)
        scores = _disturbed(preferences[kind], rng)
        chosen = np.argsort(-scores)[:top_k]
        ids[row], logits[row] = pools[kind, chosen], scores[chosen]
        others = rng.choice(VOCAB_SIZE, top_k, replace=False)  # an eighth is as no other label's
        ids[row, top_k - top_k // 8 :] = others[~np.isin(others, ids[row])][: top_k // 8]
    logprobs = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)) - 0.05).astype(np.float32)
    target = rng.integers(0, top_k, _NUM_PREPARED)
    rows = np.arange(_NUM_PREPARED)
    return Positions(
        token_ids=np.concatenate([ids[rows, target][:, None], ids], axis=1),
        logprobs=np.concatenate([logprobs[rows, target][:, None], logprobs], axis=1),
        ranks=(target + 1).astype(np.int32),
    )


def _disturbed(scores: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    return scores + rng.gumbel(size=scores.shape)


def measure(
    *,
    num_labels: int,
    top_k: int,
    response_tokens: int,
    root: Path,
    block_size: int = 2048,
    codec: str = DEFAULT_CODEC,
    flush_seconds: float = DEFAULT_FLUSH_SECONDS,
) -> dict[str, float]:
    """Run a job of about `num_labels` labels; return labels per second of wall clock and of processor time."""
    num_prompts = max(num_labels // response_tokens, 1)
    source = root / "prompts.jsonl"
    with source.open("w") as file:
        for i in range(num_prompts):
            file.write(json.dumps({"id": f"p{i}", "prompt": f"question {i}"}) + "\n")
    spec = labelgen.RunSpec(
        task="generate",
        sources=(str(source),),
        output_dir=root / "out",
        teacher="instant",
        selection=Selection(top_k=top_k),
        codec=codec,
        max_tokens=response_tokens,
        block_size=block_size,
        flush_seconds=flush_seconds,
        rescore_at_end=0,
    )
    teacher = InstantTeacher(top_k=top_k)
    start, start_cpu = time.perf_counter(), time.process_time()
    summary = labelgen.run(spec, teacher=teacher)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    return {
        "labels": summary.num_new_labels,
        "labels_per_second": round(summary.num_new_labels / seconds),
        "labels_per_cpu_second": round(summary.num_new_labels / cpu_seconds),
        "bytes_per_label": round(summary.num_bytes / summary.num_new_labels, 1),
        "max_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=300_000)
    parser.add_argument("--top-k", type=int, default=64)
    parser.add_argument("--response-tokens", type=int, default=256)
    parser.add_argument("--block-size", type=int, default=256)
    parser.add_argument("--codec", default=DEFAULT_CODEC)
    parser.add_argument(
        "--flush-seconds", type=float, default=DEFAULT_FLUSH_SECONDS, help="0.01: everything goes through the journal"
    )
    parser.add_argument("--profile", action="store_true", help="print where the driver's main thread spends its time")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {0})  # one core for all threads
    root = Path(tempfile.mkdtemp(prefix="labelgen-capacity-"))
    profile = cProfile.Profile()
    try:
        if arguments.profile:
            profile.enable()
        figures = measure(
            num_labels=arguments.labels,
            top_k=arguments.top_k,
            response_tokens=arguments.response_tokens,
            block_size=arguments.block_size,
            codec=arguments.codec,
            flush_seconds=arguments.flush_seconds,
            root=root,
        )
        profile.disable()
    finally:
        shutil.rmtree(root)
    if arguments.profile:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(25)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
