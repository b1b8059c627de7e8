"""Placing jobs on disk: several share the statements, and each placed attempt has a fencing token of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select

from services.scheduler import wire
from services.scheduler.jobs import AttemptState, JobState
from services.scheduler.records import Attempt
from services.scheduler.store import steps, tokens
from services.scheduler.store.attempts import newest_of
from services.scheduler.store.marks import MARKED
from services.scheduler.store.tables import attempts, jobs
from services.scheduler.store.transaction import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """A new attempt that a queued job is to get."""

    job: int
    nodes: Sequence[str]
    """By rank."""
    why: str


def place(tx: Transaction, *placings: Placing) -> list[Attempt]:
    """Gives queued jobs new attempts; returns all parts, none of a job that is not queued any more."""
    by_job = {each.job: each for each in placings}
    if not by_job:
        return []
    rows = {row.number: row for row in tx.connection.execute(_JOBS, {"of_jobs": list(by_job)})}
    made = {
        each.job: steps.Step(
            to=JobState.STARTING,
            reason="PLACED",
            message=each.why,
            values={"attempt": rows[each.job].attempt + 1, "token": token, "handled": MARKED},
        )
        for each, token in zip(by_job.values(), tokens.next_tokens(tx, len(by_job)), strict=True)
    }
    placed = steps.advance_all(tx, made)
    parts = [
        {
            "job": job,
            "attempt": made[job].values["attempt"],
            "token": made[job].values["token"],
            "node_rank": rank,
            "nodes": len(by_job[job].nodes),
            "node": node,
            "create_ms": tx.now_ms,
            "state": str(AttemptState.STARTING),
            "slots": max(1, rows[job].devices or 1),
            "watts": wire.predicted_watts(rows[job].resource_estimate),
            "rows_at_once": rows[job].rows_at_once,
        }
        for job in placed
        for rank, node in enumerate(by_job[job].nodes)
    ]
    if not parts:
        return []
    tx.connection.execute(insert(attempts), parts)
    return newest_of(tx.connection, placed)


_JOBS = select(jobs.c.number, jobs.c.attempt, jobs.c.devices, jobs.c.resource_estimate, jobs.c.rows_at_once).where(
    jobs.c.number.in_(bindparam("of_jobs", expanding=True))
)
