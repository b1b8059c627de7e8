"""Nodes and their leases on disk. Leases are judged by the database's clock alone."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from services.scheduler import wire
from services.scheduler.records import Drain, Node
from services.scheduler.store.setting import set_values
from services.scheduler.store.tables import nodes
from services.scheduler.store.transaction import Transaction

READY, UNREACHABLE, DRAINING = "READY", "UNREACHABLE", "DRAINING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a trainer says of itself when it starts."""

    node: str
    address: str
    capacity: bytes
    """Serialised `NodeCapacity`."""
    labels: Mapping[str, str]
    generation: str
    version: str


def register(tx: Transaction, new: Registration, ttl_ms: int) -> tuple[Node, bool]:
    """Makes a node known; returns it and whether this is another start of it than the one known before."""
    known = find(tx.connection, new.node)
    values = {
        "address": new.address,
        "capacity": new.capacity,
        "labels": json.dumps(dict(new.labels)),
        "generation": new.generation,
        "version": new.version,
        "state": READY,
        "lease_until_ms": tx.now_ms + ttl_ms,
        "unreachable_ms": None,
    }
    if known is None:
        token = secrets.token_urlsafe(32)
        tx.connection.execute(insert(nodes).values(node=new.node, manager_token=token, **values))
    else:
        tx.connection.execute(update(nodes).where(nodes.c.node == new.node).values(**values))
    node = find(tx.connection, new.node)
    if node is None:
        raise AssertionError("a row that was just written is gone")
    return node, known is not None and known.generation != new.generation


def renew(tx: Transaction, node: str, generation: str, *, is_draining: bool, ttl_ms: int) -> int | None:
    """Renews a lease and returns its end; None when the node is not known by this generation."""
    until_ms = tx.now_ms + ttl_ms
    lease = {"lease_until_ms": until_ms, "unreachable_ms": None, "state": DRAINING if is_draining else READY}
    renewed = set_values(tx.connection, _OF_GENERATION, {"of_node": node, "of_generation": generation, **lease})
    return until_ms if renewed == 1 else None


def mark_unreachable(tx: Transaction, node: str) -> bool:
    """Marks a node whose lease has run out; False when it was renewed meanwhile.

    It counts as silent from now on, not from the end of its lease: after a jump of the clock that end may seem to be
    long ago, and every node that answers a moment later would have lost its attempts.
    """
    marked = tx.connection.execute(
        update(nodes)
        .where(nodes.c.node == node, nodes.c.lease_until_ms < tx.now_ms, nodes.c.state != UNREACHABLE)
        .values(state=UNREACHABLE, unreachable_ms=tx.now_ms)
    )
    return marked.rowcount == 1


def grace(tx: Transaction, ttl_ms: int) -> None:
    """Gives each lease one full TTL; called once at the start, because nobody could renew while we were away."""
    tx.connection.execute(update(nodes).values(lease_until_ms=tx.now_ms + ttl_ms))


def set_drain(tx: Transaction, node: str, drain: Drain | None) -> None:
    """Has a node take no new work, or lets it again; it stays so when the node is started anew."""
    tx.connection.execute(
        update(nodes)
        .where(nodes.c.node == node)
        .values(
            drain_ms=drain.since_ms if drain else None,
            drain_deadline_ms=drain.deadline_ms if drain else None,
            drain_reason=drain.reason if drain else None,
            drain_actor=drain.actor if drain else None,
        )
    )


def find(connection: Connection, node: str) -> Node | None:
    """Returns a node by id, or None."""
    row = connection.execute(_BY_ID, {"id": node}).one_or_none()
    return None if row is None else _node(row)


def ready_ones(tx: Transaction, names: Collection[str]) -> set[str]:
    """Returns those of some nodes that take work now."""
    found = map(_node, tx.connection.execute(_BY_IDS, {"ids": list(names)}))
    return {node.node for node in found if node.takes_work(tx.now_ms)}


def list_by_name(connection: Connection, after: str = "", limit: int | None = None) -> list[Node]:
    """Returns nodes by id, those after `after`."""
    query = _AFTER if limit is None else _AFTER.limit(limit)
    return [_node(row) for row in connection.execute(query, {"after": after})]


_BY_ID = select(nodes).where(nodes.c.node == bindparam("id"))
_BY_IDS = select(nodes).where(nodes.c.node.in_(bindparam("ids", expanding=True)))
_OF_GENERATION = update(nodes).where(
    nodes.c.node == bindparam("of_node"), nodes.c.generation == bindparam("of_generation")
)
_AFTER = select(nodes).where(nodes.c.node > bindparam("after")).order_by(nodes.c.node)


def _node(row: Row[Any]) -> Node:
    return Node(
        node=row.node,
        address=row.address,
        capacity=wire.capacity_from_bytes(row.capacity),
        capacity_message=row.capacity,
        labels=json.loads(row.labels),
        generation=row.generation,
        version=row.version,
        state=row.state,
        lease_until_ms=row.lease_until_ms,
        unreachable_ms=row.unreachable_ms,
        manager_token=row.manager_token,
        drain=_drain(row),
    )


def _drain(row: Row[Any]) -> Drain | None:
    if row.drain_ms is None:
        return None
    return Drain(
        since_ms=row.drain_ms,
        deadline_ms=row.drain_deadline_ms,
        reason=row.drain_reason or "",
        actor=row.drain_actor or "",
    )
