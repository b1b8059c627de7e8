"""Results that need not be trained again: an earlier job of the project that trained the same stands for a new one.

Whether a finished one may is asked of the registry (its version is there, and not made from revoked data); whether one
still runs is looked up in the transaction that would store the new job, so that calls at the same moment train once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from sqlalchemy import Connection

from services.grpckit.errors import ServiceError
from services.scheduler.jobs import JobState
from services.scheduler.ledger import Ledger
from services.scheduler.lifecycle.options import Options, Reuse
from services.scheduler.lifecycle.reused import Reused, note_of
from services.scheduler.records import Job, NewJob
from services.scheduler.store import job_filters
from services.scheduler.wire.certificates import environment_of
from services.scheduler.wire.inputs import ModelFacts

ALIVE = frozenset({
    JobState.BLOCKED, JobState.QUEUED, JobState.STARTING, JobState.RUNNING, JobState.PREEMPTING, JobState.PUBLISHING,
})  # fmt: skip
"""States of a job that will have a result if nothing goes wrong; a paused one waits for its owner."""
_GONE = frozenset({"NOT_FOUND", "PERMISSION_DENIED"})


class Stale(Exception):
    """A job that trained the same has ended since it was looked for: look again."""


class Versions(Protocol):
    """The part of the registry that this module needs."""

    async def model(self, name: str) -> ModelFacts:
        """Returns a version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reusing:
    """Finds what may stand for a new job."""

    ledger: Ledger
    registry: Versions

    async def finished(self, new: NewJob, options: Options) -> tuple[NewJob, frozenset[int]]:
        """Returns the job with the result that it reuses, if there is one, and the ended jobs that were looked at.

        Raises:
            ServiceError: PEER_UNAVAILABLE.
        """
        if options.reuse is Reuse.NEVER or new.training_digest is None:
            return new, frozenset()
        alike = await self.ledger.read(lambda db: _alike(db, new, options))
        ended = [job for job in alike if job.state is JobState.SUCCEEDED]
        for job in ended:
            if job.published is not None and await self._is_good(job):
                found = job.published
                note = await self._note(job)
                reused = Reused(
                    number=job.number, job=str(job.name), version=found.version, digest=found.digest, note=note
                )
                return replace(new, reuses=reused), frozenset(each.number for each in ended)
        return new, frozenset(each.number for each in ended)

    async def _note(self, job: Job) -> str:
        """Returns whether training again would give what a job has given, as a sentence."""
        then = environment_of(job.resolved)
        newest = map(environment_of, await self.ledger.read(lambda db: job_filters.newest_runs(db, job.name.project)))
        return note_of(then, next((each for each in newest if each.get("device") == then.get("device")), {}))

    async def _is_good(self, job: Job) -> bool:
        """Returns whether the registry still has a job's version, as it was, and it is not made from revoked data."""
        if job.published is None:
            return False
        try:
            facts = await self.registry.model(job.published.version)
        except ServiceError as error:
            if error.reason not in _GONE:
                raise
            return False
        return facts.ref.digest == job.published.digest and not facts.taint


def standing_in(connection: Connection, new: NewJob, options: Options, seen: frozenset[int]) -> Job | None:
    """Returns the running job that a new one need not be stored for, or None; for the transaction that would store it.

    Raises:
        Stale: one has succeeded that was not looked at.
    """
    if options.reuse is Reuse.NEVER:
        return None
    found = _alike(connection, new, options)
    if new.reuses is not None:
        if all(job.number != new.reuses.number for job in found):
            raise Stale  # it was removed
        return None
    if any(job.state is JobState.SUCCEEDED and job.number not in seen for job in found):
        raise Stale
    if options.reuse is Reuse.FINISHED:
        return None
    return next((job for job in found if job.state in ALIVE), None)


def _alike(connection: Connection, new: NewJob, options: Options) -> list[Job]:
    return job_filters.trained_alike(connection, new, new.output_model if options.names_output else None)
