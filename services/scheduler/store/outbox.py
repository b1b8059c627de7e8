"""Effects that cannot be observed back: results to be registered. Written with the change that causes them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from services.scheduler.jobs import JobState
from services.scheduler.records import Ref
from services.scheduler.store.jobs import Step, advance
from services.scheduler.store.tables import outbox
from services.scheduler.store.transaction import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A result that the registry is to make a version of."""

    job: int
    token: int
    payload: bytes
    """Serialised `PublishVersionRequest`; empty: the job is a verification, whose result is a certificate."""


def add(tx: Transaction, job: int, token: int, payload: bytes) -> None:
    """Writes a publication; the caller's transaction moves the job to PUBLISHING."""
    tx.connection.execute(insert(outbox).values(job=job, token=token, payload=payload, create_ms=tx.now_ms))


def pending(connection: Connection) -> list[Publication]:
    """Returns publications that were not delivered, oldest first."""
    rows = connection.execute(_PENDING)
    return [Publication(job=row.job, token=row.token, payload=row.payload) for row in rows]


_PENDING = select(outbox.c.job, outbox.c.token, outbox.c.payload).order_by(outbox.c.id)


def delivered(tx: Transaction, publication: Publication, version: Ref) -> None:
    """Ends a job with its version and takes its row out."""
    step = Step(
        to=JobState.SUCCEEDED,
        reason="PUBLISHED",
        message=f"The result is {version.version}.",
        token=publication.token,
        sources=frozenset({JobState.PUBLISHING}),
        values={"version": version.version, "digest": version.digest},
    )
    advance(tx, publication.job, step)
    _drop(tx, publication)


def concluded(tx: Transaction, publication: Publication, verifies: bytes, message: str) -> None:
    """Ends a verification with its certificate and takes its row out."""
    step = Step(
        to=JobState.SUCCEEDED,
        reason="COMPARED",
        message=message,
        token=publication.token,
        sources=frozenset({JobState.PUBLISHING}),
        values={"verifies": verifies},
    )
    advance(tx, publication.job, step)
    _drop(tx, publication)


def refused(tx: Transaction, publication: Publication, failure: bytes, reason: str, message: str) -> None:
    """Fails a job whose result the registry will never take, and takes its row out."""
    step = Step(
        to=JobState.FAILED,
        reason=reason,
        message=message,
        token=publication.token,
        sources=frozenset({JobState.PUBLISHING}),
        values={"failure": failure},
    )
    advance(tx, publication.job, step)
    _drop(tx, publication)


def _drop(tx: Transaction, publication: Publication) -> None:
    tx.connection.execute(delete(outbox).where(outbox.c.job == publication.job))
