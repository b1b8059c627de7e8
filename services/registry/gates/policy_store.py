"""The rows of gate policies and of their revisions; see `collections.py` for the manners of such functions."""

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from services.grpckit.errors import Reason, ServiceError, not_found
from services.grpckit.pages import Page
from services.registry.collections import get_collection
from services.registry.tables import GATE_POLICIES, GATE_POLICY_CHANGES, GATE_POLICY_DATASETS
from tuneforge.names import ModelName, PolicyName

ABSENT = "absent"
"""The etag that a policy which does not exist has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    """One revision of a policy."""

    name: PolicyName
    revision: int
    record: bytes
    """A serialised `GatePolicy`."""
    is_deletion: bool
    actor: str
    reason: str
    time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWish:
    """What a policy shall be from now on."""

    name: PolicyName
    etag: str
    alias_pattern: str = ""
    record: bytes = b""
    datasets: frozenset[str] = frozenset()
    """Data set versions that its gates name."""
    is_deletion: bool = False
    actor: str
    reason: str
    time_us: int


def policy_etag(row: PolicyRow | None) -> str:
    """Returns the etag of a revision."""
    if row is None or row.is_deletion:
        return ABSENT
    return hashlib.sha256(f"{row.name} {row.revision}".encode()).hexdigest()[:16]


def change_policy(connection: Connection, wish: PolicyWish) -> PolicyRow:
    """Adds a revision; one that changes nothing is not added.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such model, or nothing to delete. `ETAG_MISMATCH`: somebody else changed
            it.
    """
    name = wish.name
    get_collection(connection, name.parent)
    current = _newest(connection, name)
    if wish.is_deletion and (current is None or current.is_deletion):
        raise not_found("gate policy", name)
    if wish.etag and wish.etag != policy_etag(current):
        raise ServiceError(
            Reason.ETAG_MISMATCH,
            f"{name} was changed: its etag is {policy_etag(current)}, not {wish.etag[:64]!r}",
            metadata={"name": str(name), "etag": policy_etag(current)},
        )
    if current and not current.is_deletion and not wish.is_deletion and current.record == wish.record:
        return current
    row = PolicyRow(
        name=name,
        revision=current.revision + 1 if current else 1,
        record=current.record if current and wish.is_deletion else wish.record,
        is_deletion=wish.is_deletion,
        actor=wish.actor,
        reason=wish.reason,
        time_us=max(wish.time_us, current.time_us + 1) if current else wish.time_us,
    )
    key = {"project": name.project, "model": name.model, "policy": name.policy}
    head = {"revision": row.revision, "is_deletion": row.is_deletion}
    if current is None:
        connection.execute(insert(GATE_POLICIES).values(**key, **head, alias_pattern=wish.alias_pattern))
    else:
        pattern = {} if wish.is_deletion else {"alias_pattern": wish.alias_pattern}
        connection.execute(update(GATE_POLICIES).where(*_is_policy(GATE_POLICIES, name)).values(**head, **pattern))
    log = {"record": row.record, "actor": row.actor, "reason": row.reason, "time_us": row.time_us}
    connection.execute(insert(GATE_POLICY_CHANGES).values(**key, **head, **log))
    connection.execute(delete(GATE_POLICY_DATASETS).where(*_is_policy(GATE_POLICY_DATASETS, name)))
    if wish.datasets:
        connection.execute(insert(GATE_POLICY_DATASETS), [{**key, "dataset": each} for each in sorted(wish.datasets)])
    return row


def get_policy(connection: Connection, name: PolicyName, revision: int = 0) -> PolicyRow:
    """Returns a revision of a policy; 0: the present one.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    if not revision:
        row = _newest(connection, name)
        if row is None or row.is_deletion:
            raise not_found("gate policy", name)
        return row
    table = GATE_POLICY_CHANGES
    found = connection.execute(
        select(table).where(*_is_policy(table, name), table.c.revision == revision)
    ).one_or_none()
    if found is None:
        raise not_found(f"revision {revision} of the gate policy", name)
    return _policy(found)


def list_policies(connection: Connection, model: ModelName, page: Page) -> list[PolicyRow]:
    """Returns a page's policies by id, and one more when there are more.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such model.
    """
    get_collection(connection, model)
    statement = _present(model).where(GATE_POLICIES.c.policy > (page.after or "")).limit(page.size + 1)
    return [_policy(row) for row in connection.execute(statement)]


def list_policy_changes(connection: Connection, name: PolicyName, page: Page) -> list[PolicyRow]:
    """Returns a page's revisions, newest first, and one more when there are more; also of a deleted policy.

    Raises:
        ServiceError: `NOT_FOUND`: there never was such a policy.
    """
    newest = _newest(connection, name)
    if newest is None:
        raise not_found("gate policy", name)
    table = GATE_POLICY_CHANGES
    rows = connection.execute(
        select(table)
        .where(*_is_policy(table, name), table.c.revision < page.after_number(newest.revision + 1))
        .order_by(table.c.revision.desc())
        .limit(page.size + 1)
    )
    return [_policy(row) for row in rows]


def policies_of(connection: Connection, model: ModelName) -> list[tuple[str, PolicyRow]]:
    """Returns the alias pattern and the present revision of all policies of a model, by id."""
    return [(row.alias_pattern, _policy(row)) for row in connection.execute(_present(model))]


def _present(model: ModelName) -> Any:
    head, log = GATE_POLICIES, GATE_POLICY_CHANGES
    joined = head.join(
        log,
        (log.c.project == head.c.project)
        & (log.c.model == head.c.model)
        & (log.c.policy == head.c.policy)
        & (log.c.revision == head.c.revision),
    )
    return (
        select(log, head.c.alias_pattern)
        .select_from(joined)
        .where(head.c.project == model.project, head.c.model == model.model, head.c.is_deletion.is_(False))
        .order_by(head.c.policy)
    )


def _newest(connection: Connection, name: PolicyName) -> PolicyRow | None:
    table = GATE_POLICY_CHANGES
    row = connection.execute(
        select(table).where(*_is_policy(table, name)).order_by(table.c.revision.desc()).limit(1)
    ).one_or_none()
    return None if row is None else _policy(row)


def _is_policy(table: Any, name: PolicyName) -> list[Any]:
    return [table.c.project == name.project, table.c.model == name.model, table.c.policy == name.policy]


def _policy(row: Row[Any]) -> PolicyRow:
    return PolicyRow(
        name=PolicyName(row.project, row.model, row.policy),
        revision=row.revision,
        record=bytes(row.record),
        is_deletion=row.is_deletion,
        actor=row.actor,
        reason=row.reason,
        time_us=row.time_us,
    )
