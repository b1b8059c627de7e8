"""Fencing tokens: each attempt has one that is larger than those of all attempts before it, of whatever job."""

from __future__ import annotations

from sqlalchemy import insert, update

from services.scheduler.store.tables import counters
from services.scheduler.store.transaction import Transaction

_FENCE = "fence"
_NEXT = update(counters).where(counters.c.name == _FENCE).values(value=counters.c.value + 1).returning(counters.c.value)


def next_token(tx: Transaction) -> int:
    """Returns a fencing token larger than every one before, over all jobs."""
    grown = tx.connection.execute(_NEXT).scalar_one_or_none()
    if grown is None:
        tx.connection.execute(insert(counters).values(name=_FENCE, value=1))
        return 1
    return int(grown)
