"""What callers do to jobs: create, pause, resume, cancel, each in one transaction with the memory of its request id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from services.grpckit import context as calls
from services.grpckit.database import Rank
from services.grpckit.errors import FieldViolation, ServiceError, invalid_fields, not_found
from services.grpckit.holding import Holding
from services.grpckit.request_memory import RequestScope, recall, remember
from services.scheduler import branching
from services.scheduler.admission import Admission, Draft
from services.scheduler.jobs import HELD, WAITING, JobState, sources_of
from services.scheduler.ledger import Ledger
from services.scheduler.lifecycle.options import Options, Reuse
from services.scheduler.lifecycle.reuse import Reusing, Stale, standing_in
from services.scheduler.queues import spending
from services.scheduler.queues.budgets import Budget
from services.scheduler.queues.entering import require_room
from services.scheduler.queues.updating import budget_problems
from services.scheduler.records import Job, NewJob
from services.scheduler.store import jobs as job_store
from services.scheduler.store.transaction import Transaction
from services.scheduler.storing import Storing, store, taken
from services.scheduler.wire.estimates import unknown_bytes
from services.scheduler.wire.resources import job_bytes
from tuneforge.names import JobName

REASON_LENGTH_MAX = 1024
_NUL = "has a NUL character: leave it out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Who calls, and what makes a repetition of the call known."""

    actor: str
    project: str
    method: str
    request_id: str
    """Empty: a repetition is a new call."""
    body: bytes
    """The request, serialised deterministically."""

    @property
    def scope(self) -> RequestScope:
        """Whose request ids these are."""
        return RequestScope(principal=self.actor, project=self.project, method=self.method)

    def once(self, tx: Transaction, make: Callable[[], bytes]) -> bytes:
        """Makes a change in a transaction; the same request id again gets the first answer and changes nothing."""
        return remember(tx.connection, scope=self.scope, request_id=self.request_id, request=self.body, make=make)


def call_of(request: Any, project: str, method: str) -> Call:
    """Returns the call that a request is.

    Raises:
        ServiceError: INVALID_FIELD, when no database stores its request id.
    """
    if "\0" in request.request_id:
        raise invalid_fields([FieldViolation("request_id", _NUL)])
    return Call(
        actor=calls.current().actor,
        project=project,
        method=method,
        request_id=request.request_id,
        body=request.SerializeToString(deterministic=True),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verbs:
    """Changes jobs for callers. Answers are serialised `Job` messages, so that the first answer can be given again."""

    ledger: Ledger
    admission: Admission
    holding: Holding
    reusing: Reusing
    storing: Storing

    async def create(self, draft: Draft, call: Call) -> bytes:
        """Admits and stores a job.

        A repetition is known by the transaction that would store it. What cannot be admitted is looked for too: the
        first answer stands although the registry is away by now, or what it names is gone.

        Raises:
            ServiceError: as `CreateJob` documents.
        """
        try:
            return await self.keep(await self._admitted(draft), draft.options, call)
        except ServiceError:
            if (answer := await answered(self.ledger, call)) is not None:
                return answer
            raise

    async def keep(self, admitted: NewJob, options: Options, call: Call) -> bytes:
        """Stores an admitted job, or answers what stands for it when it may.

        Raises:
            ServiceError: as `CreateJob` documents.
        """
        while True:
            new, seen = await self.reusing.finished(admitted, options)
            try:
                return await self._keep(new, options, seen, call)
            except Stale:
                continue  # what trained the same has ended between the look and the write

    async def _keep(self, new: NewJob, options: Options, seen: frozenset[int], call: Call) -> bytes:
        def make(tx: Transaction) -> bytes:
            running = standing_in(tx.connection, new, options, seen)
            return store(tx, new)[0] if running is None else job_bytes(running)

        def write() -> Awaitable[bytes]:
            if options.reuse is Reuse.NEVER:
                return self.storing.store(new, call)
            return self.ledger.write(lambda tx: call.once(tx, lambda: make(tx)), rank=Rank.PATIENT)

        versions = new.versions if new.reuses is None else []
        try:
            return await self.holding.make(str(new.name), versions, write)
        except ServiceError as error:
            if error.reason != "NOT_FOUND":
                raise
            problem = f"names what was deleted at this moment: {error.message}; name what is there"
            raise invalid_fields([FieldViolation("spec", problem)]) from None

    async def check(self, draft: Draft) -> NewJob:
        """Returns the job that `create` would store; stores nothing.

        Raises:
            ServiceError: as `CreateJob` documents.
        """
        new = await self._admitted(draft)

        def look(connection: Connection) -> None:
            if job_store.find(connection, new.name) is not None:
                raise taken(new.name)
            require_room(connection, new)

        await self.ledger.look(look)
        return new

    async def _admitted(self, draft: Draft) -> NewJob:
        if not draft.from_checkpoint:
            return await self.admission.admit(draft)
        branch = await self.ledger.read(lambda connection: branching.begin(connection, draft))
        return branching.checked(await self.admission.admit(branch.draft), branch)

    async def estimate(self, draft: Draft) -> bytes:
        """Returns what a draft would take, whether a known node could hold it or not; stores nothing.

        Raises:
            ServiceError: as `EstimateResources` documents.
        """
        new = await self.admission.admit(draft, must_fit=False)
        return new.resource_estimate or unknown_bytes(str(new.depends_on))

    async def cancel(self, name: JobName, reason: str, call: Call) -> bytes:
        """Cancels a job: at once while it waits, else as soon as its device is free.

        Raises:
            ServiceError: as `CancelJob` documents.
        """
        check_reason(reason)
        return await self._change(call, lambda tx: cancel_in(tx, name, reason, call.actor))

    async def pause(self, name: JobName, reason: str, call: Call) -> bytes:
        """Pauses a job: at once while it is queued, else as soon as its attempt has saved its state.

        Raises:
            ServiceError: as `PauseJob` documents.
        """
        check_reason(reason)
        return await self._change(call, lambda tx: pause_in(tx, name, reason, call.actor))

    async def resume(self, name: JobName, call: Call, budget: Budget | None = None) -> bytes:
        """Queues a paused job again, with a new budget when one is given.

        Raises:
            ServiceError: as `ResumeJob` documents.
        """
        if budget is not None and (problems := list(budget_problems("budget", budget, self.admission.price))):
            raise invalid_fields(problems)
        priced = None if budget is None else budget.at(self.admission.price)
        return await self._change(call, lambda tx: resume_in(tx, name, call.actor, priced))

    async def _change(self, call: Call, make: Callable[[Transaction], bytes]) -> bytes:
        """Makes a change once for each request id."""

        def write(tx: Transaction) -> bytes:
            return call.once(
                tx,
                lambda: make(tx),
            )

        return await self.ledger.write(write)


def check_reason(reason: str) -> None:
    """Refuses a reason that the log cannot take."""
    if problems := reason_problems(reason):
        raise invalid_fields(problems)


def reason_problems(reason: str) -> list[FieldViolation]:
    """Returns what is wrong with a reason: it is too long for the log, or no database stores it."""
    if len(reason) > REASON_LENGTH_MAX:
        return [FieldViolation("reason", f"has {len(reason)} characters: use at most {REASON_LENGTH_MAX}")]
    return [FieldViolation("reason", _NUL)] if "\0" in reason else []


async def answered(ledger: Ledger, call: Call) -> bytes | None:
    """Returns the first answer to a request id, or None for a new one."""
    if not call.request_id:
        return None

    def find(connection: Connection) -> bytes | None:
        return recall(connection, scope=call.scope, request_id=call.request_id, request=call.body)

    return await ledger.look(find)


def cancel_in(tx: Transaction, name: JobName, reason: str, actor: str) -> bytes:
    """Cancels a job inside a transaction; see `CancelJob`."""
    job = _found(tx, name)
    if job.state in {JobState.CANCELLING, JobState.CANCELLED}:
        return job_bytes(job)
    if job.state not in WAITING | HELD:
        raise _wrong_state(job, "cancelled")
    target = JobState.CANCELLED if job.state in WAITING else JobState.CANCELLING
    return _move(tx, job, target, "CANCEL_REQUESTED", f"Cancelled by {actor}" + (f": {reason}" if reason else "."))


def pause_in(tx: Transaction, name: JobName, reason: str, actor: str) -> bytes:
    """Pauses a job inside a transaction; see `PauseJob`."""
    job = _found(tx, name)
    if job.state in {JobState.PAUSING, JobState.PAUSED}:
        spending.stay(tx, job)
        return job_bytes(job)
    target = JobState.PAUSED if job.state is JobState.QUEUED else JobState.PAUSING
    if job.state not in sources_of(target):
        raise _wrong_state(job, "paused")
    return _move(tx, job, target, "PAUSE_REQUESTED", f"Paused by {actor}" + (f": {reason}" if reason else "."))


def resume_in(tx: Transaction, name: JobName, actor: str, budget: Budget | None = None) -> bytes:
    """Resumes a job inside a transaction; see `ResumeJob`."""
    job = _found(tx, name)
    if job.state not in {JobState.QUEUED, JobState.STARTING, JobState.RUNNING, JobState.PAUSED}:
        raise _wrong_state(job, "resumed")
    if budget is not None:
        spending.allow(tx, job, budget)
        job = job_store.load(tx.connection, job.number)
    if job.state is not JobState.PAUSED:
        return job_bytes(job)
    spending.require_left(tx, job)
    return _move(tx, job, JobState.QUEUED, "RESUME_REQUESTED", f"Resumed by {actor}.")


def _found(tx: Transaction, name: JobName) -> Job:
    job = job_store.find(tx.connection, name)
    if job is None:
        raise not_found("job", name)
    return job


def _move(tx: Transaction, job: Job, target: JobState, reason: str, message: str) -> bytes:
    step = job_store.Step(to=target, reason=reason, message=message, token=job.token, sources=frozenset({job.state}))
    if not job_store.advance(tx, job.number, step):
        raise AssertionError("the job was read in this transaction")
    return job_bytes(job_store.load(tx.connection, job.number))


_WHY_NOT = {
    JobState.BLOCKED: "it waits for another job",
    JobState.PAUSING: "its attempt still saves its state",
    JobState.PREEMPTING: "it gives way to another job and will be queued",
    JobState.CANCELLING: "it is being cancelled",
    JobState.PUBLISHING: "its result is being registered",
}


def _wrong_state(job: Job, verb: str) -> ServiceError:
    why = _WHY_NOT.get(job.state, "it has ended")
    return ServiceError(
        "WRONG_STATE",
        f"{job.name} is {job.state}: {why}, so it cannot be {verb}",
        metadata={"name": str(job.name), "state": str(job.state)},
    )
