"""The sweeps' loop: reads what running trials report, decides (`decisions.py`, pure), acts.

Nothing is remembered that is not in the database, but where a log was read to without finding anything. Every action is
guarded where it lands, so an action on an old look changes nothing, and a crash between two of them loses nothing: the
next look derives what is left. A trial and its job are stored in one transaction, with a proposal that is the same
whenever it is asked for again.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from services.grpckit import context
from services.grpckit.errors import ServiceError
from services.grpckit.holding import Holding
from services.grpckit.logging import get_logger
from services.scheduler.admission import Admission
from services.scheduler.backoff import Backoff
from services.scheduler.jobs import TERMINAL
from services.scheduler.ledger import Ledger
from services.scheduler.lifecycle.options import Options, Reuse
from services.scheduler.lifecycle.reuse import Reusing, Stale, standing_in
from services.scheduler.queues.entering import is_full, require_room
from services.scheduler.records import NewJob
from services.scheduler.store import events as event_store
from services.scheduler.store import sweeps as sweep_store
from services.scheduler.store import trials as trial_store
from services.scheduler.store.transaction import Transaction
from services.scheduler.sweeps import decisions
from services.scheduler.sweeps.asking import propose
from services.scheduler.sweeps.decisions import Action, Propose, decide
from services.scheduler.sweeps.space import digest_of
from services.scheduler.sweeps.trials import Standings, Sweep, SweepState, Trial
from services.scheduler.wire.sweep_drafts import trial_draft
from services.scheduler.wire.sweeps import MetricReader
from tuneforge.names import new_id

REFUSED = frozenset({"INVALID_FIELD", "DOES_NOT_FIT", "REVOKED", "LINEAGE_DEPTH", "NOT_FOUND", "QUOTA_TOO_SMALL"})
"""Answers to a trial's job that stay the same: the trial has failed. All others are asked for again."""
CHUNKS_PER_READ = 64
FAULT_PAUSE_S = 1.0
"""After a fault of ours: it comes again, and must not spin."""
IDLE_PAUSE_S = 0.05
"""Between two looks while no sweep goes on. 50 ms: what a new one waits at most."""
LOOKS_PER_TURN = 1000
"""Looks at one sweep before others have their turn: a bound on what a fault in a rule can cost."""
_REUSE = Options(reuse=Reuse.FINISHED)
_log = get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class SweepController:
    """Brings every sweep that has not ended to its end. For one event loop."""

    ledger: Ledger
    admission: Admission
    holding: Holding
    reusing: Reusing
    chance: random.Random
    """Source of jitter."""
    tick_s: float
    """How often the values of running trials are looked for."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, after each change of a sweep or a trial: who watches looks again."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _turns: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _missed: set[int] = field(default_factory=set)
    _looked: dict[tuple[int, int], int] = field(default_factory=dict)
    """How far a trial's log was read without a value in it."""

    def poke(self) -> None:
        """Makes the loop look again now."""
        self._wake.set()

    def tell(self) -> None:
        """Tells watchers and the loop that a sweep has changed."""
        self.changed.set()
        self.changed = asyncio.Event()
        self.poke()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        try:
            while True:
                self._wake.clear()
                try:
                    active = await self.ledger.read(sweep_store.going_on)
                except ServiceError as error:
                    active = []
                    _log.info("sweeps are looked at later", problem=error.message)
                except Exception:  # noqa: BLE001 - a look that fails must not end the loop
                    active = []
                    _log.error("looking for sweeps failed", exc_info=True)
                for number in active:
                    self._begin_turn(number)
                if not active:  # ten thousand submits are no reason to look ten thousand times for a sweep
                    await asyncio.sleep(IDLE_PAUSE_S)
                try:
                    async with asyncio.timeout(self.tick_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            turns = list(self._turns.values())
            for turn in turns:
                turn.cancel()
            await asyncio.gather(*turns, return_exceptions=True)

    def _begin_turn(self, number: int) -> None:
        if number in self._turns:
            self._missed.add(number)
            return
        self._turns[number] = asyncio.create_task(self._turn(number))

    async def _turn(self, number: int) -> None:
        """Does all that is due in a sweep; one that waits for a peer holds up no other."""
        backoff = Backoff(0.2, 5.0, self.chance)
        try:
            for _ in range(LOOKS_PER_TURN):
                with context.background("scheduler.sweeps"):
                    try:
                        if not await self._look(number):
                            return
                        backoff.reset()
                    except ServiceError as error:
                        _log.info("a sweep goes on later", sweep=number, problem=f"{error.reason}: {error.message}")
                        await asyncio.sleep(backoff.next_s())
        except Exception:  # noqa: BLE001 - the next tick begins anew; one sweep's fault must not end the others
            _log.error("a turn of a sweep failed", sweep=number, exc_info=True)
            await asyncio.sleep(FAULT_PAUSE_S)
        finally:
            self._turns.pop(number, None)
            if number in self._missed:
                self._missed.discard(number)
                self.poke()

    async def _look(self, number: int) -> bool:
        """Looks once and does what is due; False when nothing was."""
        await self._read_logs(number)
        seen = await self.ledger.read_now(lambda db, now_ms: sweep_store.load(db, number, now_ms))
        actions = [] if seen is None else decide(seen)
        if seen is None or not actions:
            return False
        done = [await self._act(seen, action) for action in actions]
        if is_changed := any(done):
            self.tell()
        return is_changed

    async def _read_logs(self, number: int) -> None:
        """Brings what the jobs of open trials have reported into their trials."""
        looked = dict(self._looked)

        def read(connection: Connection, now_ms: int) -> list[tuple[Trial, dict[int, float], int]]:
            seen = sweep_store.load(connection, number, now_ms)
            if seen is None:
                return []
            reader = MetricReader(metric=seen.sweep.plan.goal.metric)
            behind = [
                each for each in seen.open_ones if each.latest_seq > looked.get(_key(number, each), each.read_seq)
            ]
            return [(each, *_values(connection, reader, each, looked.get(_key(number, each), 0))) for each in behind]

        for trial, values, read_seq in await self.ledger.read_now(read):
            key = _key(number, trial)
            if values or trial.job_state in TERMINAL:
                self._looked.pop(key, None)
                kept, upto = dict(values), read_seq
                await self.ledger.write(
                    lambda tx, trial=trial, kept=kept, upto=upto: trial_store.keep_reports(  # type: ignore[misc]
                        tx, number, trial, kept, upto
                    )
                )
                self.tell()
            else:
                self._looked[key] = read_seq

    async def _act(self, seen: Standings, action: Action) -> bool:
        """Does one thing; returns whether something was changed."""
        number = seen.sweep.number
        if isinstance(action, Propose):
            return await self._propose(seen, action)
        return await self.ledger.write(lambda tx: _change(tx, number, action))

    async def _propose(self, seen: Standings, action: Propose) -> bool:
        number, question, project = seen.sweep.number, action.question, seen.sweep.name.project
        if await self.ledger.look(lambda db: is_full(db, project)):
            return False  # it begins once another job of the project has started
        point = await asyncio.to_thread(propose, question)
        if point is None:
            why = f"Every point of the space of round {action.round} was tried."
            await self.ledger.write(lambda tx: sweep_store.close_rounds(tx, number, action.round, why))
            return True
        new = trial_store.NewTrial(
            sweep=number,
            number=question.number,
            round=action.round,
            point=point,
            digest=digest_of(point, question.train_fraction),
        )
        try:
            return await self._begin(seen, action, new)
        except ServiceError as error:
            if error.reason not in REFUSED:
                raise
            said = "; ".join(f"{each.field} {each.description}" for each in error.fields) or error.message
            refused = replace(new, message=f"Its parameters were refused: {said}")
            return await self.ledger.write(lambda tx: trial_store.begin(tx, refused, None))

    async def _begin(self, seen: Standings, action: Propose, new: trial_store.NewTrial) -> bool:
        """Stores a trial with its job.

        Raises:
            ServiceError: the job is refused, or the registry does not answer.
        """
        sweep = seen.sweep
        job_id = f"{sweep.name.sweep[:56]}-{new.number}"
        while True:
            draft = trial_draft(sweep, new.point, action.question.train_fraction, job_id)
            job: NewJob = replace(await self.admission.admit(draft), trial=str(sweep.name.trial(new.number)))
            if sweep.plan.reuses_trained:
                job, new = await self._reused(sweep, job, new)

            async def write(job: NewJob = job, new: trial_store.NewTrial = new) -> bool:
                return await self.ledger.write(lambda tx: _begin(tx, new, job))

            try:
                return await self.holding.make(str(job.name), job.versions, write)
            except trial_store.JobTaken:
                job_id = new_id("trial")
            except Stale:
                new = replace(new, reports={}, message="")

    async def _reused(
        self, sweep: Sweep, job: NewJob, new: trial_store.NewTrial
    ) -> tuple[NewJob, trial_store.NewTrial]:
        """Returns a trial and its job with the result of a job that trained the same, where one has the values too.

        Raises:
            ServiceError: the registry does not answer.
        """
        found, _ = await self.reusing.finished(job, _REUSE)
        if found.reuses is None:
            return job, new
        number, reader = found.reuses.number, MetricReader(metric=sweep.plan.goal.metric)
        values = await self.ledger.read(lambda db: _all_values(db, number, reader))
        if not values:
            return job, new
        return found, replace(new, reports=values, message=f"It has the result of {found.reuses.job}.")


def _begin(tx: Transaction, new: trial_store.NewTrial, job: NewJob) -> bool:
    """Stores a trial with its job.

    Raises:
        Stale: the job whose result it was to have is gone.
        ServiceError: QUOTA_TOO_SMALL or QUOTA_EXCEEDED.
    """
    if job.reuses is None:
        require_room(tx.connection, job, locks=True)
    else:
        standing_in(tx.connection, job, _REUSE, frozenset({job.reuses.number}))
    return trial_store.begin(tx, new, job)


def _all_values(connection: Connection, job: int, reader: MetricReader) -> dict[int, float]:
    """Returns all values of the metric in a job's log, by step."""
    found: dict[int, float] = {}
    after = 0
    while chunks := event_store.read_tail(connection, job, after, CHUNKS_PER_READ).chunks:
        values, after = reader.read((chunk.payload for chunk in chunks), after)
        found |= values
    return found


def _key(sweep: int, trial: Trial) -> tuple[int, int]:
    return sweep, trial.number


def _values(connection: Connection, reader: MetricReader, trial: Trial, looked: int) -> tuple[dict[int, float], int]:
    """Returns new values of a trial by step, and how far its log was read."""
    after = max(trial.read_seq, looked)
    tail = event_store.read_tail(connection, trial.job or 0, after, CHUNKS_PER_READ)
    if not tail.chunks:  # what is between was taken out of the log
        return {}, trial.latest_seq
    return reader.read((chunk.payload for chunk in tail.chunks), after)


def _change(tx: Transaction, sweep: int, action: Action) -> bool:
    """Carries out an action that changes the database alone."""
    match action:
        case decisions.Settle(trial=trial, state=state, value=value, message=message):
            trial_store.settle(tx, sweep, trial, state, value, message)
        case decisions.Stop(trial=trial, reason=reason, message=message, step=step):
            return trial_store.stop(tx, sweep, trial, reason, message, step)
        case decisions.Promote(trial=trial, rungs=rungs):
            trial_store.promote(tx, sweep, trial, rungs)
        case decisions.PauseTrial(trial=trial):
            return trial_store.pause(tx, sweep, trial)
        case decisions.ResumeTrial(trial=trial):
            trial_store.resume(tx, sweep, trial)
        case decisions.CloseRound(round=number, why=why):
            sweep_store.close_rounds(tx, sweep, number, why)
        case decisions.Wind(failure=failure):
            return sweep_store.advance(
                tx,
                sweep,
                SweepState.STOPPING,
                (SweepState.RUNNING,),
                reason=failure.reason,
                message=failure.message,
                failure=failure,
            )
        case decisions.End(state=state, reason=reason, message=message, failure=failure):
            sources = (SweepState.RUNNING, SweepState.STOPPING)
            return sweep_store.advance(tx, sweep, state, sources, reason=reason, message=message, failure=failure)
    return True
