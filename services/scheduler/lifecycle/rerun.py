"""Jobs that are run again: a new job with the pinned spec of one that has ended."""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.grpckit.errors import FieldViolation, ServiceError, invalid_fields, not_found
from services.scheduler.admission import Draft
from services.scheduler.jobs import TERMINAL
from services.scheduler.ledger import Ledger
from services.scheduler.lifecycle.options import NO_OPTIONS
from services.scheduler.records import Job
from services.scheduler.store import jobs as job_store
from services.scheduler.verbs import Call, Verbs, answered
from services.scheduler.wire.scheduling import scheduling_from_bytes
from services.scheduler.wire.specs import spec_from_bytes
from tuneforge.names import DatasetVersionName, JobName
from tuneforge.specs.scheduling import Scheduling
from tuneforge.specs.spec import DataSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """Makes jobs from jobs."""

    ledger: Ledger
    verbs: Verbs

    async def run(self, name: JobName, job_id: str, call: Call, *, repin: bool) -> bytes:
        """Stores a new job like one that has ended, and returns it, serialised.

        Args:
            name: The job that has ended.
            job_id: Id of the new one; empty: chosen here.
            call: Who calls.
            repin: Whether it takes the newest versions of the data sets.

        Raises:
            ServiceError: as `RerunJob` documents.
        """
        if (answer := await answered(self.ledger, call)) is not None:
            return answer
        job = await self.ledger.read(lambda connection: job_store.find(connection, name))
        if job is None:
            raise not_found("job", name)
        _check(job)
        new = await self.verbs.check(_draft(job, job_id, call.actor, repin=repin))
        same = replace(
            new,
            retry=job.retry or new.retry,
            ttl_ms=job.ttl_ms,
            budget=job.budget,
            rerun_of=str(job.name),
        )
        return await self.verbs.keep(same, NO_OPTIONS, call)


def _check(job: Job) -> None:
    if job.state not in TERMINAL:
        raise ServiceError(
            "WRONG_STATE",
            f"{job.name} is {job.state}: it has not ended, so there is nothing to run again; wait, or cancel it",
            metadata={"name": str(job.name), "state": str(job.state)},
        )
    if job.verifies is not None:
        problem = f"is {str(job.name)!r}, a verification: use VerifyResume on the checkpoint"
        raise invalid_fields([FieldViolation("name", problem)])


def _draft(job: Job, job_id: str, actor: str, *, repin: bool) -> Draft:
    """Returns what somebody would ask for who wanted the same job once more."""
    spec = spec_from_bytes(job.spec)
    if repin:
        validation = spec.data.validation
        newest = replace(
            spec.data,
            train=_newest(spec.data.train),
            validation=_newest(validation) if validation is not None else None,
        )
        spec = replace(spec, data=newest)
    return Draft(
        project=job.name.project,
        job_id=job_id,
        spec=spec,
        unknown_enums=(),
        labels=job.labels,
        creator=actor,
        scheduling=_still_asked(job),
        message=job.spec,
        from_checkpoint=job.origin.name if job.origin is not None else "",
    )


def _still_asked(job: Job) -> Scheduling:
    """Returns when and where it is to run again: moments are over, and so are waits once it has had an attempt."""
    asked = replace(scheduling_from_bytes(job.scheduling), deadline=None, start_after=None)
    return replace(asked, depends_on=()) if job.attempt else asked


def _newest(source: DataSource) -> DataSource:
    if not source.dataset:
        return source
    return replace(source, dataset=str(DatasetVersionName.parse(source.dataset).parent))
