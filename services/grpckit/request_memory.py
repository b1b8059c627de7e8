"""Remembers what was answered to a request id, so that a repeated call changes nothing.

The memory is a table in each service's own database and is written in the transaction of the change itself: either
both are on disk or neither. Calls that failed are not remembered; their repetition is a new call.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
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
_OF = [_REQUESTS.c[name] == bindparam(name) for name in ("principal", "project", "method", "request_id")]
_FIND = select(_REQUESTS.c.body_sha256, _REQUESTS.c.answer, _REQUESTS.c.expires_at_s).where(*_OF)
_DROP = delete(_REQUESTS).where(*_OF)
_FIND_ANY = select(_REQUESTS.c.request_id).where(
    *_OF[:-1], _REQUESTS.c.request_id.in_(bindparam("request_ids", expanding=True))
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
    now_s, key = int(time.time()), _key(scope, request_id)  # one moment for all: a row ends between two looks
    _forget_old(connection, now_s)
    found = connection.execute(_FIND, key).one_or_none()
    if found is not None and found.expires_at_s > now_s:
        return _first_answer(found, request_id, request)
    if found is not None:  # it was forgotten in this second already, by a transaction that was undone
        connection.execute(_DROP, key)
    answer = make()
    connection.execute(_KEEP, _row(scope, request_id, request, answer, now_s))
    return answer


class NotNew(Exception):
    """One of several request ids came before, or came twice."""


def remember_all(
    connection: Connection,
    *,
    scope: RequestScope,
    requests: Sequence[tuple[str, bytes]],
    make: Callable[[], Sequence[bytes]],
) -> list[bytes]:
    """Does what `remember` does for several new requests of one scope at once.

    Args:
        connection: The write transaction of the changes.
        scope: Principal, project and method.
        requests: Id and serialised request of each.
        make: Makes all changes and returns the serialised answers.

    Raises:
        NotNew: nothing was made; `remember` says for each what became of it.
        ServiceError: `INVALID_FIELD` when an id is too long.
    """
    ids = [request_id for request_id, _ in requests if request_id]
    for request_id in ids:
        _check(request_id)
    now_s = int(time.time())
    _forget_old(connection, now_s)
    if len(set(ids)) < len(ids) or connection.execute(_FIND_ANY, _key(scope, "") | {"request_ids": ids}).first():
        raise NotNew
    answers = list(make())
    kept = [
        _row(scope, request_id, request, answer, now_s)
        for (request_id, request), answer in zip(requests, answers, strict=True)
        if request_id
    ]
    if kept:
        connection.execute(_KEEP, kept)
    return answers


def recall(connection: Connection, *, scope: RequestScope, request_id: str, request: bytes) -> bytes | None:
    """Returns the answer that was given before to a request id, None for a new one; reads only.

    Before work that is not done in the transaction: `remember` decides in it all the same.

    Raises:
        ServiceError: As `remember`.
    """
    if not request_id:
        return None
    _check(request_id)
    found = connection.execute(_FIND, _key(scope, request_id)).one_or_none()
    is_kept = found is not None and found.expires_at_s > int(time.time())
    return _first_answer(found, request_id, request) if is_kept else None


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


def _row(scope: RequestScope, request_id: str, request: bytes, answer: bytes, now_s: int) -> dict[str, object]:
    kept = {"body_sha256": hashlib.sha256(request).digest(), "answer": answer, "expires_at_s": now_s + KEPT_S}
    return _key(scope, request_id) | kept


def _first_answer(found: Any, request_id: str, request: bytes) -> bytes:
    if found.body_sha256 != hashlib.sha256(request).digest():
        raise ServiceError(
            Reason.REQUEST_ID_REUSED,
            f"request id {request_id} came earlier with another body; send a new request id",
            metadata={"request_id": request_id},
        )
    return bytes(found.answer)
