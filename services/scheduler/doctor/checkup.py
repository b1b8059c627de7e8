"""Reads a scheduler's database and gives what it holds to the checks. Columns are named: those of others may come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import Connection, bindparam, select

from services.scheduler import wire
from services.scheduler.doctor import logs, rows, usage
from services.scheduler.doctor.finding import Finding
from services.scheduler.doctor.logs import Log
from services.scheduler.doctor.rows import Part, Rows
from services.scheduler.jobs import LIVE_ATTEMPT, AttemptState, JobState
from services.scheduler.records import Needs
from services.scheduler.store.tables import attempts, chunks, counters, jobs, nodes, outbox
from tuneforge.names import JobName

_LIVE = [str(state) for state in LIVE_ATTEMPT]


def examine(connection: Connection, only: Collection[int] | None = None) -> list[Finding]:
    """Returns every promise that a database does not keep at this moment; empty: it is sound.

    Args:
        connection: A connection inside a transaction, so that all is read from one snapshot.
        only: Numbers of the jobs whose logs are read; None: of all.
    """
    parts: dict[int, list[Part]] = defaultdict(list)
    marks: dict[int, dict[tuple[int, int], int]] = defaultdict(dict)
    for row in connection.execute(_PARTS):
        parts[row.job].append(
            Part(
                attempt=row.attempt,
                node_rank=row.node_rank,
                nodes=row.nodes,
                node=row.node,
                token=row.token,
                state=AttemptState(row.state),
            )
        )
        marks[row.job][row.attempt, row.node_rank] = row.last_seq
    pending: dict[int, list[int]] = defaultdict(list)
    for job, token in connection.execute(_PENDING):
        pending[job].append(token)
    found: list[Finding] = []
    for row in connection.execute(_JOBS).all():
        name, state = str(JobName(row.project, row.job_id)), JobState(row.state)
        found += rows.check(
            Rows(
                job=name,
                state=state,
                attempt=row.attempt,
                token=row.token,
                parts=parts[row.number],
                pending_tokens=pending[row.number],
                has_result=bool(row.version or (row.verifies and state is JobState.SUCCEEDED)),
                has_failure=row.failure is not None,
                has_end=row.end_ms is not None,
            )
        )
        if only is None or row.number in only:
            found += logs.check(_log(connection, row, name, marks[row.number]))
    return [*found, *_tokens(connection), *_slots(connection), *usage.check(connection)]


_PARTS: Any = select(
    attempts.c.job, attempts.c.attempt, attempts.c.node_rank, attempts.c.nodes, attempts.c.node, attempts.c.token,
    attempts.c.state, attempts.c.last_seq,
).order_by(attempts.c.job, attempts.c.attempt, attempts.c.node_rank)  # fmt: skip
_JOBS: Any = select(
    jobs.c.number, jobs.c.project, jobs.c.job_id, jobs.c.state, jobs.c.attempt, jobs.c.token, jobs.c.version,
    jobs.c.verifies, jobs.c.failure, jobs.c.end_ms, jobs.c.latest_seq, jobs.c.record_head,
    jobs.c.compacted_seq, jobs.c.removed_events, jobs.c.compacted_head,
).where(jobs.c.removal.is_(None)).order_by(jobs.c.number)  # fmt: skip
_PENDING: Any = select(outbox.c.job, outbox.c.token)
_CHUNKS: Any = (
    select(chunks.c.first_seq, chunks.c.last_seq, chunks.c.payload)
    .where(chunks.c.job == bindparam("job"))
    .order_by(chunks.c.first_seq)
)
_TOKENS: Any = select(attempts.c.job, attempts.c.attempt, attempts.c.token).where(attempts.c.node_rank == 0)
_FENCE: Any = select(counters.c.value).where(counters.c.name == "fence")
_CAPACITIES: Any = select(nodes.c.node, nodes.c.capacity)
_HOLDERS: Any = (
    select(attempts.c.node, jobs.c.devices)
    .join(jobs, jobs.c.number == attempts.c.job)
    .where(attempts.c.state.in_(_LIVE))
)


def _log(connection: Connection, row: Any, name: str, marks: dict[tuple[int, int], int]) -> Log:
    read = connection.execute(_CHUNKS, {"job": row.number})
    return Log(
        job=name,
        state=JobState(row.state),
        latest_seq=row.latest_seq,
        record_head=row.record_head or b"",
        chunks=[(each.first_seq, each.last_seq, each.payload) for each in read],
        marks=marks,
        thinned_seq=row.compacted_seq,
        removed=row.removed_events,
        thinned_head=row.compacted_head or b"",
    )


def _tokens(connection: Connection) -> Iterator[Finding]:
    """token.unique: no two attempts ever had the same token, and the counter is not behind them."""
    owners: dict[int, tuple[int, int]] = {}
    for job, attempt, token in connection.execute(_TOKENS):
        if token in owners:
            problem = f"job {job}, attempt {attempt} and job {owners[token][0]}, attempt {owners[token][1]} share it"
            yield Finding(rule="token.unique", subject=f"token {token}", problem=problem)
        owners[token] = (job, attempt)
    last = connection.execute(_FENCE).scalar_one_or_none() or 0
    if owners and max(owners) > last:
        problem = f"the counter is at {last}, an attempt has {max(owners)}"
        yield Finding(rule="token.unique", subject="counter fence", problem=problem)


def _slots(connection: Connection) -> Iterator[Finding]:
    """node.slots: what runs on a node is not more than it has slots for."""
    capacities = {row.node: wire.capacity_from_bytes(row.capacity) for row in connection.execute(_CAPACITIES)}
    taken: dict[str, int] = defaultdict(int)
    for node, devices in connection.execute(_HOLDERS):
        if node not in capacities:
            yield Finding(rule="node.known", subject=f"nodes/{node}", problem="an attempt lives on it, it is not known")
            continue
        taken[node] += Needs(devices=devices).slots
    for node, count in sorted(taken.items()):
        slots = max(1, capacities[node].slots)
        if count > slots:
            problem = f"attempts that may be alive take {count} slots, it has {slots}"
            yield Finding(rule="node.slots", subject=f"nodes/{node}", problem=problem)
