"""What a run's settings and its teacher come to: the requests, the header, and what entries record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import labelgen
from labelgen.job.fingerprint import fingerprint_fields
from labelgen.job.requests import PromptRequests
from labelgen.job.spec import RunSpec
from labelgen.prompts.thinking import find_think_tokens
from labelgen.teachers.teacher import Teacher
from labelstore.dataset_writer import utc_now
from labelstore.header import Header

__all__ = ["JobSetup"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSetup:
    """The same for a job, for each of its replicas, and for the next job on the dataset."""

    requests: PromptRequests
    header: Header
    recorded: dict[str, Any]  # what each block's entry says of how it was made

    @classmethod
    def of(cls, spec: RunSpec, teacher: Teacher, *, scored_datasets: Sequence[Mapping[str, Any]] = ()) -> JobSetup:
        """Join a run's settings and the facts of its teacher, which need not be started.

        `scored_datasets` says which label datasets the run scores.

        Raises:
            ValueError: they do not go together.
        """
        if teacher.selection != spec.selection:
            raise ValueError(f"the teacher captures {teacher.selection}, the spec asks for {spec.selection}")
        facts = teacher.facts
        sampling, sampling_origins = spec.sampling.resolve(facts.sampling_defaults)
        if (spec.task == "score" or sampling.is_constrained) and facts.scoring_problem is not None:
            raise ValueError(facts.scoring_problem)
        recorded = {"labelgen_version": labelgen.__version__, **facts.recorded}
        think_tokens = find_think_tokens(teacher.tokenizer, spec.think_tokens)
        if scored_datasets:
            recorded["scored_datasets"] = list(scored_datasets)
        if spec.task == "generate":
            teacher.check_sampling(sampling)
            recorded["responses"] = spec.responses
            recorded["sampling_origins"] = sampling_origins
            origins = {**dict.fromkeys(sampling.stop_ids, "option"), **facts.stop_ids}
            recorded["stop_id_origins"] = {str(token_id): origins[token_id] for token_id in sorted(origins)}
            recorded["scored_after_writing"] = sampling.is_constrained
        return cls(
            requests=PromptRequests(
                spec=spec, facts=facts, tokenizer=teacher.tokenizer, sampling=sampling, think_tokens=think_tokens
            ),
            header=Header(
                task=spec.task,
                teacher=spec.teacher,
                vocab_size=facts.vocab_size,
                selection=spec.selection,
                fingerprint_fields=fingerprint_fields(spec, facts, sampling, think_tokens=think_tokens),
                labelgen_version=labelgen.__version__,
                created_at=utc_now(),
            ),
            recorded=recorded,
        )
