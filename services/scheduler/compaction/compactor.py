"""Thins out logs, a small part in each transaction: it may be killed at any moment and goes on where it was."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from services.grpckit import context
from services.grpckit.errors import ServiceError
from services.grpckit.logging import get_logger
from services.scheduler.clock_jumps import ClockJumps
from services.scheduler.compaction.rules import CompactionPolicy
from services.scheduler.ledger import Ledger
from services.scheduler.store import compaction as store

_log = get_logger(__name__)
JOBS_PER_LOOK = 100


@dataclass(slots=True, kw_only=True)
class Compactor:
    """The work of thinning out."""

    ledger: Ledger
    jumps: ClockJumps
    policy: CompactionPolicy
    _damaged: set[int] = field(default_factory=set)
    """Jobs whose logs are not those that were recorded: they stay as they are, for whoever looks into it."""

    async def run(self) -> None:
        """Runs until it is cancelled; does nothing where the policy is off."""
        while self.policy.is_on:
            try:
                with context.background("scheduler.compaction"):
                    await self.round()
            except ServiceError as error:
                _log.info("logs are thinned out later", problem=f"{error.reason}: {error.message}")
            except Exception:  # noqa: BLE001 - a round that fails must not end the work
                _log.error("thinning out logs failed", exc_info=True)
            await asyncio.sleep(self.policy.every_s)

    async def round(self) -> int:
        """Thins out what is due now; returns how many events were taken out."""
        removed = 0
        limit = JOBS_PER_LOOK + len(self._damaged)  # those are due for ever, and first
        while not await self.jumps.has_jumped():  # else the loop has yet to note it, and logs look older than they are
            due = await self.ledger.read_now(lambda db, now_ms: store.due(db, now_ms, self.policy, limit))
            worked = False
            for job in due:
                if job not in self._damaged:
                    removed += await self._thin_out(job)
                    worked = True
            if not worked:
                break
        return removed

    async def _thin_out(self, job: int) -> int:
        removed = 0
        while True:
            try:
                part = await self.ledger.write(lambda tx: store.thin_out_part(tx, job, self.policy))
            except store.RecordBroken as error:
                _log.error("a log is not the one that was recorded, it stays as it is", problem=str(error))
                self._damaged.add(job)
                return removed
            removed += part.removed
            if part.is_last:
                return removed
            await asyncio.sleep(0)
