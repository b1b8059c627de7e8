"""The rows of approvals, a log that is only added to; see `collections.py` for the manners of such functions."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from services.grpckit.errors import not_found
from services.grpckit.pages import Page
from services.registry.aliases.store import is_alias
from services.registry.models.store import get_model_version
from services.registry.tables import APPROVALS
from tuneforge.names import AliasName


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRow:
    """That somebody agrees, or does not agree any more."""

    alias: AliasName
    sequence: int = 0
    version: int
    actor: str
    is_revoked: bool
    reason: str
    time_us: int


def add_approval(connection: Connection, wish: ApprovalRow) -> ApprovalRow:
    """Logs an approval or its end; one that changes nothing is not logged.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such version, or nothing to take back.
    """
    get_model_version(connection, wish.alias.parent.version(wish.version))
    table = APPROVALS
    mine = [table.c.version == wish.version, table.c.actor == wish.actor]
    row = connection.execute(
        select(table).where(*is_alias(table, wish.alias), *mine).order_by(table.c.sequence.desc()).limit(1)
    ).one_or_none()
    if row is None and wish.is_revoked:
        raise not_found(f"approval by {wish.actor} of version {wish.version} for the alias", wish.alias)
    if row is not None and row.is_revoked == wish.is_revoked:
        return _approval(row)
    last = connection.execute(select(func.max(table.c.sequence)).where(*is_alias(table, wish.alias))).scalar()
    values = {
        "project": wish.alias.project,
        "model": wish.alias.model,
        "alias": wish.alias.alias,
        "sequence": (last or 0) + 1,
        "version": wish.version,
        "actor": wish.actor,
        "is_revoked": wish.is_revoked,
        "comment": wish.reason,
        "time_us": wish.time_us,
    }
    connection.execute(insert(table).values(**values))
    return wish


def list_approvals(connection: Connection, alias: AliasName, version: int, page: Page) -> list[ApprovalRow]:
    """Returns a page's entries of the log, newest first, and one more when there are more.

    Args:
        connection: To read with.
        alias: The alias; it need not exist.
        version: Only of this version; 0: of all.
        page: Which page.
    """
    table = APPROVALS
    statement = select(table).where(*is_alias(table, alias), table.c.sequence < page.after_number(2**62))
    if version:
        statement = statement.where(table.c.version == version)
    rows = connection.execute(statement.order_by(table.c.sequence.desc()).limit(page.size + 1))
    return [_approval(row) for row in rows]


def approvers(connection: Connection, alias: AliasName, version: int) -> frozenset[str]:
    """Returns who agrees with a version behind an alias now."""
    table = APPROVALS
    rows = connection.execute(
        select(table.c.actor, table.c.is_revoked)
        .where(*is_alias(table, alias), table.c.version == version)
        .order_by(table.c.sequence)
    )
    newest = {row.actor: row.is_revoked for row in rows}
    return frozenset(actor for actor, is_revoked in newest.items() if not is_revoked)


def _approval(row: Row[Any]) -> ApprovalRow:
    return ApprovalRow(
        alias=AliasName(row.project, row.model, row.alias),
        sequence=row.sequence,
        version=row.version,
        actor=row.actor,
        is_revoked=row.is_revoked,
        reason=row.comment,
        time_us=row.time_us,
    )
