"""Follows one running attempt: reads its events, commits them in groups, and only then acknowledges them.

A follower remembers nothing: it stands at the high-water mark, which moves in the transaction that keeps the events.
Whatever ends it (a lost connection, a restart of the node or of the scheduler), the next one asks for what comes after
the mark, and what is sent twice is dropped.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import Connection

from services.grpckit.errors import ServiceError
from services.grpckit.logging import get_logger
from services.scheduler.backoff import Backoff
from services.scheduler.jobs import LIVE_ATTEMPT, AttemptEnd, AttemptState, Failure, RetryPolicy
from services.scheduler.ledger import Ledger
from services.scheduler.records import Attempt
from services.scheduler.settings import Timing
from services.scheduler.store import attempts as attempt_store
from services.scheduler.store import nodes as node_store
from services.scheduler.store.transaction import Transaction
from services.scheduler.wire.events import Batch
from services.scheduler.wire.reports import Report, Status, end_of

EVENTS_PER_COMMIT = 1000
"""A flush does not wait for its time when so many have come."""

_log = get_logger(__name__)


class AttemptSource(Protocol):
    """The part of a trainer that a follower needs."""

    def watch(self, address: str, attempt: Attempt, after_seq: int) -> AsyncGenerator[Report, None]:
        """Yields what happens in an attempt after a number."""

    async def ack(self, address: str, attempt: Attempt, seq: int, *, is_final: bool) -> None:
        """Tells that events up to a number are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a follower needs beside its attempt."""

    ledger: Ledger
    trainers: AttemptSource
    timing: Timing
    retry: RetryPolicy
    chance: random.Random = field(default_factory=random.Random)
    """Source of jitter."""


@dataclass(slots=True)
class _Group:
    """Events that wait for their commit, and the newest word on the attempt."""

    batches: list[Batch] = field(default_factory=list)
    count: int = 0
    due: float | None = None
    """Loop time of the commit; None: nothing waits."""
    committed: float = -math.inf
    """Loop time of the last commit."""
    status: Status | None = None
    state_kept: AttemptState = AttemptState.STARTING
    """The attempt's state that the last commit wrote."""
    rendezvous_kept: str = ""
    """Where its other parts meet it, as the last commit wrote it."""

    def take(self, report: Report, flush_s: float) -> None:
        """Adds what came. It is due a flush time after the last commit: at once when little happens."""
        self.status = report.status
        if report.batch.events:
            self.batches.append(report.batch)
            self.count += len(report.batch.events)
            self.due = self.committed + flush_s
        is_news = report.status.state is not self.state_kept or report.status.rendezvous != self.rendezvous_kept
        if is_news or self.count >= EVENTS_PER_COMMIT:
            self.due = 0.0

    def clear(self) -> None:
        """Forgets what was committed."""
        self.batches, self.count, self.due = [], 0, None


async def follow(attempt: Attempt, rules: Rules) -> None:
    """Follows an attempt until its end is kept and acknowledged, or until it does not count any more."""
    backoff = Backoff(rules.timing.retry_first_s, rules.timing.retry_longest_s, rules.chance)
    while True:
        current, address = await rules.ledger.read(lambda db: _where(db, attempt))
        if current.state not in LIVE_ATTEMPT:
            return
        try:
            if await _stream(current, address, rules, backoff):
                return
        except attempt_store.Fenced:
            return
        except attempt_store.SequenceGap as gap:
            _log.warning("events are missing, asking again", attempt=str(attempt.name), problem=str(gap))
        except ServiceError as error:
            if error.reason in {"NOT_FOUND", "CURSOR_OUT_OF_RANGE"}:
                await _give_up(current, rules, error)
                return
            problem = f"{error.reason}: {error.message}"
            _log.info("the stream of an attempt broke, asking again", attempt=str(attempt.name), problem=problem)
        await asyncio.sleep(backoff.next_s())


def _where(connection: Connection, attempt: Attempt) -> tuple[Attempt, str]:
    current = attempt_store.load(connection, attempt.job, attempt.name.attempt, attempt.node_rank)
    node = node_store.find(connection, attempt.node)
    return current, "" if node is None else node.address


async def _stream(attempt: Attempt, address: str, rules: Rules, backoff: Backoff) -> bool:
    """Reads one stream to its end; returns whether the attempt's own end was kept."""
    loop = asyncio.get_running_loop()
    group = _Group(state_kept=attempt.state, rendezvous_kept=attempt.rendezvous if attempt.node_rank == 0 else "")
    async with aclosing(rules.trainers.watch(address, attempt, attempt.last_seq)) as reports:
        coming: asyncio.Task[Report | None] | None = None
        try:
            while True:
                if coming is None:
                    coming = asyncio.ensure_future(anext(reports, None))
                timeout = None if group.due is None else max(0.0, group.due - loop.time())
                await asyncio.wait({coming}, timeout=timeout)
                is_over = False
                if coming.done():
                    report, coming = coming.result(), None
                    is_over = report is None
                    if report is not None:
                        backoff.reset()
                        group.take(report, rules.timing.flush_s)
                is_due = is_over or (group.due is not None and group.due <= loop.time())
                if is_due:
                    group.committed = loop.time()
                    if await _commit(attempt, address, group, rules):
                        return True
                if is_over:
                    return False
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait({coming})


async def _commit(attempt: Attempt, address: str, group: _Group, rules: Rules) -> bool:
    """Keeps what came and acknowledges it; returns whether the attempt's end is kept now."""
    status, batch = group.status, Batch(tuple(event for part in group.batches for event in part.events))
    if status is None:
        return False
    jitter = rules.chance.random()

    def keep(tx: Transaction) -> tuple[int, bool]:
        if status.state is AttemptState.RUNNING:
            attempt_store.mark_running(tx, attempt)
        if status.rendezvous != group.rendezvous_kept:
            attempt_store.note_rendezvous(tx, attempt, status.rendezvous)
        mark = attempt_store.keep_events(tx, attempt, batch)
        if status.is_live or mark < status.last_seq:
            return mark, False  # a stream may break off before the last events came, although the end is known
        kept = attempt_store.load(tx.connection, attempt.job, attempt.name.attempt, attempt.node_rank)
        end = end_of(status, kept.outcome)
        attempt_store.finish(tx, attempt_store.Ending(attempt=kept, end=end, retry=rules.retry, jitter=jitter))
        return mark, True

    mark, has_ended = await rules.ledger.write(keep)
    group.state_kept, group.rendezvous_kept = status.state, status.rendezvous
    group.clear()
    if batch.events or has_ended:
        await _acknowledge(attempt, address, mark, rules, is_final=has_ended)
    return has_ended


async def _acknowledge(attempt: Attempt, address: str, mark: int, rules: Rules, *, is_final: bool) -> None:
    """Tells the node; when it does not answer, the next acknowledgement or the loop's `Close` says the same."""
    try:
        await rules.trainers.ack(address, attempt, mark, is_final=is_final)
    except ServiceError as error:
        if error.reason != "NOT_FOUND":
            problem = f"{error.reason}: {error.message}"
            _log.info("an acknowledgement is said again later", attempt=str(attempt.name), problem=problem)
            return
    if is_final:
        await rules.ledger.write(lambda tx: attempt_store.close(tx, attempt))


async def _give_up(attempt: Attempt, rules: Rules, error: ServiceError) -> None:
    """Ends an attempt that its node does not hold any more, or holds with fewer events than are kept."""
    failure = Failure(
        reason="WORKER_LOST",
        message=f"nodes/{attempt.node} does not hold attempt {attempt.name.attempt} any more: {error.message}.",
        cure="Look at the node's data folder and log.",
    )
    end = AttemptEnd(state=AttemptState.LOST, failure=failure)
    ending = attempt_store.Ending(attempt=attempt, end=end, retry=rules.retry, jitter=rules.chance.random())

    def lose(tx: Transaction) -> None:
        attempt_store.finish(tx, ending)
        if error.reason == "NOT_FOUND":
            attempt_store.close(tx, attempt)

    await rules.ledger.write(lose)
