"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from labelgen.cli.grouped_help import grouped
from labelgen.cli.job_file import job_file_option
from labelgen.cli.option_types import ID_AND_BIAS, LOCATION, NAME_AND_VALUE, TEXT_FILE
from labelgen.prompts.label_spans import LABEL_SPANS

__all__ = [
    "adapter_option",
    "chat_options",
    "dataset_argument",
    "expert_parallel_option",
    "field_option",
    "gpu_memory_option",
    "json_option",
    "label_spans_option",
    "output_option",
    "pipeline_parallel_option",
    "prompt_options",
    "quiet_option",
    "response_options",
    "run_options",
    "stride_option",
    "teacher_options",
    "tensor_parallel_option",
    "with_options",
]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Option = Callable[[_Command], _Command]

dataset_argument = click.argument("dataset", metavar="DIR", type=LOCATION)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress and no notes; warnings and errors only.")

_JOB, _PROMPTS, _TEACHER = "The job", "Prompts", "Teacher"
_KEPT, _CHATS, _RESPONSES = "What is kept of each label", "Chats", "Responses"
_CONSTRAINTS = "Constraints"

gpu_memory_option = grouped(
    _TEACHER,
    "--gpu-memory-utilization",
    type=float,
    default=0.9,
    show_default=True,
    help="Share of the GPU's memory.",
)
label_spans_option = grouped(
    _KEPT,
    "--label-spans",
    type=click.Choice(LABEL_SPANS),
    default="all",
    show_default=True,
    help="Which tokens are labelled, of those that can be.",
)
stride_option = grouped(
    _PROMPTS,
    "--stride",
    type=int,
    metavar="TOKENS",
    help="Tokens that each window of a long text labels; the rest of it is read before them.  [default: 7/8 of it]",
)
tensor_parallel_option = grouped(
    _TEACHER, "--tensor-parallel-size", type=int, default=1, show_default=True, help="GPUs that share each layer."
)
pipeline_parallel_option = grouped(
    _TEACHER, "--pipeline-parallel-size", type=int, default=1, show_default=True, help="GPUs that share the layers."
)
expert_parallel_option = grouped(
    _TEACHER, "--expert-parallel", is_flag=True, help="Share a mixture's experts among the GPUs of a copy."
)
adapter_option = grouped(
    _TEACHER, "--adapter", metavar="LORA", help="LoRA adapter: a folder, or a hub name.  [default: none]"
)


def output_option(what: str, *, group: str | None = None) -> Callable[[_Command], _Command]:
    """Return the option that names the folder a command writes to."""
    make = click.option if group is None else lambda *names, **settings: grouped(group, *names, **settings)
    decorator: Callable[[_Command], _Command] = make(
        "-o",
        "--output",
        "output_dir",
        metavar="DIR",
        required=True,
        type=LOCATION,
        help=f"Folder or URL (s3://...) of {what}; new, empty, or one that this command goes on with.",
    )
    return decorator


def teacher_options(*, is_required: bool = True) -> list[Callable[[Any], Any]]:
    """Return the options that say which teacher is loaded, and how."""
    return [
        grouped(
            _TEACHER,
            "--teacher",
            metavar="MODEL",
            required=is_required,
            help="Model folder, or a hub name: owner/name.",
        ),
        grouped(
            _TEACHER, "--dtype", help="auto, float32, bfloat16 or float16.  [default: float32 on a CPU, else auto]"
        ),
        grouped(_TEACHER, "--head-dtype", help="Precision of the output layer; float32 breaks a bfloat16 head's ties."),
        grouped(_TEACHER, "--max-model-len", type=int, help="Context in tokens.  [default: the model's]"),
        gpu_memory_option,
        adapter_option,
        tensor_parallel_option,
        pipeline_parallel_option,
        expert_parallel_option,
        grouped(
            _TEACHER,
            "--engine-arg",
            "engine_args",
            type=NAME_AND_VALUE,
            metavar="NAME=VALUE",
            multiple=True,
            help="Any other of vLLM's engine arguments, such as max_num_seqs=64; repeatable.",
        ),
    ]


_JOB_OPTIONS: list[Callable[[Any], Any]] = [
    output_option("the dataset", group=_JOB),
    job_file_option(_JOB),
    grouped(_JOB, "--dry-run", is_flag=True, help="Show job, teacher, three prompts and size; start nothing."),
    grouped(_JOB, "--yaml", "as_yaml", is_flag=True, help="With --dry-run: print a commented job file for -c."),
    grouped(
        _JOB, "--block-size", type=int, default=2048, show_default=True, help="Prompts in a unit of work (a block)."
    ),
    grouped(
        _JOB,
        "--part",
        metavar="I/N",
        help="Label the I-th of N parts, I from 1; each in a job of its own, on any machine that sees DIR.",
    ),
    grouped(
        _JOB,
        "--replicas",
        type=int,
        metavar="N",
        help="Engines at work at once, under Ray, each on GPUs of its own.  [default: 1, or what --ray holds]",
    ),
    grouped(
        _JOB,
        "--ray",
        metavar="[ADDRESS]",
        is_flag=False,
        flag_value="auto",
        help="Let a Ray cluster run the engines: the one this machine is in, or --ray=HOST:PORT.",
    ),
    grouped(_JOB, "--max-rejects", metavar="N|P%", help="Stop when more rows are rejected.  [default: never]"),
    grouped(_JOB, "--retry-rejected", is_flag=True, help="Try what was rejected in an earlier run again."),
    grouped(
        _JOB,
        "--journal-dir",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="Where finished responses wait for their block, say a fast local disk.  [default: in the dataset]",
    ),
    grouped(
        _JOB,
        "--flush-seconds",
        type=float,
        default=30.0,
        show_default=True,
        help="A crash loses finished responses of so many seconds at most.",
    ),
    grouped(
        _JOB,
        "--grace-seconds",
        type=float,
        default=0.0,
        show_default=True,
        help="After Ctrl-C, SIGTERM or SIGUSR1, responses in flight may take so long; a second signal ends it.",
    ),
    grouped(
        _JOB,
        "--rescore-at-end",
        type=int,
        default=64,
        show_default=True,
        metavar="N",
        help="Records that the teacher reads again at the end, to prove the labels; 0: none.",
    ),
    grouped(_JOB, "--json", "as_json", is_flag=True, help="Print events and the result as JSON lines on stdout."),
    grouped(_JOB, "--quiet", is_flag=True, help="No progress and no notes; warnings and errors only."),
]

prompt_options: list[Callable[[Any], Any]] = [
    grouped(_PROMPTS, "--id-field", metavar="FIELD", default="id", show_default=True, help="Field that names a row."),
    grouped(_PROMPTS, "--template", type=TEXT_FILE, metavar="FILE", help="Text with {field} for a row's values."),
    grouped(
        _PROMPTS, "--column", "columns", metavar="FIELD", multiple=True, help="Field kept with each record; repeatable."
    ),
    grouped(_PROMPTS, "--limit", type=int, help="Prompts in the folder at most: the first ones."),
    grouped(
        _PROMPTS, "--sample-prompts", type=int, metavar="N", help="Prompts in the folder at most: N chosen by hash."
    ),
    grouped(
        _PROMPTS,
        "--sample-seed",
        type=int,
        default=0,
        show_default=True,
        help="Seed of --sample-prompts; samples nest.",
    ),
]

_KEPT_OPTIONS: list[Callable[[Any], Any]] = [
    label_spans_option,
    grouped(
        _KEPT,
        "--keep-positions",
        metavar="RULE",
        help="Soft labels of some tokens only: every:N, or entropy:SHARE, the least sure.  [default: all]",
    ),
    grouped(_KEPT, "--top-k", type=int, help="The K most likely tokens.  [default: 64, if nothing else is kept]"),
    grouped(_KEPT, "--keep-mass", type=float, help="The fewest tokens with this probability mass, in (0, 1]."),
    grouped(_KEPT, "--min-k", type=int, help="With --keep-mass: tokens at least.  [default: 1]"),
    grouped(_KEPT, "--max-k", type=int, help="With --keep-mass: tokens at most.  [default: 256]"),
    grouped(_KEPT, "--draws", type=int, help="Random draws from the distribution; with --top-k, from its tail."),
    grouped(_KEPT, "--entropy", is_flag=True, help="The entropy of the whole distribution too, in nats."),
    grouped(
        _KEPT,
        "--codec",
        default="standard",
        show_default=True,
        help="How soft labels are stored: exact, standard, small, or open (for any tool that reads Parquet).",
    ),
]

chat_options: list[Callable[[Any], Any]] = [
    grouped(_CHATS, "--system", metavar="TEXT", help="System message of chats without one; makes a prompt a chat."),
    grouped(_CHATS, "--chat", "as_chat", is_flag=True, help="Ask each prompt as the user's message of a chat."),
    grouped(
        _CHATS,
        "--chat-template",
        type=TEXT_FILE,
        metavar="FILE",
        help="Jinja template.  [default: the teacher's own]",
    ),
    grouped(
        _CHATS,
        "--chat-template-arg",
        "chat_template_args",
        type=NAME_AND_VALUE,
        metavar="NAME=VALUE",
        multiple=True,
        help="Argument of the template, such as enable_thinking=false; repeatable.",
    ),
]


response_options: list[Callable[[Any], Any]] = [
    grouped(_RESPONSES, "--responses", type=int, default=1, show_default=True, help="Responses to each prompt."),
    grouped(
        _RESPONSES, "--max-tokens", type=int, default=1024, show_default=True, help="Tokens in a response at most."
    ),
    grouped(_RESPONSES, "--prefill", metavar="TEXT", help="The beginning of each response, given and not labelled."),
    grouped(_RESPONSES, "--temperature", type=float, help="0 is greedy.  [default: the model's generation_config]"),
    grouped(_RESPONSES, "--sampling-top-p", type=float, help="Nucleus sampling.  [default: the model's]"),
    grouped(_RESPONSES, "--sampling-top-k", type=int, help="Sample from this many tokens.  [default: the model's]"),
    grouped(_RESPONSES, "--sampling-min-p", type=float, help="Least share of the likeliest.  [default: the model's]"),
    grouped(_RESPONSES, "--stop", multiple=True, metavar="TEXT", help="Text that ends a response; repeatable."),
    grouped(
        _RESPONSES,
        "--stop-id",
        "stop_ids",
        type=int,
        multiple=True,
        metavar="ID",
        help="Token id that ends a response, besides the teacher's own; repeatable.",
    ),
    grouped(
        _RESPONSES, "--min-tokens", type=int, default=0, show_default=True, help="Tokens before a response may end."
    ),
    grouped(_RESPONSES, "--seed", type=int, default=0, show_default=True, help="Seed of the run's sampling."),
    grouped(
        _RESPONSES,
        "--think-tokens",
        nargs=2,
        metavar="START END",
        help="Tokens around a teacher's thinking.  [default: <think> </think> and the like, where it has them]",
    ),
    grouped(
        _RESPONSES,
        "--max-think-tokens",
        type=int,
        metavar="N",
        help="End the thinking behind N tokens.  [default: never]",
    ),
    grouped(
        _CONSTRAINTS,
        "--json-schema",
        type=TEXT_FILE,
        metavar="FILE",
        help="JSON schema that each response must keep to.",
    ),
    grouped(_CONSTRAINTS, "--regex", metavar="REGEX", help="Expression that each whole response must match."),
    grouped(
        _CONSTRAINTS,
        "--choice",
        "choices",
        multiple=True,
        metavar="TEXT",
        help="Text that a response may be, as one of several; repeatable.",
    ),
    grouped(
        _CONSTRAINTS,
        "--bad-word",
        "bad_words",
        multiple=True,
        metavar="TEXT",
        help="Text that no response may hold; repeatable.",
    ),
    grouped(
        _CONSTRAINTS,
        "--logit-bias",
        type=ID_AND_BIAS,
        multiple=True,
        metavar="ID=BIAS",
        help="Added to a token's logit, in [-100, 100]; repeatable.",
    ),
]


def run_options(*field_options: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    """Return the decorator that adds the options of every command that labels; `field_options` name the content."""
    named = [*field_options, *prompt_options]
    return with_options([*_JOB_OPTIONS, *teacher_options(), *named, *_KEPT_OPTIONS])


def field_option(name: str, what: str) -> Callable[[_Command], _Command]:
    """Return the option that names the field with the content of a row."""
    default = name.removeprefix("--").removesuffix("-field")
    return grouped(_PROMPTS, name, metavar="FIELD", help=f"Field with {what}.  [default: {default}]")


def with_options(options: Sequence[Callable[[Any], Any]]) -> Callable[[_Command], _Command]:
    """Return a decorator that adds options in the order given."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
