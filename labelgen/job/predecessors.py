"""What earlier jobs on a dataset left behind in their heartbeats: what is made again, and whose fault a death was.

A prompt can take more than the engine down: where memory runs out, the driver dies too, and finds nothing out. So each
heartbeat names what was in flight. A request that was in flight at several deaths in a row runs last and apart; one
that was alone in flight at several is refused. A node that is switched off now and then makes nobody suspect.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from labelgen.job.heartbeat import Heartbeat, read_heartbeats
from labelgen.job.part import Part
from labelstore.store import ReadableStore

__all__ = ["Predecessors", "count_deaths", "find_predecessors", "share_of"]

_DEATHS_OF_A_SUSPECT = 3
_LONE_DEATHS_OF_THE_GUILTY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessors:
    """The jobs that worked on a dataset before this one, or beside it."""

    beside: tuple[Heartbeat, ...]  # alive, and not of another part of the same number of parts
    superseded: dict[str, Heartbeat]  # dead ones of the same share, by file, the latest last
    deaths: dict[str, int]  # by request id: how many jobs in a row died while it was in flight
    lone_deaths: dict[str, int]  # of those, with nothing beside it

    @property
    def suspect_ids(self) -> frozenset[str]:
        """The requests that are to run apart."""
        return frozenset(name for name, count in self.deaths.items() if count >= _DEATHS_OF_A_SUSPECT)

    @property
    def verdicts(self) -> dict[str, str]:
        """The requests that are not to run again, and why."""
        return {
            name: f"{self.deaths[name]} jobs in a row died over it, the last {count} with nothing beside it"
            for name, count in self.lone_deaths.items()
            if count >= _LONE_DEATHS_OF_THE_GUILTY
        }

    def notes(self, *, num_records: int) -> list[str]:
        """Say who else works here, and what of the last job's work is made again; `num_records` of it are kept."""
        notes = [
            f"another job works on {job.share or 'this folder'} (process {job.process.pid} on {job.process.host}); "
            f"both may: of each block, the first to publish wins"
            for job in self.beside
        ]
        if self.superseded:
            last = list(self.superseded.values())[-1]
            lost = max(last.records_at_start + last.num_records - num_records, 0)
            again = lost + len(last.in_flight)
            if last.state != "finished" and again:
                when = datetime.datetime.fromtimestamp(last.beat_at, datetime.timezone.utc)
                how = {"stopped": "stopped", "failed": "failed"}.get(last.state, "was killed")
                notes.append(
                    f"the last job {how} at {when:%Y-%m-%d %H:%M:%S} UTC: about {again:,} responses are made again "
                    f"({len(last.in_flight):,} were in flight, {lost:,} were not yet written down)"
                )
        if self.suspect_ids:
            notes.append(
                f"{len(self.suspect_ids):,} requests were in flight at the last {_DEATHS_OF_A_SUSPECT} deaths or more; "
                f"they run last, apart from the others"
            )
        return notes


def find_predecessors(store: ReadableStore, *, part: Part | None = None) -> Predecessors:
    """Read the heartbeats of a dataset, for a job that labels it or a part of it.

    A part learns from the deaths of any job, as parts may be numbered anew, but supersedes its own share's alone: what
    the others leave behind is for them, and for `labelgen status`.
    """
    found = read_heartbeats(store)
    share = share_of(part)
    dead = {name: job for name, job in found.items() if not job.is_alive}
    deaths, lone_deaths = count_deaths(dead.values())
    return Predecessors(
        beside=tuple(
            job
            for job in found.values()
            if job.is_alive and (job.share == share or part is None or not job.share.endswith(f"/{part.count}"))
        ),
        superseded={name: job for name, job in dead.items() if part is None or job.share == share},
        deaths={name: count for name, count in deaths.items() if _is_held(name, part)},
        lone_deaths={name: count for name, count in lone_deaths.items() if _is_held(name, part)},
    )


def count_deaths(dead: Iterable[Heartbeat]) -> tuple[dict[str, int], dict[str, int]]:
    """Return, by request id, the deaths in a row while it was in flight, and those of them with nothing beside it."""
    deaths: dict[str, int] = {}
    lone_deaths: dict[str, int] = {}
    for job in dead:
        was_killed_labelling = not job.is_over and bool(job.in_flight)
        for name in job.in_flight if was_killed_labelling else job.deaths:
            deaths[name] = max(deaths.get(name, 0), job.deaths.get(name, 0) + was_killed_labelling)
            alone = job.lone_deaths.get(name, 0) + (was_killed_labelling and job.is_alone)
            lone_deaths[name] = max(lone_deaths.get(name, 0), alone)
    return deaths, lone_deaths


def share_of(part: Part | None) -> str:
    """Return what a heartbeat calls a job's share of the dataset."""
    return "" if part is None else f"part {part}"


def _is_held(request_id: str, part: Part | None) -> bool:
    return part is None or part.holds(request_id.partition("/")[0])
