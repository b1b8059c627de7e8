"""Logs: one JSON object a line on stderr, with the running call's request id in each.

    from services.grpckit.logging import get_logger

    _log = get_logger(__name__)
    _log.info("version published", version=str(name), size_bytes=size)

The first argument is a fixed sentence; what varies goes in keywords. Text from libraries that use the standard
`logging` comes out in the same form. Nothing secret is logged: values under the names of secrets are struck out here as
well, as a second net.
"""

import contextlib
import json
import logging
import sys
import threading
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any, TextIO

import structlog

from services.grpckit.context import current_or_none

_SECRET_NAMES = ("authorization", "token", "secret", "password", "api_key", "tls_key")
_PUBLIC_NAMES = frozenset({"page_token", "resume_token"})
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Event = MutableMapping[str, Any]


def configure(service: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Sets up all logging of this process.

    Args:
        service: Name of the service, put in every line.
        level: `debug`, `info`, `warning` or `error`.
        stream: Where the lines go; None is stderr.
    """

    def add_service(_: Any, __: str, event: Event) -> Event:
        event["service"] = service
        return event

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            add_service,
            _add_call,
            _strike_out,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_serialise),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _Writer(stream),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Forwarder()]
    root.setLevel(max(_LEVELS[level], logging.WARNING))  # libraries at info are talkative


def get_logger(name: str) -> Any:
    """Returns a logger that puts its name in every line.

    Args:
        name: `__name__` of the module.
    """
    return structlog.get_logger(source=name)


def _add_call(_: Any, __: str, event: Event) -> Event:
    call = current_or_none()
    if call is not None:
        event.setdefault("request_id", call.request_id)
        event.setdefault("actor", call.actor)
        event.setdefault("method", call.method)
    return event


def _strike_out(_: Any, __: str, event: Event) -> Event:
    for key in event:
        if _is_secret(key):
            event[key] = "[struck out]"
    return event


@lru_cache(maxsize=1024)  # every call of a server is a line of the same few names
def _is_secret(key: str) -> bool:
    return key not in _PUBLIC_NAMES and any(secret in key.lower() for secret in _SECRET_NAMES)


def _serialise(event: Event, **_: Any) -> str:
    return json.dumps(event, default=str, ensure_ascii=False)


class _Writer:
    """Writes finished lines; a log that cannot be written must not fail the call that it tells about."""

    _lock = threading.Lock()

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        # Looked up at each line: a test, or a program around us, may replace the stream.
        stream = self._stream or sys.stderr
        with self._lock, contextlib.suppress(OSError, ValueError):  # a closed terminal, a closed file
            stream.write(line + "\n")
            stream.flush()

    debug = info = warning = error = critical = msg


class _Forwarder(logging.Handler):
    """Hands records of the standard `logging` to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            log = structlog.get_logger(source=record.name)
            log.log(record.levelno, record.getMessage(), exc_info=record.exc_info)
        except Exception:  # noqa: BLE001 - a log line must never end what it tells about
            self.handleError(record)
