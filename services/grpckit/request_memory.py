"""Remembers what was answered to a request id, so that a repeated call changes nothing.

The memory is a table in each service's own database and is written in the transaction of the change itself: either
both are on disk or neither. Calls that failed are not remembered; their repetition is a new call.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
)

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields

TABLE_NAME = "remembered_requests"
KEPT_S = 24 * 3600
LONGEST_ID = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestScope:
    """Whose request ids are told apart from whose."""

    principal: str
    """Who wants it: the end user for whom a service calls, else the caller itself. Two users of one backend that chose
    the same id must not be given each other's answers."""
    project: str
    """Project id, or `-` for calls outside projects."""
    method: str
    """Name of the RPC, e.g. `CreateJob`."""


def columns() -> list[Column[Any] | Index]:
    """Returns the table's columns and index, for `op.create_table` in a service's migration."""
    return [
        Column("principal", String(256), primary_key=True),
        Column("project", String(64), primary_key=True),
        Column("method", String(64), primary_key=True),
        Column("request_id", String(LONGEST_ID), primary_key=True),
        Column("body_sha256", LargeBinary(32), nullable=False),
        Column("answer", LargeBinary, nullable=False),
        Column("expires_at_s", BigInteger, nullable=False),
        Index("remembered_requests_by_expiry", "expires_at_s"),
    ]


def table(metadata: MetaData) -> Table:
    """Adds the table to a service's metadata."""
    return Table(TABLE_NAME, metadata, *columns())


# A description of its own: the statements below need the columns only, not the service's other tables.
_REQUESTS = table(MetaData())

# Made once: every verb of every service runs all three, and making them costs more than running them.
_FORGET = delete(_REQUESTS).where(_REQUESTS.c.expires_at_s <= bindparam("now_s"))
_FIND = select(_REQUESTS.c.body_sha256, _REQUESTS.c.answer).where(
    *(_REQUESTS.c[name] == bindparam(name) for name in ("principal", "project", "method", "request_id")),
    _REQUESTS.c.expires_at_s > bindparam("now_s"),
)
_KEEP = insert(_REQUESTS)


def remember(
    connection: Connection,
    *,
    scope: RequestScope,
    request_id: str,
    request: bytes,
    make: Callable[[], bytes],
) -> bytes:
    """Returns the answer that was given before to this request id, else makes it and keeps it for 24 hours.

    Args:
        connection: The write transaction of the change.
        scope: Principal, project and method.
        request_id: As sent; empty: nothing is remembered.
        request: The request, serialised deterministically, without `request_id` or with it.
        make: Makes the change and returns the serialised answer.

    Raises:
        ServiceError: `REQUEST_ID_REUSED` when the id came with another body, `INVALID_FIELD` when it is too long.
    """
    if not request_id:
        return make()
    _check(request_id)
    now_s = int(time.time())
    _forget_old(connection, now_s)
    found = _find(connection, scope, request_id, request)
    if found is None:
        answer = make()
        key = _key(scope, request_id) | {"body_sha256": hashlib.sha256(request).digest()}
        connection.execute(_KEEP, key | {"answer": answer, "expires_at_s": now_s + KEPT_S})
        return answer
    return found


def recall(connection: Connection, *, scope: RequestScope, request_id: str, request: bytes) -> bytes | None:
    """Returns the answer that was given before to a request id, None for a new one; reads only.

    Before work that is not done in the transaction: `remember` decides in it all the same.

    Raises:
        ServiceError: As `remember`.
    """
    if not request_id:
        return None
    _check(request_id)
    return _find(connection, scope, request_id, request)


def _forget_old(connection: Connection, now_s: int) -> None:
    """Deletes what is kept no longer; once a second is enough, for that is how finely times are kept."""
    if _forgotten.get(connection.engine) != now_s:
        connection.execute(_FORGET, {"now_s": now_s})
        _forgotten[connection.engine] = now_s


_forgotten: WeakKeyDictionary[Engine, int] = WeakKeyDictionary()
"""When that was done last, in seconds, by database."""


def _check(request_id: str) -> None:
    if len(request_id) > LONGEST_ID:
        problem = f"has {len(request_id)} characters; give a UUID, at most {LONGEST_ID} are taken"
        raise invalid_fields([FieldViolation("request_id", problem)])


def _key(scope: RequestScope, request_id: str) -> dict[str, str]:
    return {"principal": scope.principal, "project": scope.project, "method": scope.method, "request_id": request_id}


def _find(connection: Connection, scope: RequestScope, request_id: str, request: bytes) -> bytes | None:
    found = connection.execute(_FIND, _key(scope, request_id) | {"now_s": int(time.time())}).one_or_none()
    if found is None:
        return None
    if found.body_sha256 != hashlib.sha256(request).digest():
        raise ServiceError(
            Reason.REQUEST_ID_REUSED,
            f"request id {request_id} came earlier with another body; send a new request id",
            metadata={"request_id": request_id},
        )
    return bytes(found.answer)
