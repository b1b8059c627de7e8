"""Logs: JSON lines with the call's id and without secrets."""

import io
import json
import logging as standard
from collections.abc import Iterator
from typing import Any

import pytest

from services.grpckit import context
from services.grpckit.logging import configure, get_logger


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """A stream that takes the log; the root logger is as before afterwards."""
    root = standard.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    configure("registry", "info", stream)
    yield stream
    stream.close()
    root.handlers[:], root.level = before
    configure("test", "error")
    root.handlers[:] = before[0]


def _parsed(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_service_and_call(lines: io.StringIO) -> None:
    """Each line tells when, which service, which call and for whom."""
    with context.background("registry.sweep", request_id="r-1", actor="alice"):
        get_logger("here").info("it happened", count=3)
    (line,) = _parsed(lines)
    assert line["event"] == "it happened"
    assert line["count"] == 3
    expected = {"service": "registry", "level": "info", "request_id": "r-1", "actor": "alice", "source": "here"}
    assert expected.items() <= line.items()
    assert line["time"].endswith("Z")


def test_secrets_are_struck_out(lines: io.StringIO) -> None:
    """A value under a secret's name never reaches the log; page tokens are no secrets."""
    get_logger("here").info("x", token="s3cret", Authorization="s3cret", manager_token="s3cret", page_token="ok")
    assert "s3cret" not in lines.getvalue()
    assert _parsed(lines)[0]["page_token"] == "ok"


def test_libraries_come_out_in_the_same_form(lines: io.StringIO) -> None:
    """The standard `logging` is forwarded from warnings on, tracebacks included."""
    log = standard.getLogger("some.library")
    log.info("talk")
    try:
        raise ValueError("x")
    except ValueError:
        log.exception("it broke: %s", 7)
    (line,) = _parsed(lines)
    assert (line["event"], line["level"], line["source"]) == ("it broke: 7", "error", "some.library")
    assert "ValueError: x" in line["exception"]


def test_the_level_filters(lines: io.StringIO) -> None:
    """Debug lines are left out at info."""
    get_logger("here").debug("quiet")
    assert lines.getvalue() == ""


def test_values_of_any_type_can_be_logged(lines: io.StringIO) -> None:
    """What JSON does not know is written as text: a log line must not fail."""
    get_logger("here").info("x", value={1, 2}, path=io)
    assert len(_parsed(lines)) == 1


def test_a_log_that_cannot_be_written_fails_nobody(lines: io.StringIO) -> None:
    """With the stream closed, a log line is lost and the code that wrote it goes on."""
    lines.close()
    get_logger("here").error("nobody reads this")
    configure("registry", "info", io.StringIO())
