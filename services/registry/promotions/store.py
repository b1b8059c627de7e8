"""The rows of promotions and of the log of their states; see `collections.py` for the manners of such functions."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from services.grpckit.pages import Page
from services.registry.lineage.store import replace_edges
from services.registry.lineage.things import Role
from services.registry.promotions.resources import Promotion, PromotionChange, PromotionState
from services.registry.tables import PROMOTION_CHANGES, PROMOTIONS
from tuneforge.names import ModelVersionName, PromotionName

MOST_CHANGES = 50
"""Newest changes that are told with a promotion."""


def find_promotion(connection: Connection, version: ModelVersionName) -> Promotion | None:
    """Returns the promotion of a version; None when it was never promoted."""
    row = connection.execute(select(PROMOTIONS).where(*_is(PROMOTIONS, version))).one_or_none()
    return None if row is None else _promotion(row)


def holder_of(connection: Connection, destination: str, but: ModelVersionName) -> Promotion | None:
    """Returns another version's promotion that has, or is about to have, a destination."""
    rows = connection.execute(select(PROMOTIONS).where(PROMOTIONS.c.destination == destination))
    held = (_promotion(row) for row in rows)
    return next((each for each in held if each.version != but and each.state.has_place), None)


def unfinished(connection: Connection) -> list[Promotion]:
    """Returns the promotions of all projects on which the registry has work to do."""
    states = [PromotionState.IN_PROGRESS.value, PromotionState.DELETING.value]
    rows = connection.execute(
        select(PROMOTIONS).where(PROMOTIONS.c.state.in_(states)).order_by(PROMOTIONS.c.update_time_us)
    )
    return [_promotion(row) for row in rows]


def list_promotions(
    connection: Connection, project: str, states: Sequence[PromotionState], page: Page
) -> list[Promotion]:
    """Returns a page's promotions by model and version, and one more when there are more."""
    table = PROMOTIONS.c
    statement = select(PROMOTIONS).where(table.project == project)
    if states:
        statement = statement.where(table.state.in_([state.value for state in states]))
    if page.after is not None:
        model, _, number = page.after.partition("/")
        after = int(number) if number.isdigit() else 0
        statement = statement.where((table.model > model) | ((table.model == model) & (table.version > after)))
    rows = connection.execute(statement.order_by(table.model, table.version).limit(page.size + 1))
    return [_promotion(row) for row in rows]


def list_changes(connection: Connection, version: ModelVersionName) -> list[PromotionChange]:
    """Returns the newest changes, newest first."""
    table = PROMOTION_CHANGES
    rows = connection.execute(
        select(table).where(*_is(table, version)).order_by(table.c.sequence.desc()).limit(MOST_CHANGES)
    )
    return [
        PromotionChange(
            sequence=row.sequence,
            state=PromotionState(row.state),
            actor=row.actor,
            reason=row.reason,
            message=row.message,
            time_us=row.time_us,
        )
        for row in rows
    ]


def change(connection: Connection, promotion: Promotion, *, reason: str = "") -> Promotion:
    """Writes a new state of a promotion and logs it.

    Args:
        connection: A write transaction.
        promotion: As it shall be, but for its number; `update_time_us` is now.
        reason: Why, in the words of who asked for it.

    Returns:
        It with its number, and a time behind that of the change before.
    """
    current = find_promotion(connection, promotion.version)
    time_us = promotion.update_time_us
    if current is not None:
        time_us = max(time_us, current.update_time_us + 1)
    changed = replace(
        promotion,
        sequence=current.sequence + 1 if current else 1,
        create_time_us=current.create_time_us if current else time_us,
        update_time_us=time_us,
    )
    key = {"project": changed.version.project, "model": changed.version.model, "version": changed.version.version}
    values = _values(changed)
    if current is None:
        connection.execute(insert(PROMOTIONS).values(**key, **values))
    else:
        connection.execute(update(PROMOTIONS).where(*_is(PROMOTIONS, changed.version)).values(**values))
    connection.execute(
        insert(PROMOTION_CHANGES).values(
            **key,
            sequence=changed.sequence,
            state=changed.state.value,
            path=changed.path,
            actor=changed.actor,
            reason=reason,
            message=changed.message,
            time_us=time_us,
        )
    )
    parents = [(str(changed.version), Role.PROMOTION)] if changed.state.has_place else []
    replace_edges(connection, str(name_of(changed.version)), parents)
    return changed


def name_of(version: ModelVersionName) -> PromotionName:
    """Returns the name of a version's promotion."""
    return PromotionName(version.project, version.model, version.version)


def _is(table: Any, version: ModelVersionName) -> list[Any]:
    return [
        table.c.project == version.project,
        table.c.model == version.model,
        table.c.version == version.version,
    ]


def _values(promotion: Promotion) -> dict[str, Any]:
    return {
        "path": promotion.path,
        "destination": promotion.destination,
        "state": promotion.state.value,
        "patterns": json.dumps(promotion.patterns),
        "num_files": promotion.num_files,
        "size_bytes": promotion.size_bytes,
        "digest": promotion.digest,
        "sequence": promotion.sequence,
        "message": promotion.message,
        "actor": promotion.actor,
        "create_time_us": promotion.create_time_us,
        "update_time_us": promotion.update_time_us,
    }


def _promotion(row: Row[Any]) -> Promotion:
    return Promotion(
        version=ModelVersionName(row.project, row.model, row.version),
        path=row.path,
        destination=row.destination,
        state=PromotionState(row.state),
        patterns=tuple(json.loads(row.patterns)),
        num_files=row.num_files,
        size_bytes=row.size_bytes,
        digest=row.digest,
        sequence=row.sequence,
        message=row.message,
        actor=row.actor,
        create_time_us=row.create_time_us,
        update_time_us=row.update_time_us,
    )
