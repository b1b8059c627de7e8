"""The rows of aliases and of the log of their moves; see `collections.py` for the manners of such functions."""

import hashlib
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, literal, select, tuple_, update

from services.grpckit.errors import Reason, ServiceError, not_found
from services.grpckit.pages import Page
from services.registry.aliases.resources import UNGATED, Alias, AliasChange, AliasMove, MoveKind, Verdict
from services.registry.collections import get_collection
from services.registry.lineage.revocations import require_usable
from services.registry.lineage.store import replace_edges
from services.registry.lineage.things import Role
from services.registry.models.store import get_model_version
from services.registry.tables import ALIAS_CHANGES, ALIAS_CLOCKS, ALIASES
from tuneforge.names import AliasName, ModelName

ABSENT = "absent"
"""The etag that an alias which does not exist has."""

# Built once: to build a query costs more than to run it.
_ALIAS = select(ALIASES).where(
    ALIASES.c.project == bindparam("of_project"),
    ALIASES.c.model == bindparam("of_model"),
    ALIASES.c.alias == bindparam("of_alias"),
)
# The lock is for databases with several writers; where there is one, it is left out of the statement.
_LOCKED_ALIAS = _ALIAS.with_for_update()

Clock = Callable[[], int]
"""Returns the time in microseconds since 1970; asked inside the transaction of a move."""


def etag_of(alias: Alias | None) -> str:
    """Returns the etag: another one after each move, and without a meaning that a caller could count with."""
    if alias is None or not alias.version:
        return ABSENT
    return hashlib.sha256(f"{alias.name} {alias.sequence}".encode()).hexdigest()[:16]


def get_alias(connection: Connection, name: AliasName) -> Alias:
    """Returns an alias.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    alias = find_alias(connection, name)
    if alias is None or not alias.version:
        raise not_found("alias", name)
    return alias


def find_alias(connection: Connection, name: AliasName, *, lock: bool = False) -> Alias | None:
    """Returns an alias, also a deleted one; None when there never was one."""
    values = {"of_project": name.project, "of_model": name.model, "of_alias": name.alias}
    row = connection.execute(_LOCKED_ALIAS if lock else _ALIAS, values).one_or_none()
    return None if row is None else alias_of(row)


def list_aliases(connection: Connection, scope: ModelName | str, page: Page) -> list[Alias]:
    """Returns a page's aliases by model and id, and one more when there are more.

    Args:
        connection: To read with.
        scope: A model, or a project's id for all of its models.
        page: Which.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such model.
    """
    table = ALIASES.c
    project = scope.project if isinstance(scope, ModelName) else scope
    wanted = [table.project == project, table.version.is_not(None)]
    if isinstance(scope, ModelName):
        get_collection(connection, scope)
        wanted.append(table.model == scope.model)
    model, _, alias = (page.after or "").partition("/")
    after = tuple_(table.model, table.alias) > tuple_(literal(model), literal(alias))
    order = select(ALIASES).where(*wanted, after).order_by(table.model, table.alias)
    return [alias_of(row) for row in connection.execute(order.limit(page.size + 1))]


def check_etag(move: AliasMove, current: Alias | None) -> None:
    """Refuses a move when the alias is not the one that the mover read.

    Raises:
        ServiceError: `ETAG_MISMATCH`.
    """
    if move.etag and move.etag != etag_of(current):
        state = f"is at version {current.version} now" if current and current.version else "does not exist"
        raise ServiceError(
            Reason.ETAG_MISMATCH,
            f"{move.name} {state}, and its etag is not {move.etag[:64]!r}",
            metadata={"name": str(move.name), "etag": etag_of(current)},
        )


def move_alias(connection: Connection, move: AliasMove, clock: Clock, verdict: Verdict = UNGATED) -> Alias:
    """Points an alias to a version, or deletes it, and logs the move; what points there already is left as it is.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such version, or nothing to delete. `ETAG_MISMATCH`: somebody else moved
            it. `REVOKED`: the version was made from revoked data.
    """
    current = find_alias(connection, move.name, lock=True)
    if move.version:
        get_model_version(connection, move.name.parent.version(move.version))
    elif current is None or not current.version:
        raise not_found("alias", move.name)
    check_etag(move, current)
    if current is not None and current.version == move.version:
        return current
    if move.version:
        require_usable(connection, str(move.name.parent.version(move.version)))
    position, time_us = _tick(connection, move.name.project, clock)
    sequence = current.sequence + 1 if current else 1
    key = {"project": move.name.project, "model": move.name.model, "alias": move.name.alias}
    head = {
        "version": move.version or None,
        "sequence": sequence,
        "position": position,
        "update_time_us": time_us,
    }
    if current is None:
        connection.execute(insert(ALIASES).values(**key, **head))
    else:
        connection.execute(update(ALIASES).where(*is_alias(ALIASES, move.name)).values(**head))
    connection.execute(
        insert(ALIAS_CHANGES).values(
            **key,
            sequence=sequence,
            position=position,
            kind=move.kind.value,
            from_version=current.version if current else 0,
            to_version=move.version,
            restored_sequence=move.restored_sequence,
            actor=move.actor,
            reason=move.reason,
            time_us=time_us,
            is_forced=verdict.is_forced,
            gates=verdict.report,
        )
    )
    parents = [(str(move.name.parent.version(move.version)), Role.ALIAS)] if move.version else []
    replace_edges(connection, str(move.name), parents)
    return Alias(name=move.name, version=move.version, sequence=sequence, update_time_us=time_us)


def _tick(connection: Connection, project: str, clock: Clock) -> tuple[int, int]:
    """Returns number and time of the next move of a project; both are larger than those of every move before."""
    table = ALIAS_CLOCKS
    row = connection.execute(select(table).where(table.c.project == project).with_for_update()).one_or_none()
    if row is None:
        position, time_us = 1, clock()
        connection.execute(insert(table).values(project=project, position=position, time_us=time_us))
    else:
        position, time_us = row.position + 1, max(clock(), row.time_us + 1)
        moved = {"position": position, "time_us": time_us}
        connection.execute(update(table).where(table.c.project == project).values(**moved))
    return position, time_us


def is_alias(table: Any, name: AliasName) -> list[Any]:
    """Returns the conditions by which rows of a table belong to an alias."""
    return [table.c.project == name.project, table.c.model == name.model, table.c.alias == name.alias]


def alias_of(row: Row[Any]) -> Alias:
    """Converts a row of `ALIASES`."""
    return Alias(
        name=AliasName(row.project, row.model, row.alias),
        version=row.version or 0,
        sequence=row.sequence,
        update_time_us=row.update_time_us,
    )


def change_of(row: Row[Any]) -> AliasChange:
    """Converts a row of `ALIAS_CHANGES`."""
    return AliasChange(
        name=AliasName(row.project, row.model, row.alias),
        sequence=row.sequence,
        position=row.position,
        kind=MoveKind(row.kind),
        from_version=row.from_version,
        to_version=row.to_version,
        restored_sequence=row.restored_sequence,
        actor=row.actor,
        reason=row.reason,
        time_us=row.time_us,
        verdict=Verdict(is_forced=row.is_forced, report=bytes(row.gates)),
    )
