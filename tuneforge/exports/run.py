"""Reads a job's log and gives it to an export: all of it, and what comes while the job runs if that is wanted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from tuneforge._watch import JobWatch
from tuneforge.exports.history import History, Point, Rewind
from tuneforge.job_values import Job


class Watched(Protocol):
    """The part of `client.jobs` that an export needs."""

    def read(self, job: str) -> Job:
        """Returns a job by id or name."""
        ...

    def watch(self, job: str) -> JobWatch:
        """Yields its events."""
        ...


class Export(Protocol):
    """Where figures go."""

    def begin(self, job: Job, points: Iterable[Point]) -> str:
        """Takes what is known so far; returns where it is."""
        ...

    def add(self, changes: list[Point | Rewind]) -> None:
        """Takes what is new."""
        ...

    def end(self, job: Job) -> None:
        """Takes that the job has ended."""
        ...


def export_job(jobs: Watched, name: str, export: Export, *, follow: bool) -> str:
    """Exports a job; returns where it is.

    Args:
        jobs: `client.jobs`.
        name: Id or name.
        export: Where to.
        follow: Stay until the job has ended; else what has happened so far is exported.

    Raises:
        TuneforgeError: There is no such job, or the scheduler stayed away.
    """
    history = History()
    place = ""
    with jobs.watch(name) as events:
        latest = 0
        for event in events:
            latest = latest or events.latest_job_seq
            changes = history.take(event)
            if place:
                export.add(changes)
            elif event.job_seq >= latest:
                # The past is exported in one piece, without what a later attempt has made void.
                place = export.begin(jobs.read(name), history.points())
                if not follow:
                    break
    job = jobs.read(name)
    if not place:  # the log ended before what it had been at first
        place = export.begin(job, history.points())
    if job.state.is_terminal:
        export.end(job)
    return place
