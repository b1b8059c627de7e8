"""Verbs for many jobs: the same as for each of them, some hundred a transaction, so that nobody waits for thousands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from services.grpckit.errors import FieldViolation, ServiceError, invalid_fields
from services.scheduler import verbs
from services.scheduler.jobs import HELD, TERMINAL, WAITING, JobState
from services.scheduler.ledger import Ledger
from services.scheduler.lifecycle import removing
from services.scheduler.lifecycle.filters import JobFilter
from services.scheduler.store import job_filters
from services.scheduler.store.transaction import Transaction
from services.scheduler.verbs import Call
from services.scheduler.wire.changed_jobs import Changed, Problem, changed_bytes
from tuneforge.names import JobName

AT_ONCE = 100
"""Jobs changed in one transaction: some tens of milliseconds."""
MATCHED_MAX = 1_000_000
NAMES_MAX = 1000
PROBLEMS_MAX = 100

_CANCELLABLE = (WAITING | HELD) - {JobState.CANCELLING}
_CHANGES: Mapping[str, Callable[[Transaction, JobName, str, str], bytes]] = {
    "cancel": verbs.cancel_in,
    "pause": verbs.pause_in,
    "resume": lambda tx, name, _, actor: verbs.resume_in(tx, name, actor),
    "delete": lambda tx, name, _, __: removing.delete_in(tx, name),
}
STATES: Mapping[str, frozenset[JobState]] = {
    "cancel": _CANCELLABLE,
    "pause": frozenset({JobState.QUEUED, JobState.STARTING, JobState.RUNNING}),
    "resume": frozenset({JobState.PAUSED}),
    "delete": TERMINAL,
}
"""From which states a verb changes something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A verb for many jobs."""

    verb: str
    """One of `STATES`."""
    project: str
    wanted: JobFilter
    is_all: bool = False
    """Whether a filter that leaves out nothing is meant."""
    validate_only: bool = False
    reason: str = ""


@dataclass(slots=True, kw_only=True)
class _Tally:
    matched: int
    changed: int = 0
    names: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, name: JobName, problem: ServiceError | None) -> None:
        """Counts a job."""
        if problem is None:
            self.changed += 1
            if len(self.names) < NAMES_MAX:
                self.names.append(str(name))
        elif len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(name=str(name), reason=str(problem.reason), message=problem.message))

    def answer(self) -> bytes:
        """Returns what is answered, serialised."""
        return changed_bytes(
            Changed(matched=self.matched, changed=self.changed, names=tuple(self.names), problems=tuple(self.problems))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulk:
    """Changes many jobs."""

    ledger: Ledger
    on_removed: Callable[[], None]
    """Called when jobs were removed."""

    async def change(self, ask: Ask, call: Call) -> bytes:
        """Makes a change to all jobs that are meant; returns counts and problems, serialised.

        Raises:
            ServiceError: as `CancelJobs` documents.
        """
        verbs.check_reason(ask.reason)
        if ask.wanted.is_empty and not ask.is_all:
            problem = "leaves out no job: set a part of it, or `all` when every job of the project is meant"
            raise invalid_fields([FieldViolation("filter", problem)])
        if (answer := await verbs.answered(self.ledger, call)) is not None:
            return answer
        found = await self.ledger.read(lambda db: _meant(db, ask))
        tally = _Tally(matched=len(found))
        if ask.validate_only:
            for each in found:
                tally.add(*each)
            return tally.answer()
        for start in range(0, len(found), AT_ONCE):
            part = [name for name, _ in found[start : start + AT_ONCE]]
            for changed, failed in await self.ledger.write(lambda tx, part=part: _change(tx, part, ask, call)):  # type: ignore[misc]
                tally.add(changed, failed)
        if ask.verb == "delete":
            self.on_removed()
        return await self._remembered(tally.answer(), call)

    async def _remembered(self, answer: bytes, call: Call) -> bytes:
        return await self.ledger.write(lambda tx: call.once(tx, lambda: answer))


def _meant(connection: Connection, ask: Ask) -> list[tuple[JobName, ServiceError | None]]:
    """Returns the jobs that are meant, oldest first, each with why the verb changes nothing of it; None: it does."""
    wanted = ask.wanted if ask.wanted.states else replace(ask.wanted, states=STATES[ask.verb])
    found = job_filters.numbers(connection, ask.project, wanted, MATCHED_MAX)
    # A pause is also for those that a budget has paused, and that would go on by themselves.
    waiting = set(job_filters.going_on(connection, ask.project, ask.wanted)) if ask.verb == "pause" else set()
    meant = []
    for row in sorted({*found, *waiting}):
        name, state = JobName(ask.project, row[1]), row[2]
        is_fit = state in STATES[ask.verb] or row in waiting
        meant.append((name, None if is_fit else _unfit(name, state, ask.verb)))
    return meant


def _change(tx: Transaction, names: list[JobName], ask: Ask, call: Call) -> list[tuple[JobName, ServiceError | None]]:
    """Changes some jobs in one transaction; one that cannot be changed does not keep the others from it."""
    done: list[tuple[JobName, ServiceError | None]] = []
    for name in names:
        try:
            _CHANGES[ask.verb](tx, name, ask.reason, call.actor)
        except ServiceError as error:
            done.append((name, error))
        else:
            done.append((name, None))
    return done


def _unfit(name: JobName, state: JobState, verb: str) -> ServiceError:
    return ServiceError("WRONG_STATE", f"{name} is {state}, where {verb} changes nothing")
