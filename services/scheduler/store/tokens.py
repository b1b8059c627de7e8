"""Fencing tokens: each attempt has one that is larger than those of all attempts before it, of whatever job."""

from __future__ import annotations

from sqlalchemy import bindparam, insert, update

from services.scheduler.store.tables import counters
from services.scheduler.store.transaction import Transaction

_FENCE = "fence"
_NEXT = (
    update(counters)
    .where(counters.c.name == _FENCE)
    .values(value=counters.c.value + bindparam("of_count"))
    .returning(counters.c.value)
)


def next_tokens(tx: Transaction, count: int) -> range:
    """Returns so many fencing tokens, each larger than every one before, over all jobs."""
    grown = tx.connection.execute(_NEXT, {"of_count": count}).scalar_one_or_none()
    if grown is None:
        tx.connection.execute(insert(counters).values(name=_FENCE, value=count))
        grown = count
    return range(int(grown) - count + 1, int(grown) + 1)
