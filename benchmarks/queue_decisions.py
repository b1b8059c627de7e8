"""Decisions over a long queue, and the claims that they lead to, without gRPC and without the attempts' later life."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from services.grpckit.database import Database, PostgresAddress
from services.scheduler.broadcast import Broadcast
from services.scheduler.claiming import claim
from services.scheduler.decisions import decide
from services.scheduler.jobs import AttemptEnd, AttemptState, Failure, RetryPolicy
from services.scheduler.ledger import Ledger
from services.scheduler.observation import Observation
from services.scheduler.pacing import groups_of
from services.scheduler.queue_view import QueueView
from services.scheduler.queues.accounts import Terms, open_books
from services.scheduler.records import Attempt
from services.scheduler.service import MIGRATIONS, SCHEMA_HEAD
from services.scheduler.store import attempts, nodes, usage
from services.scheduler.store.transaction import Transaction
from tuneforge.v1 import nodes_pb2

ROUNDS, NODES, SLOTS = 5, 8, 16
_LEASE_MS = 3_600_000


def measure_decisions(data: Path, postgres: PostgresAddress | None = None) -> dict[str, float]:
    """Decides and claims on nodes that nobody runs, a few rounds; returns figures by name. No server runs meanwhile.

    Args:
        data: The scheduler's data folder; its queue is shorter afterwards.
        postgres: The database on a server; None: SQLite in the folder.
    """
    database = Database(
        data / "scheduler.db", migrations=MIGRATIONS, schema_head=SCHEMA_HEAD, service="scheduler", postgres=postgres
    )
    database.open()
    try:
        return asyncio.run(_rounds(Ledger(database, Broadcast())))
    finally:
        database.close()


async def _rounds(ledger: Ledger) -> dict[str, float]:
    view = QueueView()

    def look(connection: Connection, now_ms: int) -> Observation:
        jobs, open_ones = view.look(connection, now_ms), attempts.open_ones(connection)
        known = tuple(nodes.list_by_name(connection))
        books = open_books(usage.books(connection, now_ms), jobs, open_ones, Terms(now_ms=now_ms))
        return Observation(
            now_ms=now_ms,
            jobs=jobs,
            attempts=tuple(open_ones),
            nodes=known,
            reported={node.node: {} for node in known},
            projects=books.projects,
        )

    for number in range(NODES):
        await _register(ledger, f"idle-{number}")
    began = time.perf_counter()
    decide(await ledger.read_now(look))  # reads and works out everything, as at a start
    first_s = time.perf_counter() - began
    looked_s = decided_s = claimed_s = 0.0
    queued = placed = 0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        seen = await ledger.read_now(look)
        looked = time.perf_counter()
        _, groups = groups_of(decide(seen))
        decided = time.perf_counter()
        parts = [part for group in groups for part in await claim(ledger, group)]
        looked_s, decided_s = looked_s + looked - began, decided_s + decided - looked
        claimed_s += time.perf_counter() - decided
        placed += len(parts)
        await ledger.write(partial(_end, parts))
        queued = queued or len(seen.jobs)
    return {
        "decided_over": queued,
        "decisions_per_s": placed / decided_s,
        "first_round_ms": 1e3 * first_s,
        "decide_ms": 1e3 * decided_s / ROUNDS,
        "look_ms": 1e3 * looked_s / ROUNDS,
        "claims_per_s": placed / claimed_s,
    }


def _end(parts: list[Attempt], tx: Transaction) -> None:
    """Frees the nodes again; no retry follows."""
    failure = Failure(reason="INVALID_DATA", message="It was enough.", is_user_fault=True)
    end = AttemptEnd(state=AttemptState.FAILED, failure=failure)
    for part in parts:
        attempts.finish(tx, attempts.Ending(attempt=part, end=end, retry=RetryPolicy(), jitter=0.0))
        attempts.close(tx, part)


async def _register(ledger: Ledger, node: str) -> None:
    capacity = nodes_pb2.NodeCapacity(cpu_millis=64_000, memory_bytes=10**12, slots=SLOTS).SerializeToString()
    new = nodes.Registration(node=node, address="127.0.0.1:1", capacity=capacity, labels={}, generation="1", version="")
    await ledger.write(lambda tx: nodes.register(tx, new, _LEASE_MS))
