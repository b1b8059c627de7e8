"""Stores jobs that were admitted: those that wait at the same time share their statements, as placements do.

A statement costs more than what one more row in it does, and the thread that writes lets go of the processor at each.
Where a group cannot be stored as one, because a name is taken, a quota is full or a request id came before, each of
them is stored in a write of its own, which says what is wrong with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.grpckit import context
from services.grpckit.database import Rank
from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from services.grpckit.request_memory import RequestScope, remember_all
from services.scheduler import branching
from services.scheduler.ledger import Ledger
from services.scheduler.queues.entering import require_room
from services.scheduler.records import Job, NewJob
from services.scheduler.store import events as event_store
from services.scheduler.store import jobs as job_store
from services.scheduler.store.transaction import Transaction
from services.scheduler.wire.resources import job_bytes
from tuneforge.names import JobName

if TYPE_CHECKING:
    from services.scheduler.verbs import Call

TOGETHER = 16
"""Jobs that share their statements. 16: a claim that comes meanwhile waits for the last of them, 5 ms of computing."""
LONGEST_REST_S = 0.005
"""After them there is a rest as long as it took, 5 ms at most, in which more come that share the next ones."""
_OF_ALL = frozenset({Reason.DATABASE_UNAVAILABLE, Reason.DISK_FULL})
"""Refusals that each of a group would meet alone too."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    new: NewJob
    call: Call
    done: asyncio.Future[bytes]


class Storing:
    """Stores jobs, each once for its request. For one event loop.

    Args:
        ledger: The database.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[_Wanted] = []
        self._task: asyncio.Task[None] | None = None

    async def store(self, new: NewJob, call: Call) -> bytes:
        """Stores an admitted job with others that wait now; returns it, serialised, or what its request was answered.

        A caller that is cancelled does not cancel the write.

        Raises:
            ServiceError: as the function `store`, and as `remember`.
        """
        mine = _Wanted(new, call, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        if self._task is None:
            self._task = asyncio.create_task(self._store_all())
        return await asyncio.shield(mine.done)

    async def _store_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            with context.background("scheduler.storing"):
                while self._waiting:
                    waiting, self._waiting = self._waiting, []
                    began = loop.time()
                    await asyncio.gather(*map(self._store_group, _groups(waiting)))
                    await asyncio.sleep(min(LONGEST_REST_S, loop.time() - began))
        finally:
            self._task = None
            for each in self._waiting:  # only where this task was cancelled
                each.done.cancel()

    async def _store_group(self, group: Sequence[_Wanted]) -> None:
        try:
            answers = await self._ledger.write(lambda tx: _store(tx, group), rank=Rank.PATIENT)
        except Exception as error:  # noqa: BLE001 - each of those who wait must hear of it
            if len(group) > 1 and not (isinstance(error, ServiceError) and error.reason in _OF_ALL):
                await asyncio.gather(*(self._store_group([each]) for each in group))
                return
            for each in group:
                each.done.set_exception(error)
        else:
            for each, answer in zip(group, answers, strict=True):
                each.done.set_result(answer)


def _groups(waiting: Sequence[_Wanted]) -> list[list[_Wanted]]:
    """Returns groups of those whose request ids belong to the same caller, project and method."""
    by_scope: dict[RequestScope, list[_Wanted]] = {}
    for each in waiting:
        by_scope.setdefault(each.call.scope, []).append(each)
    return [same[at : at + TOGETHER] for same in by_scope.values() for at in range(0, len(same), TOGETHER)]


def _store(tx: Transaction, group: Sequence[_Wanted]) -> list[bytes]:
    first, *others = group
    if not others:
        return [first.call.once(tx, lambda: store(tx, first.new)[0])]
    return remember_all(
        tx.connection,
        scope=first.call.scope,
        requests=[(each.call.request_id, each.call.body) for each in group],
        make=lambda: store(tx, *(each.new for each in group)),
    )


def store(tx: Transaction, *news: NewJob) -> list[bytes]:
    """Stores admitted jobs of one project, all or none, and returns them, serialised.

    Raises:
        ServiceError: ALREADY_EXISTS; INVALID_FIELD: what one begins from was dropped at this moment; QUOTA_TOO_SMALL or
            QUOTA_EXCEEDED: the queue of their project has no room for them.
    """
    waiting = [new for new in news if new.reuses is None]  # what has its result already waits for nothing
    if waiting:
        require_room(tx.connection, *waiting, locks=True)
    added = job_store.add_all(tx, [(new, _number_of_base(tx, new)) for new in news])
    if added is None:
        raise taken(news[0].name)
    return [_answer(tx, new, job) for new, job in zip(news, added, strict=True)]


def _number_of_base(tx: Transaction, new: NewJob) -> int | None:
    """Returns the number of the job whose output a new one starts from, as far as it waits for one."""
    if new.origin is not None:
        branching.require_there(tx.connection, new.origin)
    if new.depends_on is None:
        return None
    dependency = job_store.find(tx.connection, new.depends_on)
    if dependency is None:
        problem = f"is {str(new.depends_on)!r}, which was removed at this moment"
        raise invalid_fields([FieldViolation("spec.base.output_of_job", problem)])
    return dependency.number


def _answer(tx: Transaction, new: NewJob, job: Job) -> bytes:
    if new.reuses is not None or not new.warnings:  # nothing follows on an end
        return job_bytes(job)
    for warning in new.warnings:
        event_store.append_warning(tx, job.number, str(new.name), warning)
    return job_bytes(job_store.load(tx.connection, job.number), new.warnings)


def taken(name: JobName) -> ServiceError:
    """Returns the refusal of a job whose name was given before."""
    return ServiceError(
        "ALREADY_EXISTS",
        f"there is or was a job {str(name)!r} already; choose another job id, or none",
        metadata={"name": str(name)},
    )
