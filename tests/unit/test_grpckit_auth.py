"""Tokens, roles and policies: denied unless allowed."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from services.grpckit import auth
from services.grpckit.auth import LOCAL, Policy, TokenAuthenticator, authorize, read_tokens
from services.grpckit.context import Principal, check_project
from services.grpckit.errors import ServiceError
from services.grpckit.folder_lock import StartRefused


def _sha(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _entry(token: str = "t0ken", **changes: Any) -> dict[str, Any]:
    return {"token_sha256": _sha(token), "principal": "alice", "roles": ["editor"], "projects": ["p"], **changes}


def _write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("role", "verbs"),
    [
        ("viewer", {"read"}),
        ("editor", {"read", "report", "write"}),
        ("evaluator", {"read", "report"}),
        ("admin", {"read", "report", "write", "admin"}),
        ("service", {"read", "report", "write", "internal"}),
    ],
)
def test_a_role_has_its_verbs_and_no_more(role: str, verbs: set[str]) -> None:
    """Each role may do exactly what the table says."""
    principal = Principal(name="x", roles=frozenset({role}), projects=frozenset())
    for verb in auth.ROLES_BY_VERB:
        if verb in verbs:
            authorize(principal, Policy(f"models.{verb}"))
        else:
            with pytest.raises(ServiceError, match=f"models.{verb}") as caught:
                authorize(principal, Policy(f"models.{verb}"))
            assert caught.value.reason == "PERMISSION_DENIED"


def test_local_may_do_everything() -> None:
    """Whoever comes over an unconfigured loopback has every role and project."""
    for verb in auth.ROLES_BY_VERB:
        authorize(LOCAL, Policy(f"x.{verb}"))
    check_project(LOCAL, "any")


@pytest.mark.parametrize("permission", ["models", "models.", ".read", "models.get", "models.read.all", ""])
def test_a_permission_without_a_known_verb_is_refused(permission: str) -> None:
    """A typing error in a policy is found when the module is imported."""
    with pytest.raises(ValueError, match="permission"):
        Policy(permission)


def test_a_token_is_its_principal(tmp_path: Path) -> None:
    """The principal comes with name, roles, projects, and whether it may speak for others."""
    path = _write(
        tmp_path / "tokens", [_entry(), _entry("other", principal="sched", roles=["service"], is_service=True)]
    )
    tokens = TokenAuthenticator(path)
    alice = tokens.authenticate("Bearer t0ken")
    assert (alice.name, alice.roles, alice.is_service) == ("alice", frozenset({"editor"}), False)
    assert tokens.authenticate("bearer other").is_service
    check_project(alice, "p")
    with pytest.raises(ServiceError, match="'q'"):
        check_project(alice, "q")


@pytest.mark.parametrize(
    "given", [None, "", "t0ken", "Basic t0ken", "Bearer", "Bearer ", "Bearer wrong", "Bearer T0KEN"]
)
def test_anything_else_is_unauthenticated(tmp_path: Path, given: str | None) -> None:
    """No token, another scheme or an unknown token is refused, without repeating it."""
    tokens = TokenAuthenticator(_write(tmp_path / "tokens", [_entry()]))
    with pytest.raises(ServiceError) as caught:
        tokens.authenticate(given)
    assert caught.value.reason == "UNAUTHENTICATED"
    assert "t0ken" not in str(caught.value)
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not JSON"),
        ({}, "not a list"),
        ([], "at least one"),
        (["x"], "entry 1: it is not an object"),
        ([_entry(), _entry(principal="")], "entry 2: principal"),
        ([_entry(), _entry()], "entry 2: its token_sha256 comes twice"),
        ([_entry(token_sha256="t0ken")], "token_sha256"),
        ([_entry(roles=[])], "roles"),
        ([_entry(roles=["root"])], "roles"),
        ([_entry(roles="editor")], "roles"),
        ([_entry(roles=[["editor"]])], "roles"),
        ([_entry(projects=["P!"])], "projects"),
        ([_entry(is_service="yes")], "is_service"),
        ([_entry() | {"token": "t0ken"}], "unknown key 'token'"),
    ],
)
def test_a_malformed_file_is_refused_with_its_entry(tmp_path: Path, content: object, problem: str) -> None:
    """The start tells which entry is wrong and how, and no secret."""
    with pytest.raises(StartRefused, match=problem):
        read_tokens(_write(tmp_path / "tokens", content))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A tokens file that is not there does not mean that everyone may call."""
    with pytest.raises(StartRefused, match="cannot be read"):
        TokenAuthenticator(tmp_path / "none")


def test_a_changed_file_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A revoked token stops working without a restart; a broken file leaves the last good one in force."""
    monkeypatch.setattr(auth, "_RELOAD_EVERY_S", 0.0)
    path = _write(tmp_path / "tokens", [_entry("one")])
    tokens = TokenAuthenticator(path)
    tokens.authenticate("Bearer one")
    _replace(path, [_entry("second")])
    tokens.authenticate("Bearer second")
    with pytest.raises(ServiceError):
        tokens.authenticate("Bearer one")
    _replace(path, "{ broken")
    tokens.authenticate("Bearer second")
    assert "not JSON" in tokens.problem


def _replace(path: Path, content: object) -> None:
    """Writes a new file and moves it over the old one, as deployments do; a new inode is a change at any clock."""
    fresh = _write(path.with_suffix(f".{time.monotonic_ns()}"), content)
    fresh.replace(path)
