"""Who may call what: tokens to principals, roles to permissions, one policy row for each RPC, denied by default.

A service writes `{"GetModel": Policy("models.read", "name"), ...}` for every method of its descriptor; `serve` refuses
to start when one is missing, or when the field that names the project does not exist. A permission is `<what>.<verb>`;
the verb decides which roles have it:

    verb       roles                              examples
    read       viewer, editor, evaluator,         Get*, List*, Watch*, Download*, Generate
               admin, service
    report     editor, evaluator, admin, service  RecordEvaluation, CreateValidationReport
    write      editor, admin, service             Create*, Cancel*, Upload*, Delete*, StartAttempt
    admin      admin                              Set*Policy, Unrevoke*, forced moves: for everybody
    internal   service                            RegisterNode, Heartbeat, PublishVersion

What an editor reports is kept; whether a gate counts it is the gate's to say (`services/registry/reporters.py`).
"""

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeGuard

from services.grpckit.context import ALL_PROJECTS, Principal, is_actor
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.folder_lock import StartRefused
from services.grpckit.logging import get_logger
from tuneforge.names import is_digest, is_id

_log = get_logger(__name__)

ROLES_BY_VERB: Mapping[str, frozenset[str]] = {
    "read": frozenset({"viewer", "editor", "evaluator", "admin", "service"}),
    "report": frozenset({"editor", "evaluator", "admin", "service"}),
    "write": frozenset({"editor", "admin", "service"}),
    "admin": frozenset({"admin"}),
    "internal": frozenset({"service"}),
}
"""Verb of a permission → roles that have it."""

ALL_ROLES = frozenset({"viewer", "editor", "evaluator", "admin", "service"})
"""Every role."""

LOCAL = Principal(name="local", roles=ALL_ROLES, projects=frozenset({ALL_PROJECTS}), is_service=True)
"""Everyone who reaches a service on loopback that has no tokens configured."""

_RELOAD_EVERY_S = 2.0  # a revoked token works this much longer at most; a stat() per call would cost more than the call


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may call one method, and how the server treats it.

    Raises:
        ValueError: The permission is not `<what>.<verb>` with a verb of `ROLES_BY_VERB`.
    """

    permission: str
    """`<what>.<verb>`, such as `models.read`."""
    project_from: str | None = None
    """Field of the request whose resource name begins with the project (`parent`, `name`, `deployment.model`). None for
    methods without a project, and for client-streaming ones, which call `context.require_project` themselves."""
    deadline_s: float | None = None
    """Most seconds that a unary call may take; None takes the server's own limit (30 s). Streams have none."""
    while_draining: bool = False
    """Answer new calls while the service drains too: for what the work that is being ended still needs."""
    is_quiet: bool = False
    """Log finished calls at debug only: for what is called several times a second."""

    def __post_init__(self) -> None:
        what, _, verb = self.permission.partition(".")
        if not what or verb not in ROLES_BY_VERB:
            raise ValueError(f"the permission {self.permission!r} is not <what>.<{'|'.join(ROLES_BY_VERB)}>")

    @property
    def roles(self) -> frozenset[str]:
        """Roles that have the permission."""
        return ROLES_BY_VERB[self.permission.partition(".")[2]]


def authorize(principal: Principal, policy: Policy) -> None:
    """Refuses a call that the principal's roles do not allow.

    Raises:
        ServiceError: PERMISSION_DENIED, naming the permission and the roles that have it.
    """
    if not principal.roles & policy.roles:
        raise ServiceError(
            Reason.PERMISSION_DENIED,
            f"{principal.name} lacks the permission {policy.permission}; "
            f"one of these roles has it: {', '.join(sorted(policy.roles))}",
            metadata={"principal": principal.name, "permission": policy.permission},
        )


class Authenticator(Protocol):
    """Turns the `authorization` metadata of a call into a principal."""

    def authenticate(self, authorization: str | None) -> Principal:
        """Returns who calls.

        Raises:
            ServiceError: UNAUTHENTICATED.
        """
        ...


class LocalAuthenticator:
    """For a loopback service without tokens: everyone is `local`."""

    def authenticate(self, authorization: str | None) -> Principal:  # noqa: ARG002 - the protocol's argument
        """Returns `LOCAL`."""
        return LOCAL


class TokenAuthenticator:
    """Knows principals by the SHA-256 of their tokens, from a file that is read again when it changes.

    The file is a JSON list of `{"token_sha256", "principal", "roles", "projects", "is_service"}`; it holds no token. A
    change that does not parse is reported by `problem` and leaves the last good content in force.
    """

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            StartRefused: It cannot be read or is malformed.
        """
        self._path = path
        self._lock = threading.Lock()
        self._stamp = self._file_stamp()
        self._principals = read_tokens(path)
        self._next_look = time.monotonic() + _RELOAD_EVERY_S
        self.problem = ""
        """Why the newest content of the file is not in force; empty when it is."""

    def authenticate(self, authorization: str | None) -> Principal:
        """Returns the principal of a `Bearer` token.

        Raises:
            ServiceError: UNAUTHENTICATED; the text never repeats the token.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if not token or scheme.lower() != "bearer":
            raise ServiceError(Reason.UNAUTHENTICATED, "the call has no 'authorization: Bearer ...' metadata")
        self._reload_if_changed()
        # Looking up by digest needs no constant-time comparison: a guess cannot steer its own SHA-256.
        principal = self._principals.get(hashlib.sha256(token.strip().encode()).hexdigest())
        if principal is None:
            raise ServiceError(Reason.UNAUTHENTICATED, "the token is not one that this service knows")
        return principal

    def _file_stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _reload_if_changed(self) -> None:
        if time.monotonic() < self._next_look:
            return
        with self._lock:
            self._next_look = time.monotonic() + _RELOAD_EVERY_S
            stamp = self._file_stamp()
            if stamp == self._stamp:
                return
            try:
                self._principals = read_tokens(self._path)
                self.problem = ""
                _log.info("the changed tokens file is in force", principals=len(self._principals))
            except StartRefused as error:
                self.problem = str(error)
                _log.error("the changed tokens file cannot be used, the last good one stays", problem=self.problem)
            self._stamp = stamp


def read_tokens(path: Path) -> dict[str, Principal]:
    """Returns digest of the token → principal.

    Raises:
        StartRefused: The file cannot be read or is malformed; the text names the entry and what is wrong with it.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartRefused(f"the tokens file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise StartRefused(f"the tokens file {path} is not JSON: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise StartRefused(f"the tokens file {path} is not a list with at least one entry")
    principals: dict[str, Principal] = {}
    for number, entry in enumerate(entries, 1):
        problem = _entry_problem(entry)
        if not problem and entry["token_sha256"] in principals:
            problem = "its token_sha256 comes twice"
        if problem:
            raise StartRefused(f"the tokens file {path}, entry {number}: {problem}")
        principals[entry["token_sha256"]] = Principal(
            name=entry["principal"],
            roles=frozenset(entry["roles"]),
            projects=frozenset(entry["projects"]),
            is_service=entry.get("is_service", False),
        )
    return principals


def _entry_problem(entry: object) -> str:
    if not isinstance(entry, dict):
        return "it is not an object"
    unknown = sorted(set(entry) - {"token_sha256", "principal", "roles", "projects", "is_service"})
    if unknown:
        return f"unknown key {unknown[0]!r}"
    digest, name, roles, projects = (entry.get(key) for key in ("token_sha256", "principal", "roles", "projects"))
    if not isinstance(digest, str) or not is_digest(digest):
        return "token_sha256 is not 64 lower-case hexadecimal digits"
    if not isinstance(name, str) or not is_actor(name):
        return "principal is not a name of 1 to 256 printable ASCII characters"
    if not _is_list_of_text(roles) or not roles or not ALL_ROLES.issuperset(roles):
        return f"roles is not a list of some of {', '.join(sorted(ALL_ROLES))}"
    if not _is_list_of_text(projects) or not all(each == ALL_PROJECTS or is_id(each) for each in projects):
        return f"projects is not a list of project ids, or [{ALL_PROJECTS!r}] for all"
    if not isinstance(entry.get("is_service", False), bool):
        return "is_service is not true or false"
    return ""


def _is_list_of_text(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
