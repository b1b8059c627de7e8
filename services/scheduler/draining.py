"""Maintenance of nodes: a drained node takes no new work, and its jobs leave it at a deadline (see `decisions.py`)."""

from __future__ import annotations

from collections.abc import Callable

from services.grpckit.errors import FieldViolation, invalid_fields, not_found
from services.scheduler.nodes import Nodes, warn_attempts
from services.scheduler.records import Drain, Node
from services.scheduler.store import nodes as node_store
from services.scheduler.store.transaction import Transaction
from services.scheduler.verbs import Call, reason_problems
from services.scheduler.wire.resources import node_to_proto

_LAST_MS = 253_402_300_799_999
"""End of the year 9999: the last moment that a message can carry."""


async def drain(nodes: Nodes, node: str, reason: str, deadline_ms: int | None, call: Call) -> bytes:
    """Has a node take no new work; returns it, serialised.

    Raises:
        ServiceError: as `DrainNode` documents.
    """
    problems = reason_problems(reason)
    if deadline_ms is not None and not 0 <= deadline_ms <= _LAST_MS:
        problems.append(FieldViolation("deadline", "is no moment: use one of the years 1970 to 9999"))
    if problems:
        raise invalid_fields(problems)

    def change(tx: Transaction, known: Node) -> Drain:
        since_ms = known.drain.since_ms if known.drain is not None else tx.now_ms
        warn_attempts(tx, node, f"nodes/{node} is drained by {call.actor}" + (f": {reason}" if reason else "."))
        return Drain(since_ms=since_ms, deadline_ms=deadline_ms, reason=reason, actor=call.actor)

    return await _change(nodes, node, call, change)


async def undrain(nodes: Nodes, node: str, call: Call) -> bytes:
    """Lets a drained node take work again; returns it, serialised.

    Raises:
        ServiceError: as `UndrainNode` documents.
    """
    return await _change(nodes, node, call, lambda _tx, _node: None)


async def _change(nodes: Nodes, node: str, call: Call, make: Callable[[Transaction, Node], Drain | None]) -> bytes:
    def change(tx: Transaction) -> bytes:
        known = node_store.find(tx.connection, node)
        if known is None:
            raise not_found("node", f"nodes/{node}")
        node_store.set_drain(tx, node, make(tx, known))
        after = node_store.find(tx.connection, node)
        if after is None:
            raise AssertionError("a row that was just written is gone")
        heard = nodes.heard.get(node)
        return node_to_proto(after, heard.raw if heard is not None else ()).SerializeToString()

    def write(tx: Transaction) -> bytes:
        return call.once(
            tx,
            lambda: change(tx),
        )

    answer = await nodes.ledger.write(write)
    nodes.poke()
    return answer
