"""Who reported scores and checks: what tells a report that a gate counts from the claim of anybody who may write.

The reporter is the caller, never what a request says. Roles are kept as they were when the report was made: whoever
loses a role later has reported with it all the same, and whoever gains one reports again.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, Table, or_

from services.grpckit.auth import ALL_ROLES
from services.grpckit.context import CallContext, is_actor
from services.grpckit.errors import FieldViolation

ROLE = "role:"
"""Prefix of a role among names of principals."""
EVALUATOR = "evaluator"
SERVICE = "service"
TRUSTED = (f"{ROLE}admin", f"{ROLE}{EVALUATOR}", f"{ROLE}{SERVICE}")
"""Who counts when a gate does not say: an editor, who moves aliases, does not vouch for what is moved."""
MOST_REPORTERS = 20


def roles_of_reporter(call: CallContext) -> tuple[str, ...]:
    """Returns the roles with which a call reports, in order.

    A service that speaks for a user lends the user nothing of its own; who has the role evaluator vouches for what it
    passes on.
    """
    roles = call.principal.roles
    return tuple(sorted(roles if call.actor == call.principal.name else roles & {EVALUATOR}))


def kept(roles: Sequence[str]) -> str:
    """Returns roles as they are stored: each between spaces, so that one is found as a part of the text."""
    return f" {' '.join(roles)} " if roles else ""


def is_by(table: Table, by: Sequence[str]) -> ColumnElement[bool]:
    """Returns the condition that a row with `creator` and `roles` is by one who counts.

    Args:
        table: Of reports.
        by: Principals, and roles as `role:evaluator`; empty: `TRUSTED`.
    """
    entries = by or TRUSTED
    roles = [entry.removeprefix(ROLE) for entry in entries if entry.startswith(ROLE)]
    names = [entry for entry in entries if not entry.startswith(ROLE)]
    return or_(table.c.creator.in_(names), *(table.c.roles.contains(kept([role])) for role in roles))


def words(by: Sequence[str]) -> str:
    """Returns who counts as a sentence names it: `admin, evaluator or service`."""
    names = [entry.removeprefix(ROLE) for entry in by or TRUSTED]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def reporter_violations(place: str, by: Sequence[str]) -> Iterator[FieldViolation]:
    """Yields what is wrong with a list of who counts."""
    if len(by) > MOST_REPORTERS:
        yield FieldViolation(place, f"has {len(by)} entries; at most {MOST_REPORTERS} are taken")
        return
    for number, entry in enumerate(by):
        if entry in by[:number]:
            yield FieldViolation(f"{place}[{number}]", f"is {entry[:80]!r} a second time")
        elif entry.startswith(ROLE) and entry.removeprefix(ROLE) not in ALL_ROLES:
            known = ", ".join(ROLE + role for role in sorted(ALL_ROLES))
            yield FieldViolation(f"{place}[{number}]", f"is {entry[:80]!r}; the roles are {known}")
        elif not is_actor(entry):
            yield FieldViolation(f"{place}[{number}]", f"is {entry[:80]!r}, which is no name of a principal")
