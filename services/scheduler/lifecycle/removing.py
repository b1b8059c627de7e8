"""Removes jobs: when a caller says so, and when their time after the end is over. Killed anywhere, it goes on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from services.grpckit import context
from services.grpckit.errors import ServiceError, not_found
from services.grpckit.logging import get_logger
from services.scheduler.clock_jumps import ClockJumps
from services.scheduler.jobs import TERMINAL
from services.scheduler.ledger import Ledger
from services.scheduler.store import jobs as job_store
from services.scheduler.store import removal
from services.scheduler.store.transaction import Transaction
from services.scheduler.verbs import Call
from services.scheduler.wire.resources import job_bytes
from tuneforge.names import JobName

_log = get_logger(__name__)

_AT_ONCE = 100
"""Jobs looked at in one round."""
_AGAIN_MS = 3_600_000
"""How long the removal of a job that something needs is put off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removing:
    """Removes jobs that have ended."""

    ledger: Ledger
    jumps: ClockJumps
    every_s: float
    """Seconds between two looks when nobody asks."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def delete(self, name: JobName, call: Call) -> bytes:
        """Removes a job and returns what it was, serialised.

        Raises:
            ServiceError: as `DeleteJob` documents.
        """

        def write(tx: Transaction) -> bytes:
            return call.once(
                tx,
                lambda: delete_in(tx, name),
            )

        answer = await self.ledger.write(write)
        self.wake.set()
        return answer

    async def run(self) -> None:
        """Makes rounds until cancelled; one that fails is logged, and the next one begins anew."""
        while True:
            self.wake.clear()
            try:
                with context.background("scheduler.removal"):
                    await self.round()
            except Exception:  # noqa: BLE001 - a round that fails must not end the loop
                _log.error("a round of removals failed", exc_info=True)
            try:
                async with asyncio.timeout(self.every_s):
                    await self.wake.wait()
            except TimeoutError:
                pass

    async def round(self) -> None:
        """Removes what is due, and takes what is removed from the disk, a piece in each transaction."""
        due = await self.ledger.read_now(lambda db, now_ms: removal.due(db, now_ms, _AT_ONCE))
        if due and await self.jumps.has_jumped():
            due = []  # their time has not come: the loop moves it
        for number in due:
            await self.ledger.write(lambda tx, number=number: _expire(tx, number))  # type: ignore[misc]
        for number in await self.ledger.read(lambda db: removal.pending(db, _AT_ONCE)):
            await self._purge(number)

    async def _purge(self, number: int) -> None:
        """Takes a job from the disk; others write between two of its pieces."""
        is_done = False
        while not is_done:
            is_done = await self.ledger.write(lambda tx: removal.purge(tx, number))


def delete_in(tx: Transaction, name: JobName) -> bytes:
    """Removes a job inside a transaction; returns what it was, serialised.

    Raises:
        ServiceError: as `DeleteJob` documents.
    """
    job = job_store.find(tx.connection, name)
    if job is None:
        raise not_found("job", name)
    if job.state not in TERMINAL:
        raise ServiceError(
            "WRONG_STATE",
            f"{name} is {job.state}: only a job that has ended can be removed; cancel it first",
            metadata={"name": str(name), "state": str(job.state)},
        )
    if (found := removal.holder_of(tx.connection, job)) is not None:
        holder, why = found
        message = f"{name} cannot be removed: {why}"
        raise ServiceError("IN_USE", message, metadata={"name": str(name), "holder": holder})
    removal.begin(tx, job.number)
    return job_bytes(job)


def _expire(tx: Transaction, number: int) -> None:
    job = job_store.load(tx.connection, number)
    if job.expire_ms is None or job.expire_ms > tx.now_ms:
        return  # it was moved since it was found: the clock has jumped
    if (found := removal.holder_of(tx.connection, job)) is None:
        removal.begin(tx, number)
        return
    _log.info("a job is kept beyond its time", job=str(job.name), why=found[1])
    removal.postpone(tx, number, tx.now_ms + _AGAIN_MS)
