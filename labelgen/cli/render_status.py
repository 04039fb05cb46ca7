"""How far a job is, on stdout."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import click

from labelgen.cli.render import print_rows
from labelgen.cli.units import bytes_text, duration_text
from labelgen.job.heartbeat import Heartbeat
from labelgen.job.status import JobStatus

__all__ = ["print_status"]

_MAX_SHOWN_JOBS = 20


def print_status(status: JobStatus, *, location: str, as_json: bool) -> None:
    """Print a job's status, for people or as JSON."""
    if as_json:
        click.echo(json.dumps(_to_json(status, location)))
        return
    share = f" ({status.done_prompts / status.total_prompts:.1%})" if status.total_prompts else ""
    rate, left = status.labels_per_second, status.seconds_left
    rows = {
        "state": status.state,
        "jobs": _jobs_text(status.jobs),
        "prompts": f"{status.done_prompts:,} of {status.total_prompts:,} done{share}",
        "published": f"{status.published_blocks:,} of {status.total_blocks:,} blocks, "
        f"{status.published.num_records:,} records, {status.published.num_labels:,} labels",
        "journal": bytes_text(status.journal_bytes) if status.journal_bytes else "",
        "rate": f"{rate:,.0f} labels/s" if rate is not None else "",
        "time left": f"about {duration_text(left)}" if left is not None else "",
        "rejected": f"{status.num_rejected:,} (see .labelgen/rejected/)" if status.num_rejected else "",
    }
    print_rows(location, rows)


def _jobs_text(jobs: Sequence[Heartbeat]) -> str:
    """Return a line for each, those that died first; of very many, how many there are besides."""
    shown = sorted(jobs, key=lambda job: job.is_alive)[:_MAX_SHOWN_JOBS]
    rest = len(jobs) - len(shown)
    return "\n".join([*map(_job_text, shown), *([f"and {rest:,} more"] if rest else [])])


def _job_text(job: Heartbeat) -> str:
    in_flight = f", {len(job.in_flight):,} responses in flight" if job.is_alive and job.in_flight else ""
    ago = duration_text(time.time() - job.beat_at)
    share = f"{job.share}: " if job.share else ""
    state = "" if job.is_alive else f"{_state(job)}, "
    return f"{share}{state}process {job.process.pid} on {job.process.host}, last heartbeat {ago} ago{in_flight}"


def _state(job: Heartbeat) -> str:
    return job.state if job.is_alive or job.is_over else "killed"


def _to_json(status: JobStatus, location: str) -> dict[str, object]:
    return {
        "output": location,
        "state": status.state,
        "running": status.is_running,
        "done_prompts": status.done_prompts,
        "total_prompts": status.total_prompts,
        "published_blocks": status.published_blocks,
        "total_blocks": status.total_blocks,
        "records": status.published.num_records,
        "labels": status.published.num_labels,
        "journal_bytes": status.journal_bytes,
        "labels_per_second": status.labels_per_second,
        "seconds_left": status.seconds_left,
        "rejected": status.num_rejected,
        "jobs": [
            {
                "host": job.process.host,
                "pid": job.process.pid,
                "share": job.share,
                "state": _state(job),
                "started_at": job.started_at,
                "heartbeat_at": job.beat_at,
                "in_flight": len(job.in_flight),
                "records": job.num_records,
                "labels": job.num_labels,
            }
            for job in status.jobs
        ],
    }
