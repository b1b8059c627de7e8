"""How statements that are made once say which part of an attempt they are about."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam

from services.scheduler.records import Attempt
from services.scheduler.store.tables import attempts


def key_of(attempt: Attempt) -> dict[str, Any]:
    """Returns the parameters that say which part of an attempt a statement is about, by which token."""
    return {
        "of_job": attempt.job,
        "of_attempt": attempt.name.attempt,
        "of_rank": attempt.node_rank,
        "of_token": attempt.token,
    }


IS_PART = (
    attempts.c.job == bindparam("of_job"),
    attempts.c.attempt == bindparam("of_attempt"),
    attempts.c.node_rank == bindparam("of_rank"),
)
