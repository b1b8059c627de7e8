"""Puts poison jobs aside: counts what each job makes the loop raise, and fails the job when it is enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.grpckit.errors import ServiceError
from services.grpckit.logging import get_logger
from services.scheduler.jobs import Failure
from services.scheduler.ledger import Ledger
from services.scheduler.lifecycle.lost_starts import harm, shown
from services.scheduler.lifecycle.quarantine import OF_THE_JOB, STRIKES
from services.scheduler.store import marks, quarantine

_log = get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class PuttingAside:
    """Fails jobs that harm."""

    ledger: Ledger
    _decisions: Counter[int] = field(default_factory=Counter)
    """Rounds in a row in which deciding about a job has raised."""
    _acts: Counter[int] = field(default_factory=Counter)
    """The same of what was carried out for it."""

    async def begin(self) -> None:
        """Counts the death of the process before this one, and puts aside what three have died over."""
        for job in await self.ledger.write(lambda tx: marks.count_deaths(tx, STRIKES)):
            what = f"The scheduler has died {STRIKES} times while it took this job up."
            await self._aside(job, harm(what, f"{STRIKES} deaths of the scheduler"))

    async def leave(self) -> None:
        """Notes that the process ends as it should.

        Without the database, or when another process leads by now, nothing is noted: three such ends of the process
        count as three deaths.
        """
        try:
            await self.ledger.write(marks.leave)
        except ServiceError as error:
            _log.warning("the end of this process could not be noted", problem=error.message)

    async def unreadable(self, broken: Mapping[int, Exception]) -> None:
        """Puts aside jobs whose row cannot be read: it will not be another time."""
        for job, error in broken.items():
            await self._aside(job, harm("What is stored of it cannot be read.", shown(error)), mends_row=True)

    async def undecidable(self, broken: Mapping[int, BaseException]) -> None:
        """Counts a round in which deciding about some jobs has raised, and not about others."""
        for job in set(self._decisions) - set(broken):
            del self._decisions[job]
        for job, error in broken.items():
            self._decisions[job] += 1
            _log.error("nothing can be decided about a job", job=job, problem=shown(error))
            if self._decisions[job] >= STRIKES:
                what = f"Deciding about it has failed {STRIKES} times in a row."
                await self._aside(job, harm(what, shown(error)))

    async def crashed(self, job: int, error: Exception) -> None:
        """Counts that carrying something out for a job has raised what is no answer of a peer."""
        if not isinstance(error, OF_THE_JOB):
            return
        self._acts[job] += 1
        if self._acts[job] >= STRIKES:
            what = f"Carrying out what is due for it has failed {STRIKES} times in a row."
            await self._aside(job, harm(what, shown(error)))

    def went_well(self, job: int) -> None:
        """Notes that something was carried out for a job."""
        self._acts.pop(job, None)

    async def _aside(self, job: int, failure: Failure, *, mends_row: bool = False) -> None:
        done = await self.ledger.write(lambda tx: quarantine.put_aside(tx, job, failure, mends_row=mends_row))
        self._acts.pop(job, None)
        if done:
            _log.error("a job is put aside", job=job, why=failure.message)
