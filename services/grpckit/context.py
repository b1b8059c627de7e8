"""Who calls, under which request id and until when: known in every function below a handler, without being passed on.

A task that a handler starts inherits the handler's context, its deadline included. What outlives the call (a loop, an
outbox) runs under `background` instead.
"""

import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from services.grpckit.errors import Reason, ServiceError

REQUEST_ID_HEADER = "x-request-id"
"""Metadata with the id under which all services log one call; made by the first that finds none."""

ON_BEHALF_OF_HEADER = "x-tuneforge-on-behalf-of"
"""Metadata with the end user for whom a service calls another; taken from service principals only."""

ALL_PROJECTS = "*"
"""In `Principal.projects`: every project."""

_ACTOR = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,255}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who was recognised, by a token or by coming over loopback."""

    name: str
    """Stable name, for logs and for the scope of request ids."""
    roles: frozenset[str]
    """Roles, see `services/grpckit/auth.py`."""
    projects: frozenset[str]
    """Ids of the projects that it may touch; `ALL_PROJECTS` among them means all."""
    is_service: bool = False
    """Whether it may speak for an end user."""

    def may_touch(self, project: str) -> bool:
        """Returns whether the project is one of its own."""
        return project in self.projects or ALL_PROJECTS in self.projects


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """One call, as the handler and everything below it sees it."""

    principal: Principal
    """Who is connected."""
    actor: str
    """Who wants it: the end user for whom a service calls, else the principal's name."""
    request_id: str
    """Id of the call in all logs of all services."""
    deadline_monotonic: float | None
    """`time.monotonic()` at which the caller stops waiting; None where it waits for ever."""
    method: str = ""
    """Full method, `/tuneforge.v1.RegistryService/GetModel`; the loop's name under `background`."""

    def remaining_s(self) -> float | None:
        """Returns the seconds until the deadline, negative when it is over; None without one."""
        return None if self.deadline_monotonic is None else self.deadline_monotonic - time.monotonic()


def is_actor(text: str) -> bool:
    """Returns whether a text may name a principal or an end user: 1 to 256 printable ASCII characters.

    It travels in metadata, which takes nothing else.
    """
    return _ACTOR.fullmatch(text) is not None


_current: ContextVar[CallContext] = ContextVar("tuneforge_call")


def current() -> CallContext:
    """Returns the context of the call that runs here.

    Raises:
        RuntimeError: No call runs here; a loop of the service's own goes under `background`.
    """
    context = _current.get(None)
    if context is None:
        raise RuntimeError("there is no call here: wrap work of the service's own in context.background()")
    return context


def current_or_none() -> CallContext | None:
    """Returns the context of the call that runs here, None outside of any."""
    return _current.get(None)


def enter(context: CallContext) -> None:
    """Sets the context for the rest of the running task; called by the interceptor, each call having its own task.

    It is never reset: a stream's generator may be closed by another task, in which a reset would fail.
    """
    _current.set(context)


@contextmanager
def background(name: str, *, request_id: str = "", actor: str = "") -> Iterator[CallContext]:
    """Runs work of the service's own: no caller, no deadline, every project.

    Args:
        name: Name of the work, for logs and as the principal: `scheduler.loop`.
        request_id: Id of the call that once asked for the work; empty makes a new one.
        actor: End user for whom it is done; empty where there is none.
    """
    principal = Principal(name=name, roles=frozenset({"service"}), projects=frozenset({ALL_PROJECTS}), is_service=True)
    context = CallContext(
        principal=principal,
        actor=actor or name,
        request_id=request_id or new_request_id(),
        deadline_monotonic=None,
        method=name,
    )
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)


def require_project(project: str) -> None:
    """Refuses the running call unless its principal may touch a project.

    For client-streaming methods, whose first message the interceptor cannot see; a policy checks all others.

    Args:
        project: Id of the project.

    Raises:
        ServiceError: PERMISSION_DENIED. The same answer whether or not the project exists.
    """
    check_project(current().principal, project)


def check_project(principal: Principal, project: str) -> None:
    """Refuses unless a principal may touch a project.

    Raises:
        ServiceError: PERMISSION_DENIED.
    """
    if not principal.may_touch(project):
        raise ServiceError(
            Reason.PERMISSION_DENIED,
            f"{principal.name} may not use the project {project!r}",
            metadata={"principal": principal.name, "project": project},
        )


def new_request_id() -> str:
    """Returns a fresh request id."""
    return uuid.uuid4().hex


def accept_request_id(given: str | bytes | None) -> str:
    """Returns the caller's request id when it is fit for a log line, else a new one."""
    if isinstance(given, str) and _REQUEST_ID.fullmatch(given):
        return given
    return new_request_id()
