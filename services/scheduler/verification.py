"""Verifications: jobs that do steps of another one's run again, from a checkpoint, and compare every bit.

A verification is placed, started, followed and retried as any job. When its attempt has ended well, the two event logs
are compared, the certificate is stored with the version of the verified job, and the job ends; all of it may be done
again after a crash.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection

from services.grpckit.errors import FieldViolation, ServiceError, invalid_fields, not_found
from services.grpckit.holding import Holding
from services.scheduler.branching import origin_of
from services.scheduler.checkpoint_verbs import not_durable
from services.scheduler.ledger import Ledger
from services.scheduler.records import Checkpoint, Job, NewJob, Pinned
from services.scheduler.store import checkpoints as checkpoint_store
from services.scheduler.store import jobs as job_store
from services.scheduler.store import outbox
from services.scheduler.store.outbox import Publication
from services.scheduler.store.runs import Curve, read_curve, rows_at_once_after
from services.scheduler.store.transaction import Transaction
from services.scheduler.storing import store
from services.scheduler.verbs import Call, answered
from services.scheduler.wire.certificates import certificate_of, read_verification, report_of, verification_bytes
from services.scheduler.wire.specs import spec_from_bytes, spec_of_run
from tuneforge.names import CheckpointName, JobName, new_id
from tuneforge.v1 import validations_pb2

MOST_STEPS = 32
"""Steps that a certificate lists; each is one entry of a report on the version."""
_LOST_AFTER_S = 600.0
_GONE = frozenset({"NOT_FOUND"})


class ReportTaker(Protocol):
    """The part of the registry that this module needs."""

    async def report(self, version: str, report: validations_pb2.ValidationReport, request_id: str) -> None:
        """Stores a report on a version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Makes verifications and concludes them."""

    ledger: Ledger
    holding: Holding
    registry: ReportTaker

    async def create(self, name: CheckpointName, num_steps: int, call: Call) -> bytes:
        """Stores a verification and returns its job, serialised.

        Raises:
            ServiceError: as `VerifyResume` documents.
        """
        if (answer := await answered(self.ledger, call)) is not None:
            return answer
        new = await self.ledger.read(lambda db: _new_job(db, name, num_steps, call.actor))

        def write(tx: Transaction) -> bytes:
            return call.once(
                tx,
                lambda: store(tx, new)[0],
            )

        return await self.holding.make(str(new.name), new.versions, lambda: self.ledger.write(write))

    async def conclude(self, publication: Publication) -> None:
        """Compares what was done twice, stores the certificate and ends the verification.

        Raises:
            ServiceError: the registry does not answer: say it again later.
        """
        job, verified, expected, found = await self.ledger.read(lambda db: _both(db, publication.job))
        verification = read_verification(job)
        certificate = certificate_of(verification, expected, found, job, verified)
        if verified.published is not None:
            request_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{job.name}#{job.uid}"))
            report = report_of(str(job.name), verification, certificate)
            try:
                await self.registry.report(verified.published.version, report, request_id)
            except ServiceError as error:
                if error.reason not in _GONE:  # a version that was deleted needs no certificate
                    raise
        verification.certificate.CopyFrom(certificate)
        first = certificate.first_divergent_step
        message = (
            f"Step {first} of the repetition is not the one of the run."
            if first
            else f"All {verification.num_steps} steps were the same, bit for bit."
            if certificate.passed
            else "The steps were the same, the weights after them are not."
        )
        kept = verification.SerializeToString()
        await self.ledger.write(lambda tx: outbox.concluded(tx, publication, kept, message))


def _both(connection: Connection, number: int) -> tuple[Job, Job, Curve, Curve]:
    job = job_store.load(connection, number)
    verified = job_store.find(connection, CheckpointName.parse(read_verification(job).checkpoint).parent)
    if verified is None:
        raise AssertionError("jobs are never removed")
    return job, verified, read_curve(connection, verified.number), read_curve(connection, job.number)


def _new_job(connection: Connection, name: CheckpointName, num_steps: int, actor: str) -> NewJob:
    job = job_store.find(connection, name.parent)
    found = checkpoint_store.find(connection, job.number, name.step) if job is not None else None
    if job is None or found is None or job.base is None or job.inputs is None:
        raise not_found("checkpoint", name)
    if found.manifest is None:
        raise not_durable(name)
    rows_at_once, until = rows_at_once_after(connection, job.number, found.step)
    steps = _num_steps(connection, job, found, num_steps, until)
    spec = spec_of_run(job)
    if job.rows_at_once and not rows_at_once:  # before memory ran out: as many as the checkpoint says, if not more
        rows_at_once = spec.optimization.rows_per_step
    lost_after_s = spec_from_bytes(job.spec).resources.lost_after_s
    return NewJob(
        name=JobName(name.project, new_id("verify")),
        creator=actor,
        labels={},
        spec=spec.SerializeToString(deterministic=True),
        train=job.train,
        validation=job.validation,
        pinned=Pinned(base=job.base, inputs=job.inputs),
        depends_on=None,
        architecture_version=job.architecture_version,
        output_model=job.output_model,
        estimate=job.estimate,
        needs=job.needs,
        lost_after_ms=round((_LOST_AFTER_S if lost_after_s is None else lost_after_s) * 1000),
        keep_checkpoints=1,
        origin=origin_of(job, name.step, found.manifest),
        verifies=verification_bytes(str(name), steps),
        rows_at_once=rows_at_once,
    )


def _num_steps(connection: Connection, job: Job, found: Checkpoint, asked: int, until: int | None) -> int:
    """Returns how many steps are to be done again, all of them with as many rows at once.

    Raises:
        ServiceError: INVALID_FIELD.
    """
    curve = read_curve(connection, job.number)
    made = max(curve.steps, default=0) - found.step
    if until is not None:
        made = min(made, until - found.step)
    most = min(MOST_STEPS, made)
    if made < 1:
        raise invalid_fields([FieldViolation("name", f"is of step {found.step}, the last one made; use an older one")])
    if asked > most:
        raise invalid_fields([FieldViolation("num_steps", f"is {asked}: use at most {most}")])
    later = [step - found.step for step in curve.weights if step > found.step]
    return asked or min([most, *later])
