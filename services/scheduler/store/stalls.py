"""Attempts that make no progress: kept with the attempt while it lasts, and told in the job's log when it changes."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import bindparam, select, update

from services.scheduler import wire
from services.scheduler.jobs import LIVE_ATTEMPT
from services.scheduler.store import events
from services.scheduler.store.tables import attempts, jobs
from services.scheduler.store.transaction import Transaction
from tuneforge.names import JobName


def note(tx: Transaction, node: str, stalled: Mapping[str, bytes]) -> None:
    """Notes which attempts of a node stand still by its last word.

    Args:
        tx: The transaction of the heartbeat.
        node: Id of the node.
        stalled: Serialised `Stall` by name of the attempt.
    """
    for row in tx.connection.execute(_LIVE, {"node": node}).all():
        name = JobName(row.project, row.job_id)
        now = stalled.get(str(name.attempt(row.attempt)))
        now = now and wire.stall_of_part(now, row.node_rank, node)
        is_news = now is not None and (row.stall is None or (wire.has_stacks(now) and not wire.has_stacks(row.stall)))
        if not is_news and not (now is None and row.stall is not None):
            continue
        tx.connection.execute(
            update(attempts)
            .where(attempts.c.job == row.job, attempts.c.attempt == row.attempt, attempts.c.node == node)
            .values(stall=now)
        )
        told, is_over = (row.stall, True) if now is None else (now, False)
        events.append(
            tx,
            row.job,
            lambda seq, name=name, told=told, is_over=is_over: wire.stall_event(  # type: ignore[misc]
                str(name), told, seq, tx.now_ms, is_over=is_over
            ),
        )


_LIVE = (
    select(attempts.c.job, attempts.c.attempt, attempts.c.node_rank, attempts.c.stall, jobs.c.project, jobs.c.job_id)
    .join(jobs, jobs.c.number == attempts.c.job)
    .where(
        attempts.c.is_closed.is_(False),
        attempts.c.node == bindparam("node"),
        attempts.c.state.in_([str(state) for state in LIVE_ATTEMPT]),
    )
)
