"""Lengths of time that are kept as moments, when the database's clock has jumped."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from services.scheduler.jobs import TERMINAL
from services.scheduler.store import changes, nodes
from services.scheduler.store.jobs import NOT_ENDED
from services.scheduler.store.tables import attempts, clock_jumps, jobs, usage
from services.scheduler.store.tables import nodes as node_rows
from services.scheduler.store.transaction import Transaction

_ENDED = [str(state) for state in TERMINAL]


def move(tx: Transaction, jump_ms: int, ttl_ms: int, newest: int) -> None:
    """Moves what runs, waits or is kept for a while, so that it lasts as long as it would have.

    What was written after a jump forward is told by its own moments. After a jump backward it cannot be told: a wait
    that began between the jump and this call ends at once.

    Args:
        tx: The transaction.
        jump_ms: How far the clock went forward; below 0: backward.
        ttl_ms: How long a lease lasts: each gets all of it, as at a start.
        newest: Events of each log that are never thinned out.
    """
    before_ms = tx.now_ms - jump_ms
    run, job, node = tx.connection.execute, jobs.c, node_rows.c
    nodes.grace(tx, ttl_ms)
    run(insert(clock_jumps).values(at_ms=tx.now_ms, jump_ms=jump_ms))
    run(update(node_rows).where(node.unreachable_ms <= before_ms).values(unreachable_ms=node.unreachable_ms + jump_ms))
    run(
        update(attempts)
        .where(attempts.c.end_ms.is_(None), attempts.c.create_ms <= before_ms)
        .values(create_ms=attempts.c.create_ms + jump_ms, first_step_ms=attempts.c.first_step_ms + jump_ms)
    )
    run(
        update(jobs)
        .where(job.state.in_(NOT_ENDED), job.queued_ms <= before_ms)
        .values(queued_ms=job.queued_ms + jump_ms, not_before_ms=job.not_before_ms + jump_ms, **changes.stamp(tx))
    )
    run(
        update(jobs)
        .where(job.expire_ms.is_not(None), job.removal.is_(None), job.end_ms <= before_ms)
        .values(expire_ms=job.expire_ms + jump_ms)
    )
    run(update(usage).where(usage.c.as_of_ms <= before_ms).values(as_of_ms=usage.c.as_of_ms + jump_ms))
    forget(tx, newest)


def forget(tx: Transaction, newest: int) -> None:
    """Takes out the jumps before which no log ended that is there and is still to be thinned out: none is so old.

    Args:
        tx: The transaction.
        newest: Events of each log that are never thinned out.
    """
    job, jump = jobs.c, clock_jumps.c
    to_do = (job.state.in_(_ENDED), job.removal.is_(None), job.compacted_seq < job.latest_seq - newest)
    gone = delete(clock_jumps)
    if (oldest_ms := tx.connection.execute(select(func.min(job.end_ms)).where(*to_do)).scalar_one()) is not None:
        # What the clock said just before a jump is the latest that a log from before it may have as its end.
        concerns_it = or_(jump.at_ms >= oldest_ms, jump.at_ms - jump.jump_ms >= oldest_ms)
        needed = select(func.min(jump.id)).where(concerns_it).scalar_subquery()
        gone = gone.where(jump.id < func.coalesce(needed, jump.id + 1))
    tx.connection.execute(gone)


def jumps(connection: Connection) -> list[tuple[int, int]]:
    """Returns what the clock said after each jump and how far it went forward, the newest first."""
    query = select(clock_jumps.c.at_ms, clock_jumps.c.jump_ms).order_by(clock_jumps.c.id.desc())
    return [(row.at_ms, row.jump_ms) for row in connection.execute(query)]


def begin(tx: Transaction, ttl_ms: int) -> None:
    """Gives each lease all of its time, and lets no wait be longer than it was meant to be, at the start of a process.

    How far the clock has jumped while nobody looked is not known; that it went back is, where something that is there
    lies in the future.
    """
    nodes.grace(tx, ttl_ms)
    run, job = tx.connection.execute, jobs.c
    run(
        update(jobs)
        .where(job.state.in_(NOT_ENDED), job.queued_ms > tx.now_ms)
        .values(not_before_ms=job.not_before_ms - job.queued_ms + tx.now_ms, queued_ms=tx.now_ms, **changes.stamp(tx))
    )
    run(
        update(jobs)
        .where(job.expire_ms > job.ttl_ms + tx.now_ms, job.removal.is_(None), job.end_ms > tx.now_ms)
        .values(expire_ms=job.ttl_ms + tx.now_ms)
    )
    run(
        update(attempts)
        .where(attempts.c.end_ms.is_(None), attempts.c.create_ms > tx.now_ms)
        .values(create_ms=tx.now_ms, first_step_ms=None)
    )
