"""What callers do to sweeps: create, pause, resume, cancel, delete, each in one transaction with its request id."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from services.grpckit.errors import FieldViolation, ServiceError, invalid_fields, not_found
from services.grpckit.holding import Holding
from services.scheduler.admission import Admission
from services.scheduler.ledger import Ledger
from services.scheduler.nodes import label_problems
from services.scheduler.queues.entering import require_devices
from services.scheduler.store import sweeps as sweep_store
from services.scheduler.store.transaction import Transaction
from services.scheduler.sweeps.checking import checked, combinations
from services.scheduler.sweeps.drafts import SweepDraft
from services.scheduler.sweeps.trials import ENDED_SWEEP, NewSweep, Standings, SweepState
from services.scheduler.verbs import Call, answered, check_reason
from services.scheduler.wire.sweep_drafts import cost_of, pinned_spec, rules_for
from services.scheduler.wire.sweeps import plan_bytes, sweep_bytes
from tuneforge.names import ID_FORM, SweepName, is_id, new_id


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepVerbs:
    """Changes sweeps for callers. Answers are serialised `Sweep` messages."""

    ledger: Ledger
    admission: Admission
    holding: Holding
    on_change: Callable[[], None]
    """Called after each change: the controller looks again."""

    async def create(self, draft: SweepDraft, call: Call) -> bytes:
        """Checks and stores a sweep.

        Raises:
            ServiceError: as `CreateSweep` documents.
        """
        if (answer := await answered(self.ledger, call)) is not None:
            return answer
        new = await self.check(draft)

        def make(tx: Transaction) -> bytes:
            number = sweep_store.add(tx, new)
            if number is None:
                raise _taken(new.name)
            return _answer(tx, number)

        try:
            return await self.holding.make(str(new.name), new.versions, lambda: self._change(call, make))
        except ServiceError as error:
            if error.reason != "NOT_FOUND":
                raise
            problem = f"names what was deleted at this moment: {error.message}; name what is there"
            raise invalid_fields([FieldViolation("spec", problem)]) from None

    async def check(self, draft: SweepDraft) -> NewSweep:
        """Returns the sweep that `create` would store; stores nothing.

        Raises:
            ServiceError: as `CreateSweep` documents.
        """
        name = SweepName(draft.project, draft.sweep_id if is_id(draft.sweep_id) else new_id("sweep"))
        problems = list(draft.problems)
        if draft.sweep_id and not is_id(draft.sweep_id):
            problems.append(FieldViolation("sweep_id", f"is {draft.sweep_id[:200]!r}: use {ID_FORM}"))
        problems += label_problems("labels", draft.labels)
        admitted = None
        try:
            admitted = await self.admission.admit(draft.job, must_fit=False)
        except ServiceError as error:
            if error.reason != "INVALID_FIELD":
                raise
            problems += error.fields
        architecture = await self.admission.architecture(draft.job) if admitted is not None else None
        rules = rules_for(draft.job.message, architecture)
        plan, found = await asyncio.to_thread(
            checked, draft.plan, draft.num_trials, rules
        )  # seconds, for a large space
        told = {each.field for each in problems}
        problems += [each for each in found if each.field not in told]
        if problems or admitted is None:
            raise invalid_fields(problems)
        if await self.ledger.read(lambda db: sweep_store.find(db, name)) is not None:
            raise _taken(name)
        await self.ledger.look(lambda db: require_devices(db, admitted))
        points = combinations(plan)
        return NewSweep(
            name=name,
            creator=draft.creator,
            labels=dict(draft.labels),
            spec=pinned_spec(draft.job.message, admitted, name),
            plan=plan_bytes(plan),
            combinations=points,
            cost=cost_of(plan, points, admitted),
            versions=tuple(sorted(set(admitted.versions))),
        )

    async def cancel(self, name: SweepName, reason: str, call: Call) -> bytes:
        """Stops a sweep: its open trials are cancelled, and it ends once they have.

        Raises:
            ServiceError: as `CancelSweep` documents.
        """
        check_reason(reason)
        message = f"Cancelled by {call.actor}" + (f": {reason}" if reason else ".")
        return await self._move(name, call, SweepState.STOPPING, "CANCEL_REQUESTED", message)

    async def pause(self, name: SweepName, reason: str, call: Call) -> bytes:
        """Pauses a sweep and the jobs of its trials.

        Raises:
            ServiceError: as `PauseSweep` documents.
        """
        check_reason(reason)
        message = f"Paused by {call.actor}" + (f": {reason}" if reason else ".")
        return await self._move(name, call, SweepState.PAUSED, "PAUSE_REQUESTED", message)

    async def resume(self, name: SweepName, call: Call) -> bytes:
        """Lets a paused sweep go on.

        Raises:
            ServiceError: as `ResumeSweep` documents.
        """
        return await self._move(name, call, SweepState.RUNNING, "RESUME_REQUESTED", f"Resumed by {call.actor}.")

    async def delete(self, name: SweepName, call: Call) -> bytes:
        """Takes an ended sweep out; returns what it was.

        Raises:
            ServiceError: as `DeleteSweep` documents.
        """

        def make(tx: Transaction) -> bytes:
            seen = _found(tx, name)
            if seen.sweep.state not in ENDED_SWEEP:
                raise _wrong_state(seen, "deleted", "cancel it and wait for its end")
            answer = sweep_bytes(seen)
            sweep_store.remove(tx, seen.sweep.number)
            return answer

        return await self._change(call, make)

    async def _move(self, name: SweepName, call: Call, to: SweepState, reason: str, message: str) -> bytes:
        def make(tx: Transaction) -> bytes:
            seen = _found(tx, name)
            if seen.sweep.state is to or (to is SweepState.STOPPING and seen.sweep.state is SweepState.CANCELLED):
                return sweep_bytes(seen)
            if seen.sweep.state not in _SOURCES[to]:
                raise _wrong_state(seen, _VERBS[to], _WHY_NOT.get(seen.sweep.state, "it has ended"))
            sweep_store.advance(tx, seen.sweep.number, to, _SOURCES[to], reason=reason, message=message)
            return _answer(tx, seen.sweep.number)

        return await self._change(call, make)

    async def _change(self, call: Call, make: Callable[[Transaction], bytes]) -> bytes:
        """Makes a change once for each request id."""

        def write(tx: Transaction) -> bytes:
            return call.once(
                tx,
                lambda: make(tx),
            )

        answer = await self.ledger.write(write)
        self.on_change()
        return answer


_SOURCES = {
    SweepState.STOPPING: (SweepState.RUNNING, SweepState.PAUSED),
    SweepState.PAUSED: (SweepState.RUNNING,),
    SweepState.RUNNING: (SweepState.PAUSED,),
}
_VERBS = {SweepState.STOPPING: "cancelled", SweepState.PAUSED: "paused", SweepState.RUNNING: "resumed"}
_WHY_NOT = {SweepState.STOPPING: "it is being stopped"}


def _found(tx: Transaction, name: SweepName) -> Standings:
    number = sweep_store.find(tx.connection, name)
    seen = None if number is None else sweep_store.load(tx.connection, number, tx.now_ms)
    if seen is None:
        raise not_found("sweep", name)
    return seen


def _answer(tx: Transaction, number: int) -> bytes:
    seen = sweep_store.load(tx.connection, number, tx.now_ms)
    if seen is None:
        raise AssertionError("the sweep was written in this transaction")
    return sweep_bytes(seen)


def _taken(name: SweepName) -> ServiceError:
    message = f"there is a sweep {str(name)!r} already; choose another sweep id, or none"
    return ServiceError("ALREADY_EXISTS", message, metadata={"name": str(name)})


def _wrong_state(seen: Standings, verb: str, why: str) -> ServiceError:
    sweep = seen.sweep
    message = f"{sweep.name} is {sweep.state}: {why}, so it cannot be {verb}"
    return ServiceError("WRONG_STATE", message, metadata={"name": str(sweep.name), "state": str(sweep.state)})
