"""What the loop says to nodes: start an attempt, stop it, close it. Each may be said again at any time.

A start whose outcome is not known is observed first: the node is asked what it holds, and only an attempt that it does
not hold is started.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from sqlalchemy import Connection

from services.grpckit.errors import ServiceError
from services.grpckit.logging import get_logger
from services.scheduler.actions import Close, Fence, Start, Stop
from services.scheduler.jobs import AttemptEnd, AttemptState, Failure, RetryPolicy
from services.scheduler.ledger import Ledger
from services.scheduler.records import Attempt, Checkpoint, Job, Node
from services.scheduler.settings import Timing
from services.scheduler.store import attempts as attempt_store
from services.scheduler.store import checkpoints as checkpoint_store
from services.scheduler.store import jobs as job_store
from services.scheduler.store import marks
from services.scheduler.store.transaction import Transaction
from services.scheduler.wire.publications import start_request
from services.scheduler.wire.reports import Status

_log = get_logger(__name__)

_REFUSED_FOR_GOOD = frozenset({"INVALID_FIELD", "INVALID_NAME", "LOCAL_PATH_REFUSED", "INVALID_MODEL", "INVALID_DATA"})
"""The node will never take this spec: the job's own fault."""
_REFUSED_HERE = frozenset({"STALE_ATTEMPT", "PERMISSION_DENIED", "UNAUTHENTICATED"})
"""This node will never take this attempt: a new one may go elsewhere."""
_NOT_YET = frozenset({"DRAINING", "NODE_MANAGED"})
"""The node shuts down, or was started anew and has not registered yet: nobody's fault, and a new attempt follows."""
_GONE = frozenset({"NOT_FOUND", "STALE_ATTEMPT", "CURSOR_OUT_OF_RANGE"})
"""The node does not hold what the call is about."""


class AttemptTarget(Protocol):
    """The part of a trainer that this module needs."""

    async def held(self, address: str) -> Mapping[str, Status]:
        """Returns what the node holds, by attempt name."""

    async def start(
        self, address: str, job: Job, attempt: Attempt, known: Sequence[Checkpoint], manager_token: str
    ) -> Status:
        """Starts an attempt."""

    async def stop(self, address: str, attempt: Attempt, grace_s: float, *, is_saving: bool = False) -> None:
        """Asks an attempt to stop, without saving or after it has saved its state."""

    async def ack(self, address: str, attempt: Attempt, seq: int, *, is_final: bool) -> None:
        """Tells that events up to a number, and with `is_final` the end, are kept."""


@dataclass(slots=True, kw_only=True)
class Dispatch:
    """Carries out starts, stops and closes."""

    ledger: Ledger
    trainers: AttemptTarget
    timing: Timing
    retry: RetryPolicy
    chance: random.Random
    """Source of jitter."""
    unsent: set[tuple[int, int]] = field(default_factory=set)
    """Parts of attempts that this process placed and never sent: there is nothing to observe for them."""

    async def start(self, action: Start) -> None:
        """Starts a placed attempt, or finds it started.

        Raises:
            ServiceError: the node does not answer or has no room now: say it again later.
        """
        attempt, node = action.attempt, action.node
        if attempt.part not in self.unsent:
            held = await self.trainers.held(node.address)
            if (found := held.get(str(attempt.name))) is not None:
                await self._confirmed(attempt, node, found)
                return
        self.unsent.discard(attempt.part)
        job, known = await self.ledger.read(lambda db: _work(db, attempt))
        await self._try_message(job, attempt, known)
        try:
            status = await self.trainers.start(node.address, job, attempt, known, node.manager_token)
        except ServiceError as error:
            if error.reason in _REFUSED_FOR_GOOD:
                await self._refused(attempt, _failure(error, is_user_fault=True))
            elif error.reason in _REFUSED_HERE:
                await self._refused(attempt, _failure(error, is_user_fault=False))
            elif error.reason in _NOT_YET:
                end = AttemptEnd(state=AttemptState.INTERRUPTED, failure=_failure(error, is_user_fault=False))
                await self._end(attempt, end)
            else:
                raise
        else:
            await self._confirmed(attempt, node, status)

    async def _try_message(self, job: Job, attempt: Attempt, durable: Sequence[Checkpoint]) -> None:
        """Puts together what a node gets, while the job is marked: who dies of it knows which job it was."""
        if not job.handled:
            return  # it went well before
        if job.handled % 2 == 0:
            await self.ledger.write(lambda tx: marks.mark(tx, job.number))
        start_request(job, attempt, durable, "")
        await self.ledger.write(lambda tx: marks.clear(tx, job.number))

    async def _confirmed(self, attempt: Attempt, node: Node, status: Status) -> None:
        if await self.ledger.write(lambda tx: attempt_store.confirm(tx, attempt)):
            _log.info("attempt started", attempt=str(attempt.name), node=attempt.node, state=str(status.state))
        else:  # it was ended here while the call was on its way
            await self._fenced(attempt, node, status)

    async def _refused(self, attempt: Attempt, failure: Failure) -> None:
        end = AttemptEnd(state=AttemptState.FAILED, failure=failure)
        await self._end(attempt, end)

    async def _end(self, attempt: Attempt, end: AttemptEnd) -> None:
        ending = attempt_store.Ending(attempt=attempt, end=end, retry=self.retry, jitter=self.chance.random())

        def write(tx: Transaction) -> None:
            attempt_store.finish(tx, ending)
            attempt_store.close(tx, attempt)

        await self.ledger.write(write)

    async def stop(self, action: Stop) -> None:
        """Asks a node to stop an attempt; one that it does not hold has ended.

        Raises:
            ServiceError: the node does not answer: say it again later.
        """
        attempt, node, is_saving = action.attempt, action.node, action.is_saving
        grace_s = self.timing.save_grace_s if is_saving else self.timing.stop_grace_s
        try:
            await self.trainers.stop(node.address, attempt, grace_s, is_saving=is_saving)
        except ServiceError as error:
            if error.reason not in {"NOT_FOUND", "STALE_ATTEMPT"}:
                raise
            await self._end(attempt, AttemptEnd(state=AttemptState.CANCELLED))
        else:
            _log.info("attempt asked to stop", attempt=str(attempt.name), node=attempt.node)
            await self.ledger.write(lambda tx: attempt_store.mark_stopping(tx, attempt))

    async def fence(self, action: Fence) -> None:
        """Ends an attempt that a node names although it does not count any more, and lets the node forget it.

        Raises:
            ServiceError: the node does not answer: say it again later.
        """
        attempt, node = action.attempt, action.node
        found = (await self.trainers.held(node.address)).get(str(attempt.name))
        if found is not None:  # the heartbeat that named it may be older than its end
            await self._fenced(attempt, node, found)

    async def _fenced(self, attempt: Attempt, node: Node, found: Status) -> None:
        attempt = replace(attempt, node_rank=found.node_rank)
        try:
            if found.is_live:
                _log.warning(
                    "an attempt that does not count is asked to stop", attempt=str(attempt.name), node=node.node
                )
                await self.trainers.stop(node.address, attempt, self.timing.stop_grace_s)
            else:
                await self.trainers.ack(node.address, attempt, found.last_seq, is_final=True)
        except ServiceError as error:
            if error.reason not in _GONE:
                raise

    async def close(self, action: Close) -> None:
        """Tells a node that an attempt's end is kept; one that was given up and still runs there is stopped first.

        Raises:
            ServiceError: the node does not answer: say it again later.
        """
        attempt, address, seq = action.attempt, action.node.address, action.attempt.last_seq
        if attempt.state is AttemptState.LOST:
            # It was given up from here: only the node knows whether it runs, and its last heartbeat may be older.
            found = (await self.trainers.held(address)).get(str(attempt.name))
            if found is not None and found.is_live:
                _log.info("fenced attempt asked to stop", attempt=str(attempt.name), node=attempt.node)
                await self.trainers.stop(address, attempt, self.timing.stop_grace_s)
                return
            seq = found.last_seq if found is not None else seq  # what it said after it was fenced is dropped
        try:
            await self.trainers.ack(address, attempt, seq, is_final=True)
        except ServiceError as error:
            if error.reason not in _GONE:
                raise
        await self.ledger.write(lambda tx: attempt_store.close(tx, attempt))


def _work(connection: Connection, attempt: Attempt) -> tuple[Job, list[Checkpoint]]:
    """Returns an attempt's job and its checkpoints, newest first."""
    known = checkpoint_store.list_newest(connection, attempt.job, None, None)
    job = job_store.load(connection, attempt.job)
    if job.origin is not None:
        job = replace(job, origin=checkpoint_store.with_best(connection, job.origin, job.best_step))
    return job, known


def _failure(error: ServiceError, *, is_user_fault: bool) -> Failure:
    details = "; ".join(f"{each.field} {each.description}" for each in error.fields)
    return Failure(
        reason=str(error.reason),
        message=f"Its node refused to start it: {error.message}" + (f" ({details})" if details else "") + ".",
        cure=error.cure,
        is_user_fault=is_user_fault,
        metadata=tuple(sorted(error.metadata.items())),
    )
