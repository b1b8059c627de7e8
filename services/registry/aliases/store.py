"""The rows of aliases and of the log of their moves; see `collections.py` for the manners of such functions."""

import hashlib
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from services.grpckit.errors import Reason, ServiceError, not_found
from services.grpckit.pages import Page
from services.registry.aliases.resources import Alias, AliasChange, AliasMove
from services.registry.collections import get_collection
from services.registry.models.store import get_model_version
from services.registry.tables import ALIAS_CHANGES, ALIASES
from tuneforge.names import AliasName, ModelName

ABSENT = "absent"
"""The etag that an alias which does not exist has."""


def etag_of(alias: Alias | None) -> str:
    """Returns the etag: another one after each move, and without a meaning that a caller could count with."""
    if alias is None:
        return ABSENT
    return hashlib.sha256(f"{alias.name} {alias.sequence}".encode()).hexdigest()[:16]


def get_alias(connection: Connection, name: AliasName) -> Alias:
    """Returns an alias.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    alias = _find(connection, name)
    if alias is None:
        raise not_found("alias", name)
    return alias


def list_aliases(connection: Connection, model: ModelName, page: Page) -> list[Alias]:
    """Returns a page's aliases by id, and one more when there are more.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such model.
    """
    get_collection(connection, model)
    rows = connection.execute(
        select(ALIASES)
        .where(ALIASES.c.project == model.project, ALIASES.c.model == model.model, ALIASES.c.alias > (page.after or ""))
        .order_by(ALIASES.c.alias)
        .limit(page.size + 1)
    )
    return [_alias(row) for row in rows]


def set_alias(connection: Connection, move: AliasMove) -> Alias:
    """Points an alias to a version and logs the move; one that points there already is left as it is.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such version. `ETAG_MISMATCH`: somebody else moved it.
    """
    get_model_version(connection, move.name.parent.version(move.version))
    current = _find(connection, move.name, lock=True)
    if move.etag and move.etag != etag_of(current):
        state = f"is at version {current.version} now" if current else "does not exist"
        raise ServiceError(
            Reason.ETAG_MISMATCH,
            f"{move.name} {state}, and its etag is not {move.etag[:64]!r}",
            metadata={"name": str(move.name), "etag": etag_of(current)},
        )
    if current is not None and current.version == move.version:
        return current
    alias = Alias(
        name=move.name,
        version=move.version,
        sequence=current.sequence + 1 if current else 1,
        update_time_us=move.time_us,
    )
    key = {"project": move.name.project, "model": move.name.model, "alias": move.name.alias}
    values = {"version": alias.version, "sequence": alias.sequence, "update_time_us": alias.update_time_us}
    if current is None:
        connection.execute(insert(ALIASES).values(**key, **values))
    else:
        connection.execute(update(ALIASES).where(*_is(move.name)).values(**values))
    connection.execute(
        insert(ALIAS_CHANGES).values(
            **key,
            sequence=alias.sequence,
            from_version=current.version if current else 0,
            to_version=alias.version,
            actor=move.actor,
            reason=move.reason,
            time_us=move.time_us,
        )
    )
    return alias


def list_alias_changes(connection: Connection, name: AliasName, page: Page) -> list[AliasChange]:
    """Returns a page's moves, newest first, and one more when there are more.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such alias.
    """
    before = page.after_number(get_alias(connection, name).sequence + 1)
    log = ALIAS_CHANGES.c
    rows = connection.execute(
        select(ALIAS_CHANGES)
        .where(log.project == name.project, log.model == name.model, log.alias == name.alias, log.sequence < before)
        .order_by(log.sequence.desc())
        .limit(page.size + 1)
    )
    return [
        AliasChange(
            sequence=row.sequence,
            from_version=row.from_version,
            to_version=row.to_version,
            actor=row.actor,
            reason=row.reason,
            time_us=row.time_us,
        )
        for row in rows
    ]


def _find(connection: Connection, name: AliasName, *, lock: bool = False) -> Alias | None:
    statement = select(ALIASES).where(*_is(name))
    # The lock is for databases with several writers; where there is one, it is left out of the statement.
    row = connection.execute(statement.with_for_update() if lock else statement).one_or_none()
    return None if row is None else _alias(row)


def _is(name: AliasName) -> list[Any]:
    return [ALIASES.c.project == name.project, ALIASES.c.model == name.model, ALIASES.c.alias == name.alias]


def _alias(row: Row[Any]) -> Alias:
    return Alias(
        name=AliasName(row.project, row.model, row.alias),
        version=row.version,
        sequence=row.sequence,
        update_time_us=row.update_time_us,
    )
