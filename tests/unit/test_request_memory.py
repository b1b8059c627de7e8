"""Request ids: the first answer again, and a refusal for another body."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, MetaData, create_engine, func, select

from services.grpckit import request_memory
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.request_memory import KEPT_S, LONGEST_ID, RequestScope, recall, remember

SCOPE = RequestScope(principal="local", project="p", method="CreateJob")


@pytest.fixture
def connection() -> Iterator[Connection]:
    """Gives a connection to an empty database with the table."""
    engine = create_engine("sqlite://")
    metadata = MetaData()
    request_memory.table(metadata)
    metadata.create_all(engine)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


class _Work:
    """Counts how often it is done."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> bytes:
        self.times += 1
        return f"answer {self.times}".encode()


def test_the_same_call_twice_is_one_change(connection: Connection) -> None:
    """The second call gets the first answer and nothing is done again."""
    work = _Work()
    answers = [remember(connection, scope=SCOPE, request_id="r", request=b"body", make=work) for _ in range(3)]
    assert answers == [b"answer 1"] * 3
    assert work.times == 1


def test_another_body_is_refused(connection: Connection) -> None:
    """The same id with another body is a mistake of the caller, and is told as such."""
    work = _Work()
    remember(connection, scope=SCOPE, request_id="r", request=b"body", make=work)
    with pytest.raises(ServiceError, match="request id r ") as caught:
        remember(connection, scope=SCOPE, request_id="r", request=b"other", make=work)
    assert caught.value.reason == Reason.REQUEST_ID_REUSED
    assert work.times == 1


@pytest.mark.parametrize("field", ["principal", "project", "method"])
def test_scopes_do_not_meet(connection: Connection, field: str) -> None:
    """The same id of another principal, project or method is another request."""
    work = _Work()
    values = {"principal": "local", "project": "p", "method": "CreateJob"}
    remember(connection, scope=RequestScope(**values), request_id="r", request=b"body", make=work)
    other = RequestScope(**{**values, field: "other"})
    assert remember(connection, scope=other, request_id="r", request=b"body", make=work) == b"answer 2"


def test_no_id_means_no_memory(connection: Connection) -> None:
    """Without a request id each call is a new one."""
    work = _Work()
    for _ in range(2):
        remember(connection, scope=SCOPE, request_id="", request=b"body", make=work)
    assert work.times == 2


def test_a_failed_call_is_not_remembered(connection: Connection) -> None:
    """After a failure the same id may be tried again."""

    def fail() -> bytes:
        raise LookupError

    with pytest.raises(LookupError):
        remember(connection, scope=SCOPE, request_id="r", request=b"body", make=fail)
    assert remember(connection, scope=SCOPE, request_id="r", request=b"body", make=_Work()) == b"answer 1"


def test_memory_ends_after_a_day(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows older than 24 hours are deleted and their ids may be used anew."""
    work = _Work()
    remember(connection, scope=SCOPE, request_id="old", request=b"body", make=work)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + KEPT_S + 1)
    assert remember(connection, scope=SCOPE, request_id="old", request=b"other", make=work) == b"answer 2"
    table = request_memory.table(MetaData())
    assert connection.execute(select(func.count()).select_from(table)).scalar_one() == 1


def test_an_id_ends_at_one_moment(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repetition while its second ends is a repetition; one whose deletion was undone is a new call, and no fault."""
    work = _Work()
    began_s = 10**9
    monkeypatch.setattr(time, "time", lambda: began_s)
    remember(connection, scope=SCOPE, request_id="old", request=b"body", make=work)
    moments = iter([began_s + KEPT_S - 1, began_s + KEPT_S])
    monkeypatch.setattr(time, "time", lambda: next(moments))
    assert remember(connection, scope=SCOPE, request_id="old", request=b"body", make=work) == b"answer 1"
    monkeypatch.setattr(time, "time", lambda: began_s + KEPT_S)
    undone = connection.begin_nested()
    remember(connection, scope=SCOPE, request_id="other", request=b"body", make=work)
    undone.rollback()
    assert recall(connection, scope=SCOPE, request_id="old", request=b"body") is None
    assert remember(connection, scope=SCOPE, request_id="old", request=b"body", make=work) == b"answer 3"


def test_an_id_that_is_too_long_is_refused(connection: Connection) -> None:
    """The limit protects the table; the violation names the field."""
    with pytest.raises(ServiceError) as caught:
        remember(connection, scope=SCOPE, request_id="x" * (LONGEST_ID + 1), request=b"", make=_Work())
    assert [violation.field for violation in caught.value.fields] == ["request_id"]
