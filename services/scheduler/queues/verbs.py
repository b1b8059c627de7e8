"""What callers do to queues: read how they stand, and change them, once for each request id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from services.grpckit import context as calls
from services.grpckit.context import ALL_PROJECTS
from services.grpckit.errors import Reason, ServiceError, invalid_fields, not_found
from services.scheduler.jobs import JobState
from services.scheduler.ledger import Ledger
from services.scheduler.queues import spending
from services.scheduler.queues.accounts import Terms, open_books
from services.scheduler.queues.budgets import Price
from services.scheduler.queues.limits import DEFAULT_QUEUE, Limits
from services.scheduler.queues.standing import Standing, standings
from services.scheduler.queues.updating import budget_problems, changed, check_mask, limit_problems, loosened
from services.scheduler.store import attempts as attempt_store
from services.scheduler.store import queues as queue_store
from services.scheduler.store import usage
from services.scheduler.store.transaction import Transaction
from services.scheduler.verbs import Call
from services.scheduler.wire.queues import etag_of, queue_to_proto
from tuneforge.names import QueueName
from tuneforge.v1 import queues_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to be changed of a queue."""

    name: QueueName
    wanted: Limits
    paths: Sequence[str]
    etag: str
    """Empty: whatever it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueVerbs:
    """Reads and changes queues."""

    ledger: Ledger
    price: Price

    async def get(self, name: QueueName) -> queues_pb2.Queue:
        """Returns a queue.

        Raises:
            ServiceError: NOT_FOUND.
        """
        check_queue(name)
        return await self.ledger.read_now(lambda db, now_ms: self._read(db, now_ms, name.project))

    async def list(self, is_wanted: Callable[[str], bool], after: str, limit: int) -> list[queues_pb2.Queue]:
        """Returns queues by project, those after a project's id.

        Args:
            is_wanted: Tells whether a project is listed.
            after: The project before the first one; empty: from the beginning.
            limit: Most queues.
        """

        def look(connection: Connection, now_ms: int) -> list[queues_pb2.Queue]:
            found = [each for each in _standings(connection, now_ms) if each.project > after]
            wanted = [each for each in found if is_wanted(each.project)][:limit]
            return [queue_to_proto(each, now_ms, self.price) for each in wanted]

        return await self.ledger.read_now(look)

    async def update(self, change: Change, call: Call) -> bytes:
        """Changes a queue and returns it, serialised.

        Raises:
            ServiceError: as `UpdateQueue` documents.
        """
        check_queue(change.name)
        check_mask(change.paths)
        may_give = ALL_PROJECTS in calls.current().principal.projects

        def write(tx: Transaction) -> bytes:
            return call.once(
                tx,
                lambda: self._update(tx, change, may_give=may_give).SerializeToString(),
            )

        answer = await self.ledger.write(write)
        self.ledger.on_change()
        return answer

    def _update(self, tx: Transaction, change: Change, *, may_give: bool) -> queues_pb2.Queue:
        project = change.name.project
        before = queue_store.find(tx.connection, project, locks=True)
        if change.etag and change.etag != etag_of(before):
            raise ServiceError(
                Reason.ETAG_MISMATCH,
                f"{change.name} has the etag {etag_of(before)}, not {change.etag[:80]}: somebody changed it meanwhile",
                metadata={"name": str(change.name), "etag": etag_of(before)},
            )
        after = changed(before, change.wanted, change.paths)
        problems = list(limit_problems(after))
        if any(path.startswith("budget") for path in change.paths):
            problems += budget_problems("queue.budget", change.wanted.budget, self.price, is_queue=True)
        if problems:
            raise invalid_fields(problems)
        if not may_give and (looser := loosened(before, after, tx.now_ms)):
            raise ServiceError(
                Reason.PERMISSION_DENIED,
                f"an admin of {project} alone cannot loosen {', '.join(looser)}: ask an operator (role admin, all "
                "projects)",
                metadata={"name": str(change.name), "fields": ",".join(looser)},
            )
        queue_store.keep(tx, project, replace(after, revision=before.revision + 1))
        if after.budget.period is not before.budget.period:
            spending.move_renewals(tx, project, after.budget)
        return self._read(tx.connection, tx.now_ms, project)

    def _read(self, connection: Connection, now_ms: int, project: str) -> queues_pb2.Queue:
        found = next(each for each in _standings(connection, now_ms, project) if each.project == project)
        return queue_to_proto(found, now_ms, self.price)


def check_queue(name: QueueName) -> None:
    """Refuses a queue that no project has.

    Raises:
        ServiceError: NOT_FOUND.
    """
    if name.queue != DEFAULT_QUEUE:
        raise not_found("queue", name)


def _standings(connection: Connection, now_ms: int, project: str = "") -> list[Standing]:
    """Returns how all projects stand that are known here, and one more that need not be."""
    counts: dict[str, dict[JobState, int]] = usage.job_counts(connection)
    books = usage.books(connection, now_ms)
    names = {*counts, project} - {""}
    accounts = open_books(books, (), attempt_store.open_ones(connection), Terms(now_ms=now_ms), names).accounts
    return standings(accounts, counts)
