"""Releases a job that waited for another one's output: pins it as `CreateJob` would have, or fails it."""

from __future__ import annotations

from dataclasses import dataclass

from services.grpckit.errors import ServiceError
from services.grpckit.holding import Holding
from services.scheduler.admission import Admission
from services.scheduler.jobs import Failure, JobState
from services.scheduler.ledger import Ledger
from services.scheduler.store import jobs as job_store
from services.scheduler.wire import failure_bytes

_NEVER = frozenset({"INVALID_FIELD", "DOES_NOT_FIT"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Releasing:
    """Carries out releases."""

    ledger: Ledger
    admission: Admission
    holding: Holding

    async def release(self, number: int) -> None:
        """Queues a blocked job whose base is there now.

        Raises:
            ServiceError: the registry does not answer, or something was deleted at this moment: say it again later.
        """
        job = await self.ledger.read(lambda connection: job_store.load(connection, number))
        if job.state is not JobState.BLOCKED:
            return
        try:
            new = await self.admission.readmit(job)
        except ServiceError as error:
            if error.reason not in _NEVER:
                raise
            failure = _failure(error)
            step = job_store.Step(
                to=JobState.FAILED,
                reason=failure.reason,
                message=failure.message,
                sources=frozenset({JobState.BLOCKED}),
            )
            await self.ledger.write(lambda tx: job_store.fail(tx, number, failure_bytes(failure), step))
            return
        await self.holding.make(
            str(job.name),
            new.versions,
            lambda: self.ledger.write(lambda tx: job_store.release(tx, number, new)),
        )


def _failure(error: ServiceError) -> Failure:
    details = "; ".join(f"{each.field} {each.description}" for each in error.fields)
    return Failure(
        reason=str(error.reason),
        message=f"Its base is there, but it cannot run on it: {details or error.message}.",
        cure=error.cure,
        is_user_fault=True,
        metadata=tuple(sorted(error.metadata.items())),
    )
