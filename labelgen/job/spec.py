"""A run, described whole: everything `labelgen generate` and `labelgen score` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from labelgen.job.kept_positions import KeptPositions
from labelgen.job.part import Part
from labelgen.prompts.chat_template import ChatTemplate
from labelgen.prompts.label_spans import LABEL_SPANS, LabelSpans
from labelgen.prompts.prompt_fields import PromptFields, Task
from labelgen.prompts.prompt_sample import PromptSample
from labelgen.prompts.rejects import RejectLimit
from labelgen.teachers.engine_settings import EngineSettings
from labelgen.teachers.sampling import SamplingChoice
from labelstore.codecs import DEFAULT_CODEC, codec_named
from labelstore.journal import DEFAULT_FLUSH_SECONDS
from labelstore.location import Location, as_location
from labelstore.selection import Selection

__all__ = ["RunSpec"]

DEFAULT_TOP_K = 64
# The unit of work. See docs/jobs.md for the arithmetic.
DEFAULT_BLOCK_SIZE = 2048
DEFAULT_MAX_TOKENS = 1024
DEFAULT_RESCORED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What to label, with which teacher, into which folder.

    Raises:
        ValueError: a value is out of its range; the message names the command line's option.
    """

    task: Task  # "generate": answer prompts; "score": read given text
    sources: tuple[str, ...]  # files, folders, patterns, URLs, hf: datasets, or "-" for stdin
    output_dir: Location  # a folder, or a URL such as s3://bucket/labels
    teacher: str  # a model folder or a hub name
    selection: Selection = field(default_factory=lambda: Selection(top_k=DEFAULT_TOP_K))
    codec: str = DEFAULT_CODEC
    block_size: int = DEFAULT_BLOCK_SIZE  # prompts in a unit of work
    fields: PromptFields = field(default_factory=PromptFields)  # what of a row is the prompt, and what is kept
    chat_template: ChatTemplate = field(default_factory=ChatTemplate)
    stride: int | None = None  # score: tokens that each window of a long text labels; None: seven eighths of it
    label_spans: LabelSpans = "all"  # which tokens are labelled, of those that can be
    keep_positions: KeptPositions | None = None  # which of them keep their soft label; None: all
    limit: int | None = None  # prompts at most, the first ones
    sample: PromptSample | None = None  # prompts at most, of all
    max_rejects: RejectLimit | None = None  # more than these end the job
    retry_rejected: bool = False  # try what was rejected before again
    part: Part | None = None  # of the blocks; None: all
    replicas: int | None = None  # engines under Ray; None: one, without Ray, or with `ray` as many as the cluster holds
    ray: str | None = (
        None  # a cluster's address, "auto" for the one that this machine is in; None: none but a local one
    )
    journal_dir: Path | None = None  # where finished responses of open blocks go; None: into output_dir
    flush_seconds: float = DEFAULT_FLUSH_SECONDS  # what a crash loses at most of finished responses
    grace_seconds: float = 0.0  # after a first signal, before what is in flight is given up
    rescore_at_end: int = DEFAULT_RESCORED  # records that the teacher reads again when all is labelled; 0: none
    engine: EngineSettings = field(default_factory=EngineSettings)
    sampling: SamplingChoice = field(default_factory=SamplingChoice)  # generate only, as all that follow
    responses: int = 1  # to each prompt
    max_tokens: int = DEFAULT_MAX_TOKENS  # in a response
    think_tokens: tuple[str, str] | None = None  # that begin and end thinking; None: as the tokenizer is known by
    prefill: str | None = None  # the beginning of each response, given and not labelled
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task not in ("generate", "score"):
            raise ValueError(f"task must be 'generate' or 'score', got {self.task!r}")
        sources: object = self.sources
        if isinstance(sources, str):
            raise TypeError(f"sources is a tuple of names, got the string {sources!r}; write ({sources!r},)")
        object.__setattr__(self, "output_dir", as_location(self.output_dir))  # any string is as good
        if self.journal_dir is not None:
            object.__setattr__(self, "journal_dir", Path(self.journal_dir))
        if not self.sources:
            raise ValueError("nothing to label: name at least one source")
        for name in ("block_size", "responses", "max_tokens", "limit", "stride", "replicas"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if self.limit is not None and self.sample is not None:
            raise ValueError("--limit takes the first prompts and --sample-prompts some of all; give one of them")
        if self.label_spans not in LABEL_SPANS:
            raise ValueError(f"--label-spans must be one of {', '.join(LABEL_SPANS)}, got {self.label_spans!r}")
        keeps_by_entropy = self.keep_positions is not None and self.keep_positions.rule == "entropy"
        if keeps_by_entropy and self.selection.draws is not None and not self.selection.entropy:
            raise ValueError("--keep-positions entropy: draws do not say how sure the teacher is; add --entropy")
        if self.sampling.max_think_tokens is not None and self.think_tokens is None:
            raise ValueError("--max-think-tokens needs --think-tokens START END, which the engine is started with")
        if self.prefill == "":
            raise ValueError("--prefill must not be empty")
        if self.sampling.min_tokens > self.max_tokens:
            raise ValueError(f"--min-tokens {self.sampling.min_tokens} is above --max-tokens {self.max_tokens}")
        if not 0 < self.flush_seconds < float("inf"):
            raise ValueError(f"--flush-seconds must be above 0, got {self.flush_seconds}")
        if not 0 <= self.grace_seconds < float("inf"):
            raise ValueError(f"--grace-seconds must be at least 0, got {self.grace_seconds}")
        if self.rescore_at_end < 0:
            raise ValueError(f"--rescore-at-end must be at least 0, got {self.rescore_at_end}")
        if self.part is not None and self.retry_rejected:
            raise ValueError(
                "--retry-rejected makes new blocks of what was rejected, which parts would do one after the other: "
                "give it without --part"
            )
        if self.part is not None and self.is_replicated:
            raise ValueError(
                "--part is for jobs that know nothing of each other, --replicas and --ray are one job's: give one"
            )
        codec_named(self.codec)

    @property
    def is_replicated(self) -> bool:
        """Do several engines label it, under Ray?"""
        return self.replicas is not None or self.ray is not None
