"""Checks of one job's rows against each other. Pure.

attempt.numbers   attempts are numbered 1, 2, ... up to the job's newest, each with all of its parts
attempt.one       only the newest attempt may be alive, and just while its job waits for it
token.grows       tokens grow strictly from attempt to attempt, and the job has that of the newest
result.pending    a result waits to be registered just while its job is PUBLISHING, under the job's token
result.kept       a job that succeeded says what it made, one that failed says why
time.end          a job has an end just when it has ended
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from services.scheduler.doctor.finding import Finding
from services.scheduler.jobs import HELD, LIVE_ATTEMPT, TERMINAL, AttemptState, JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A row of `attempts`."""

    attempt: int
    node_rank: int
    nodes: int
    node: str
    token: int
    state: AttemptState

    @property
    def is_live(self) -> bool:
        """Whether it may still compute."""
        return self.state in LIVE_ATTEMPT


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A job's row and all that belongs to it."""

    job: str
    state: JobState
    attempt: int
    token: int
    parts: Sequence[Part]
    """By attempt and rank."""
    pending_tokens: Sequence[int]
    """Tokens of its rows in the outbox."""
    has_result: bool
    has_failure: bool
    has_end: bool


def check(rows: Rows) -> Iterator[Finding]:
    """Yields what is wrong with a job's rows."""
    yield from _attempts(rows)
    yield from _tokens(rows)
    yield from _result(rows)


def _finding(rows: Rows, rule: str, problem: str) -> Finding:
    return Finding(rule=rule, subject=rows.job, problem=problem)


def _attempts(rows: Rows) -> Iterator[Finding]:
    found = [(part.attempt, part.node_rank) for part in rows.parts]
    sizes = {part.attempt: part.nodes for part in rows.parts}
    wanted = [(n, rank) for n in range(1, rows.attempt + 1) for rank in range(sizes.get(n, 1))]
    if found != wanted:
        yield _finding(rows, "attempt.numbers", f"it has the parts {found}, its newest attempt is {rows.attempt}")
    live = sorted({part.attempt for part in rows.parts if part.is_live})
    if rows.state in HELD:
        if live != [rows.attempt]:
            yield _finding(rows, "attempt.one", f"in {rows.state} attempt {rows.attempt} should be alive, {live} are")
    elif live:
        yield _finding(rows, "attempt.one", f"in {rows.state} no attempt may be alive, {live} are")


def _tokens(rows: Rows) -> Iterator[Finding]:
    tokens = [part.token for part in rows.parts if part.node_rank == 0]
    if any(later <= earlier for earlier, later in pairwise(tokens)):
        yield _finding(rows, "token.grows", f"its attempts have the tokens {tokens}")
    if tokens and rows.token != tokens[-1]:
        yield _finding(rows, "token.grows", f"it has token {rows.token}, its newest attempt {tokens[-1]}")


def _result(rows: Rows) -> Iterator[Finding]:
    wanted = [rows.token] if rows.state is JobState.PUBLISHING else []
    if list(rows.pending_tokens) != wanted:
        problem = f"in {rows.state} with token {rows.token} the outbox has the tokens {list(rows.pending_tokens)}"
        yield _finding(rows, "result.pending", problem)
    if rows.has_result != (rows.state is JobState.SUCCEEDED):
        problem = f"it is {rows.state} and has {'a' if rows.has_result else 'no'} result"
        yield _finding(rows, "result.kept", problem)
    if rows.has_failure != (rows.state is JobState.FAILED):
        problem = f"it is {rows.state} and has {'a' if rows.has_failure else 'no'} failure"
        yield _finding(rows, "result.kept", problem)
    if rows.has_end != (rows.state in TERMINAL):
        problem = f"it is {rows.state} and has {'a' if rows.has_end else 'no'} time of its end"
        yield _finding(rows, "time.end", problem)
