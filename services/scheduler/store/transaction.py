"""One write to the database and the events that it adds to jobs' logs.

Every store function that changes something takes a `Transaction`: it carries the connection, the database's clock, and
collects the chunks of events so that `Ledger` can wake the watchers once they are on disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from services.scheduler.watching.records import Chunk

DatabaseClock = Callable[[Connection], int]
"""Gives the time in milliseconds since 1970 by the one clock that leases are judged by."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """A running write transaction."""

    connection: Connection
    now_ms: int
    """The database's time at the beginning of the transaction."""
    chunks: list[Chunk] = field(default_factory=list)
    """Events that were added; they count once the transaction is committed."""
    turned: set[int] = field(default_factory=set)
    """Numbers of jobs that changed their state: the loop has to look again."""
    ended: dict[int, str] = field(default_factory=dict)
    """Names of jobs that came to their end, by number."""
    touched: set[int] = field(default_factory=set)
    """Numbers of jobs that show something new without an event."""
    change: list[int] = field(default_factory=list)
    """The number of this change in the order of all; empty until a job was changed."""


def database_clock(connection: Connection) -> int:
    """Returns the database's own time in milliseconds since 1970."""
    if connection.dialect.name == "sqlite":
        return time.time_ns() // 1_000_000  # what SQLite would answer: it has no clock but this machine's
    return int(connection.execute(_NOW_MS).scalar_one())


_NOW_MS = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)")
