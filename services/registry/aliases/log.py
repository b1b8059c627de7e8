"""Questions to the log of moves: what was named when, what comes after a position, where a rollback leads."""

from sqlalchemy import Connection, select

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields, not_found
from services.grpckit.pages import Page
from services.registry.aliases.resources import Alias, AliasChange
from services.registry.aliases.store import alias_of, change_of, find_alias, is_alias
from services.registry.tables import ALIAS_CHANGES, ALIAS_CLOCKS, ALIASES
from tuneforge.names import AliasName, ModelName

Scope = ModelName | str
"""A model, or the id of a project."""


def list_changes(connection: Connection, name: AliasName, page: Page) -> list[AliasChange]:
    """Returns a page's moves, newest first, and one more when there are more; also of a deleted alias.

    Raises:
        ServiceError: `NOT_FOUND`: there never was such an alias.
    """
    alias = find_alias(connection, name)
    if alias is None:
        raise not_found("alias", name)
    rows = connection.execute(
        select(ALIAS_CHANGES)
        .where(*is_alias(ALIAS_CHANGES, name), ALIAS_CHANGES.c.sequence < page.after_number(alias.sequence + 1))
        .order_by(ALIAS_CHANGES.c.sequence.desc())
        .limit(page.size + 1)
    )
    return [change_of(row) for row in rows]


def as_of(connection: Connection, name: AliasName, time_us: int) -> AliasChange | None:
    """Returns the newest move up to a moment; None when there was none yet."""
    row = connection.execute(
        select(ALIAS_CHANGES)
        .where(*is_alias(ALIAS_CHANGES, name), ALIAS_CHANGES.c.time_us <= time_us)
        .order_by(ALIAS_CHANGES.c.time_us.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else change_of(row)


def latest(connection: Connection, project: str) -> tuple[int, int]:
    """Returns number and time of the newest move of a project; zeros when there is none."""
    row = connection.execute(select(ALIAS_CLOCKS).where(ALIAS_CLOCKS.c.project == project)).one_or_none()
    return (0, 0) if row is None else (row.position, row.time_us)


def changes_after(connection: Connection, scope: Scope, position: int, most: int) -> list[AliasChange]:
    """Returns the moves behind a position, in order."""
    table = ALIAS_CHANGES.c
    statement = select(ALIAS_CHANGES).where(table.project == project_of(scope), table.position > position)
    if isinstance(scope, ModelName):
        statement = statement.where(table.model == scope.model)
    return [change_of(row) for row in connection.execute(statement.order_by(table.position).limit(most))]


def aliases_at(
    connection: Connection, scope: Scope, position: int, after: tuple[str, str], most: int
) -> tuple[list[Alias], tuple[str, str] | None]:
    """Returns a part of the aliases as they were right after a move.

    Args:
        connection: To read with.
        scope: Whose aliases.
        position: Number of the move.
        after: Model and alias that the part before ended with; empty ids at first.
        most: Rows to look at.

    Returns:
        The aliases that existed then, and what to give as `after` for the next part; None at the end.
    """
    table = ALIASES.c
    is_behind = (table.model > after[0]) | ((table.model == after[0]) & (table.alias > after[1]))
    statement = select(ALIASES).where(table.project == project_of(scope), is_behind)
    if isinstance(scope, ModelName):
        statement = statement.where(table.model == scope.model)
    rows = connection.execute(statement.order_by(table.model, table.alias).limit(most)).all()
    aliases = []
    for row in rows:
        alias = alias_of(row) if row.position <= position else _at(connection, alias_of(row).name, position)
        if alias is not None and alias.version:
            aliases.append(alias)
    return aliases, (rows[-1].model, rows[-1].alias) if len(rows) == most else None


def _at(connection: Connection, name: AliasName, position: int) -> Alias | None:
    row = connection.execute(
        select(ALIAS_CHANGES)
        .where(*is_alias(ALIAS_CHANGES, name), ALIAS_CHANGES.c.position <= position)
        .order_by(ALIAS_CHANGES.c.sequence.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    return Alias(name=name, version=row.to_version, sequence=row.sequence, update_time_us=row.time_us)


def project_of(scope: Scope) -> str:
    """Returns the id of the project of a scope."""
    return scope.project if isinstance(scope, ModelName) else scope


def rollback_target(connection: Connection, name: AliasName, sequence: int) -> AliasChange:
    """Returns the move whose version a rollback brings back.

    Args:
        connection: To read with.
        name: The alias.
        sequence: The move that was asked for; 0: the one before the present one, where a rollback stands for the move
            that it brought back, so that several rollbacks go on backwards and never to and fro.

    Raises:
        ServiceError: `NOT_FOUND`: there never was such an alias. `INVALID_FIELD`: it has no such move. `WRONG_STATE`:
            it named nothing then.
    """
    alias = find_alias(connection, name)
    if alias is None:
        raise not_found("alias", name)
    if not 0 <= sequence <= alias.sequence:
        problem = f"is {sequence}; {name} has the moves 1 to {alias.sequence}, and 0 is the one before the present one"
        raise invalid_fields([FieldViolation("sequence", problem)])
    if not sequence:
        sequence = _effective(_move(connection, name, alias.sequence)) - 1
    target = _move(connection, name, sequence) if sequence else None
    if target is not None and target.restored_sequence:
        target = _move(connection, name, target.restored_sequence)
    if target is None or not target.to_version:
        when = "before its first move" if target is None else f"after move {target.sequence}, a deletion"
        raise ServiceError(
            Reason.WRONG_STATE,
            f"{name} named nothing {when}; name the move to go back to, or delete the alias",
            metadata={"name": str(name), "sequence": str(sequence)},
        )
    return target


def _move(connection: Connection, name: AliasName, sequence: int) -> AliasChange:
    row = connection.execute(
        select(ALIAS_CHANGES).where(*is_alias(ALIAS_CHANGES, name), ALIAS_CHANGES.c.sequence == sequence)
    ).one()
    return change_of(row)


def _effective(change: AliasChange) -> int:
    return change.restored_sequence or change.sequence
