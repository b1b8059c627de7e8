"""Delivers results to the registry: from the outbox, again and again until the registry has said yes or never.

A registry that is away or full, whose database or store is, or that refuses the token is waited for without end. An
answer that is neither that nor a known no is waited out for `gives_up_s`; then the job fails and says where its files
are.

PublishVersion is unique by job for ever, so a delivery whose answer was lost is simply made again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Protocol

from sqlalchemy import Connection

from services.grpckit.errors import ServiceError
from services.grpckit.logging import get_logger
from services.scheduler.jobs import Failure
from services.scheduler.ledger import Ledger
from services.scheduler.records import Ref
from services.scheduler.store import checkpoints, jobs, marks, outbox
from services.scheduler.store.outbox import Publication
from services.scheduler.wire import failure_bytes
from services.scheduler.wire.publications import readable_request

_log = get_logger(__name__)

_NEVER = frozenset({
    "INVALID_FIELD", "INVALID_NAME", "INVALID_MODEL", "DIGEST_MISMATCH", "ALREADY_PUBLISHED", "BLOB_MISSING",
    "NOT_FOUND", "BASE_MISMATCH", "LINEAGE_DEPTH", "CYCLE",
})  # fmt: skip
"""Answers that will be the same next time. A refused token is none: with the right one the result is taken."""
_WAITED_FOR = frozenset({
    "PEER_UNAVAILABLE", "DRAINING", "STANDBY", "TOO_MANY_CALLS", "DEADLINE_EXCEEDED", "DISK_FULL", "UNAUTHENTICATED",
    "PERMISSION_DENIED", "DATABASE_UNAVAILABLE", "STORAGE_UNAVAILABLE", "STORAGE_MISCONFIGURED",
})  # fmt: skip
"""What passes once somebody has looked after the registry or its tokens. Any other answer is waited out for a time."""
_WARN_AGAIN_S = 60.0
_FILES_SHOWN = 5


class VersionTaker(Protocol):
    """The part of the registry that this module needs."""

    async def publish(self, payload: bytes) -> Ref:
        """Registers a result and returns its version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publishing:
    """Carries out publications."""

    ledger: Ledger
    registry: VersionTaker
    gives_up_s: float
    """How long the registry may go on with an answer that is not known to pass, in seconds."""
    unknown_since: dict[int, float] = field(default_factory=dict)
    """Loop time of the first such answer, by job; a restart of the scheduler counts anew."""
    warned: dict[int, float] = field(default_factory=dict)
    """Loop time of the last warning, by job whose result waits."""

    async def deliver(self, publication: Publication) -> None:
        """Registers one result and ends its job.

        Raises:
            ServiceError: the registry does not answer: say it again later.
        """
        await self._try_message(publication)
        try:
            version = await self.registry.publish(publication.payload)
        except ServiceError as error:
            if error.reason not in _NEVER and not self._gives_up(publication.job, error):
                self._warn(publication.job, error)
                raise
            self._forget(publication.job)
            failure = _refusal(error)
            if error.reason not in _NEVER:
                again = await self.ledger.read(lambda db: _way_to_publish(db, publication.job))
                failure = _given_up(failure, publication, self.gives_up_s, again)
            _log.warning(
                "the registry refused a result", job=publication.job, problem=f"{error.reason}: {error.message}"
            )
            await self.ledger.write(
                lambda tx: outbox.refused(tx, publication, failure_bytes(failure), failure.reason, failure.message)
            )
            return
        self._forget(publication.job)
        await self.ledger.write(lambda tx: outbox.delivered(tx, publication, version))

    def _gives_up(self, job: int, error: ServiceError) -> bool:
        """Returns whether an answer that is not known to pass has come for too long."""
        if error.reason in _WAITED_FOR:
            self.unknown_since.pop(job, None)
            return False
        now = asyncio.get_running_loop().time()
        return now - self.unknown_since.setdefault(job, now) >= self.gives_up_s

    def _forget(self, job: int) -> None:
        self.warned.pop(job, None)
        self.unknown_since.pop(job, None)

    async def _try_message(self, publication: Publication) -> None:
        """Reads what is to be told while the job is marked: who dies of it knows which job it was."""
        handled = await self.ledger.read(lambda db: marks.handled(db, publication.job))
        if not handled:
            return  # it went well before
        if handled % 2 == 0:
            await self.ledger.write(lambda tx: marks.mark(tx, publication.job))
        readable_request(publication.payload)
        await self.ledger.write(lambda tx: marks.clear(tx, publication.job))

    def _warn(self, job: int, error: ServiceError) -> None:
        """Says that a result waits, at once and then every minute: its job can neither end nor be cancelled."""
        now = asyncio.get_running_loop().time()
        if now - self.warned.get(job, -_WARN_AGAIN_S) >= _WARN_AGAIN_S:
            self.warned[job] = now
            cure = f"; {error.cure}" if error.cure else ""
            _log.warning(
                "the registry does not take a result; it is offered again until it does",
                job=job,
                problem=f"{error.reason}: {error.message}{cure}",
            )


def _given_up(failure: Failure, publication: Publication, after_s: float, again: str) -> Failure:
    manifest = readable_request(publication.payload).manifest
    names = [file.path for file in manifest.files]
    shown = ", ".join(names[:_FILES_SHOWN]) + (f" and {len(names) - _FILES_SHOWN} more" * (len(names) > _FILES_SHOWN))
    return replace(
        failure,
        message=f"{failure.message} It was offered for {after_s:g} s. Its files ({shown}) are in the registry's blob "
        f"store under the manifest {manifest.digest}, until the registry collects what no version names. The event "
        "`outcome` of the job has their digests.",
        cure=f"Mend the registry (its log has the cause). {again}",
        metadata=(*failure.metadata, ("manifest_digest", manifest.digest)),
    )


def _way_to_publish(connection: Connection, number: int) -> str:
    """Returns how a job's result is published after all, as a sentence."""
    job = jobs.load(connection, number).name.job
    newest = [
        each.step for each in checkpoints.list_newest(connection, number, None, None) if each.manifest is not None
    ]
    if not newest:
        return f"Then train it again, for it has no checkpoint in the blob store: `tuneforge jobs rerun {job}`."
    return (
        f"Then begin from its last checkpoint: `tuneforge jobs submit --from-checkpoint {job}/{newest[0]}` trains the "
        "steps behind it, if there are any, and publishes the result."
    )


def _refusal(error: ServiceError) -> Failure:
    details = "; ".join(f"{each.field} {each.description}" for each in error.fields)
    return Failure(
        reason=str(error.reason),
        message=f"The registry refused its result: {error.message}" + (f" ({details})" if details else "") + ".",
        cure=error.cure,
        metadata=tuple(sorted(error.metadata.items())),
    )
