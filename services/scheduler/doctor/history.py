"""What may have changed between two looks at the same database.

job.kept       a job that was acknowledged is there for ever, unless it had ended
state.final    a job that had ended is in the same state
token.grows    no job's token became smaller, and no result changed
log.grows      no log became shorter
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select

from services.scheduler.doctor.finding import Finding
from services.scheduler.jobs import TERMINAL, JobState
from services.scheduler.store.tables import jobs
from tuneforge.names import JobName


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What later looks are held against."""

    state: JobState
    token: int
    latest_seq: int
    version: str | None


Snapshot = Mapping[str, Seen]
"""All jobs by name."""


def snapshot(connection: Connection) -> Snapshot:
    """Returns what later moments are compared with."""
    return {
        str(JobName(row.project, row.job_id)): Seen(
            state=JobState(row.state), token=row.token, latest_seq=row.latest_seq, version=row.version
        )
        for row in connection.execute(_JOBS)
    }


_JOBS = select(jobs.c.project, jobs.c.job_id, jobs.c.state, jobs.c.token, jobs.c.latest_seq, jobs.c.version)


def compare(before: Snapshot, after: Snapshot) -> list[Finding]:
    """Returns what must not have happened between two moments."""
    return [finding for name, seen in before.items() for finding in _changes(name, seen, after.get(name))]


def _changes(name: str, before: Seen, after: Seen | None) -> Iterator[Finding]:
    if after is None:
        if before.state not in TERMINAL:
            yield Finding(rule="job.kept", subject=name, problem=f"it was {before.state} and is gone")
        return
    if before.state in TERMINAL and (after.state, after.version) != (before.state, before.version):
        problem = f"it had ended as {before.state} with {before.version}, now it is {after.state} with {after.version}"
        yield Finding(rule="state.final", subject=name, problem=problem)
    if after.token < before.token:
        problem = f"its token was {before.token} and is {after.token}"
        yield Finding(rule="token.grows", subject=name, problem=problem)
    if after.latest_seq < before.latest_seq:
        problem = f"its log had {before.latest_seq} events and has {after.latest_seq}"
        yield Finding(rule="log.grows", subject=name, problem=problem)
