"""Delivers results to the registry: from the outbox, again and again until the registry has said yes or never.

PublishVersion is unique by job for ever, so a delivery whose answer was lost is simply made again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from services.grpckit.errors import ServiceError
from services.grpckit.logging import get_logger
from services.scheduler.jobs import Failure
from services.scheduler.ledger import Ledger
from services.scheduler.records import Ref
from services.scheduler.store import marks, outbox
from services.scheduler.store.outbox import Publication
from services.scheduler.wire import failure_bytes
from services.scheduler.wire.publications import readable_request

_log = get_logger(__name__)

_NEVER = frozenset({
    "INVALID_FIELD", "INVALID_NAME", "INVALID_MODEL", "DIGEST_MISMATCH", "ALREADY_PUBLISHED", "BLOB_MISSING",
    "NOT_FOUND", "BASE_MISMATCH", "LINEAGE_DEPTH", "CYCLE",
})  # fmt: skip
"""Answers that will be the same next time. A refused token is none: with the right one the result is taken."""
_WARN_AGAIN_S = 60.0


class VersionTaker(Protocol):
    """The part of the registry that this module needs."""

    async def publish(self, payload: bytes) -> Ref:
        """Registers a result and returns its version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publishing:
    """Carries out publications."""

    ledger: Ledger
    registry: VersionTaker
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
            if error.reason not in _NEVER:
                self._warn(publication.job, error)
                raise
            self.warned.pop(publication.job, None)
            failure = _refusal(error)
            _log.warning(
                "the registry refused a result", job=publication.job, problem=f"{error.reason}: {error.message}"
            )
            await self.ledger.write(
                lambda tx: outbox.refused(tx, publication, failure_bytes(failure), failure.reason, failure.message)
            )
            return
        self.warned.pop(publication.job, None)
        await self.ledger.write(lambda tx: outbox.delivered(tx, publication, version))

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


def _refusal(error: ServiceError) -> Failure:
    details = "; ".join(f"{each.field} {each.description}" for each in error.fields)
    return Failure(
        reason=str(error.reason),
        message=f"The registry refused its result: {error.message}" + (f" ({details})" if details else "") + ".",
        cure=error.cure,
        metadata=tuple(sorted(error.metadata.items())),
    )
