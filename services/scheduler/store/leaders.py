"""Where the scheduler that leads is called: the name of the session that holds the lock, which goes with it."""

from __future__ import annotations

from sqlalchemy import Connection, text

_PREFIX = "scheduler "
_LONGEST = 63
"""PostgreSQL cuts a session's name after so many bytes."""


def announce(connection: Connection, address: str) -> None:
    """Names the writer's session after the address of the process; one that is too long is left out."""
    name = f"{_PREFIX}{address}" if len(_PREFIX + address) <= _LONGEST else _PREFIX
    connection.execute(text("SELECT set_config('application_name', :name, false)"), {"name": name})


def leader(connection: Connection) -> str:
    """Returns the address of whoever leads; empty when it has not said it, or nobody leads."""
    name = connection.execute(
        text(
            "SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE locktype = 'advisory' "
            "AND granted AND datname = current_database() AND starts_with(application_name, :prefix) LIMIT 1"
        ),
        {"prefix": _PREFIX},
    ).scalar_one_or_none()
    return (name or "").removeprefix(_PREFIX)
