"""A plan: what a job will take, keep and last, for every selection and codec."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from labelgen.plan.choice import Choice, choose
from labelgen.plan.probe import Probe
from labelgen.plan.projection import JobSize, Projection, project_sizes
from labelstore.codecs import CODECS
from labelstore.selection import Selection

__all__ = ["Plan", "make_plan", "selections_of"]

_TOP_KS = (8, 16, 32, 64, 128, 256)
_MASSES = (0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is known of a job before it is run."""

    teacher: str
    num_probed_records: int
    num_probed_labels: int
    num_prompts: int | None  # of the job; None for a dataset
    labels_per_prompt: float
    labels_per_prompt_error: float  # 95%; 0 where all labels are known
    num_labels: int  # of the job
    labels_per_second: float | None  # as the probe ran; None for a dataset
    projections: tuple[Projection, ...]
    choice: Choice | None  # under --budget or --max-kl

    @property
    def seconds(self) -> float | None:
        """How long the job takes at the probe's rate, which is that of few requests and so the slowest."""
        return None if not self.labels_per_second else self.num_labels / self.labels_per_second


def make_plan(
    probe: Probe,
    *,
    num_prompts: int | None,
    num_labels: int | None,
    block_size: int,
    budget_bytes: float | None,
    max_kl_nats: float | None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Project a job of `num_prompts` prompts, or of `num_labels` labels that are known, from a probe.

    `watch` is told how many of how many projections are made.

    Raises:
        ValueError: the probe is too small.
        ImportError: packed codecs need numba.
    """
    mean, error = probe.labels_per_prompt()
    if num_labels is None:
        assert num_prompts is not None, "one of the two says how large the job is"
        num_labels = max(1, round(mean * num_prompts))
    else:
        error = 0.0
    selections, codecs = selections_of(probe), list(CODECS)
    job = JobSize(num_labels=num_labels, labels_per_block=max(1, min(num_labels, round(mean * block_size))))
    total = len(selections) * len(codecs)
    projections = []
    for projection in project_sizes(probe.records, probe.header, selections=selections, codecs=codecs, job=job):
        projections.append(projection)
        watch(len(projections), total)
    is_asked = budget_bytes is not None or max_kl_nats is not None
    return Plan(
        teacher=probe.header.teacher,
        num_probed_records=len(probe.records),
        num_probed_labels=probe.num_labels,
        num_prompts=num_prompts,
        labels_per_prompt=mean,
        labels_per_prompt_error=error,
        num_labels=num_labels,
        labels_per_second=probe.labels_per_second,
        projections=tuple(projections),
        choice=choose(projections, budget_bytes=budget_bytes, max_kl_nats=max_kl_nats) if is_asked else None,
    )


def selections_of(probe: Probe) -> Sequence[Selection]:
    """Return the selections that a probe's labels are wide enough for: every K, and the sets by mass."""
    width = probe.header.selection.top_k
    assert width is not None, "a probe keeps the most likely"
    top_ks = sorted({*(k for k in _TOP_KS if k <= width), width})
    by_mass = [Selection(keep_mass=mass, max_k=width) for mass in _MASSES]
    return [*(Selection(top_k=k) for k in top_ks), *by_mass]
