"""The loop: observe, decide (`decisions.py`, pure), act.

What only changes the database is done before the next look; what calls another service runs beside the loop, at most
once at a time for each thing. Every action is guarded where it lands (SQL conditions, fencing tokens, idempotent
calls), so acting on an old observation changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from services.grpckit import context
from services.grpckit.logging import get_logger
from services.scheduler import decisions, follower, nodes, pacing, preemption
from services.scheduler.actions import (
    Action,
    Close,
    FailDependent,
    Fence,
    Follow,
    Lose,
    MarkUnreachable,
    PauseSpent,
    Preempt,
    Publish,
    Release,
    Renew,
    SayLate,
    Start,
    Stop,
    TellBlobHold,
)
from services.scheduler.blob_holding import BlobHolding
from services.scheduler.claiming import claim
from services.scheduler.clock_jumps import ClockJumps
from services.scheduler.decisions import decide
from services.scheduler.dispatch import Dispatch
from services.scheduler.effects import Effects
from services.scheduler.jobs import AttemptEnd, AttemptState, JobState
from services.scheduler.lifecycle.putting_aside import PuttingAside
from services.scheduler.lifecycle.quarantine import decide_for_each
from services.scheduler.nodes import Nodes
from services.scheduler.observation import Observation
from services.scheduler.planning.queue import Rules
from services.scheduler.publishing import Publishing
from services.scheduler.queue_view import QueueView
from services.scheduler.queues import spending
from services.scheduler.queues.accounts import Terms, open_books
from services.scheduler.records import Attempt
from services.scheduler.releasing import Releasing
from services.scheduler.store import attempts as attempt_store
from services.scheduler.store import checkpoints as checkpoint_store
from services.scheduler.store import clocks, losses, outbox, usage
from services.scheduler.store import jobs as job_store
from services.scheduler.store import nodes as node_store
from services.scheduler.store.transaction import Transaction
from services.scheduler.timings import DECIDE, LOOK
from services.scheduler.verification import Verification
from services.scheduler.wire import failure_bytes
from tuneforge.names import AttemptName, InvalidName

_log = get_logger(__name__)

_WORDS: dict[type[Action], str] = {Start: "start", Stop: "stop", Close: "close", Fence: "fence"}
"""What a node is told of an attempt, by action."""
_LOOK_S = 3.0
"""How long somebody waits for the loop's next look."""
_LEAVE = "leave"
"""The same for a stop that saves the state: a cancel that comes after it does not wait for its turn."""


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """Brings what is in line with what is wanted."""

    rules: follower.Rules
    nodes: Nodes
    dispatch: Dispatch
    publishing: Publishing
    releasing: Releasing
    blob_holding: BlobHolding
    verification: Verification
    effects: Effects
    aside: PuttingAside
    jumps: ClockJumps
    order: Rules = field(default_factory=Rules)
    """How jobs are ordered and when running ones give way."""
    wake: asyncio.Event
    """Set to make the loop look again now."""
    seen: Observation | None = None
    """What the last round saw."""
    view: QueueView = field(default_factory=QueueView)
    changes: int = 0
    """How often it was told that something has changed."""
    _rest_s: float = 0.0
    """Shortest time until the next round."""
    _has_started: bool = False
    _followers: dict[tuple[int, int], asyncio.Task[None]] = field(default_factory=dict)
    _waiting: list[asyncio.Future[Observation]] = field(default_factory=list)
    """Callers who want to know what the next round sees."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def poke(self) -> None:
        """Makes the loop look again now, because something has changed."""
        self.changes += 1
        self.wake.set()

    async def look(self) -> Observation:
        """Makes the loop look again now, and returns what it sees; when that takes long, what it saw last.

        Raises:
            TimeoutError: it has not seen anything yet.
        """
        seen: asyncio.Future[Observation] = asyncio.get_running_loop().create_future()
        self._waiting.append(seen)
        self.wake.set()
        try:
            async with asyncio.timeout(_LOOK_S):
                return await seen
        except TimeoutError:
            if self.seen is None:
                raise
            return self.seen

    async def start(self) -> None:
        """Gives each lease one full TTL, since nobody could renew while this process was away."""
        self._has_started = True
        self.effects.on_crash = self._crashed
        await self.rules.ledger.write(lambda tx: clocks.begin(tx, self.nodes.ttl_ms))
        await self.aside.begin()

    async def run(self) -> None:
        """Runs until it is cancelled. A round that fails is logged, and the next one begins anew."""
        loop = asyncio.get_running_loop()
        while True:
            self.wake.clear()
            began = loop.time()
            wait_s = self.rules.timing.longest_tick_s
            try:
                with context.background("scheduler.loop"):
                    wait_s = await self.round()
                self.effects.forget_old(began)
            except Exception:  # noqa: BLE001 - a round that fails must not end the loop
                _log.error("a round of the loop failed", exc_info=True)
            await asyncio.sleep(self._rest_s)
            try:
                async with asyncio.timeout(wait_s):
                    await self.wake.wait()
            except TimeoutError:
                pass

    async def round(self) -> float:
        """Looks, decides and acts once; returns how long nothing becomes due, in seconds."""
        waiting, self._waiting = self._waiting, []  # who comes while it looks is told of the next look
        loop = asyncio.get_running_loop()  # its time is virtual in simulations
        began = self.effects.looked = loop.time()
        with LOOK.time():
            seen = self.seen = await self.jumps.watched(self._observe)
        for each in waiting:
            if not each.done():
                each.set_result(seen)
        with DECIDE.time():
            # A long queue takes tens of milliseconds, in which nobody else would be answered.
            is_long = len(seen.jobs) > pacing.LONG_QUEUE
            work = asyncio.to_thread(decide_for_each, decide, seen) if is_long else None
            actions, undecidable = decide_for_each(decide, seen) if work is None else await work
        self._rest_s = pacing.rest_after(loop.time() - began)
        await self._put_aside(undecidable)
        await self._write_all(actions)
        for action in actions:
            self._effect(action)
        self._drop_followers(actions)
        due_ms = decisions.next_moment_ms(seen)
        longest = self.rules.timing.longest_tick_s
        return longest if due_ms is None else min(longest, max(0.0, (due_ms - seen.now_ms) / 1000))

    async def _put_aside(self, undecidable: Mapping[int, BaseException]) -> None:
        unreadable, self.view.broken = self.view.broken, {}
        await self.aside.unreadable(unreadable)
        await self.aside.undecidable(undecidable)

    def _crashed(self, key: Hashable, crashes: int, error: Exception) -> None:
        """Tells on which job's account an effect has raised."""
        if not isinstance(key, tuple) or self.seen is None:
            return
        word, of = key
        job = (
            of
            if word in {"publish", "release"}
            else next((each.job for each in self.seen.attempts if each.part == of), None)
        )
        if job is None:
            return
        if crashes == 1:
            self.aside.went_well(job)  # the strikes of another time do not count
        self._spawn(self.aside.crashed(job, error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _observe(self) -> Observation:
        reported = self.nodes.reported()

        def look(connection: Connection, now_ms: int) -> Observation:
            active = self.view.look(connection, now_ms)
            blocked = (job for job in active if job.state is JobState.BLOCKED)
            waited_for = {number for job in blocked for number in decisions.waited_for(job)}
            open_ones = attempt_store.open_ones(connection)
            accounts = open_books(usage.books(connection, now_ms), active, open_ones, self._terms(now_ms))
            return Observation(
                now_ms=now_ms,
                jobs=active,
                attempts=tuple(open_ones),
                nodes=tuple(node_store.list_by_name(connection)),
                publications=tuple(outbox.pending(connection)),
                blob_holds=tuple(checkpoint_store.pending_holds(connection)),
                dependencies=job_store.states_of(connection, waited_for),
                reported=reported,
                strays=_strays(connection, open_ones, reported),
                projects=accounts.projects,
                accounts=accounts.accounts,
                spent=accounts.spent,
                work=losses.totals(connection),
                rules=self.order,
            )

        return await self.rules.ledger.read_now(look)

    def _terms(self, now_ms: int) -> Terms:
        return Terms(now_ms=now_ms, ahead_ms=self.rules.timing.longest_tick_s * 1000)

    async def _write_all(self, actions: list[Action]) -> None:
        """Makes the changes that were decided; placements a few at a time, between which others may write."""
        others, placements = pacing.groups_of(actions)
        changes = [change for change in map(self._change, others) if change is not None]
        for failed in await asyncio.gather(*map(self.rules.ledger.write, changes), return_exceptions=True):
            if isinstance(failed, Exception):
                _log.error("a decided change failed", exc_info=failed)
        for group in placements:
            self.dispatch.unsent.update(part.part for part in await claim(self.rules.ledger, group))

    def _change(self, action: Action) -> Callable[[Transaction], object] | None:
        """Returns the write that an action is, or None for one that calls another service."""
        match action:
            case MarkUnreachable():
                return lambda tx: nodes.mark_unreachable(tx, action.node)
            case FailDependent():
                return lambda tx: _fail_dependent(tx, action)
            case PauseSpent():
                return lambda tx: spending.pause(tx, action.job, action.why, action.goes_on_ms)
            case Renew():
                return lambda tx: spending.renew(tx, action.job)
            case Preempt():
                return lambda tx: preemption.begin(tx, action)
            case SayLate():
                return lambda tx: preemption.say_late(tx, action)
            case Lose():
                return lambda tx: self._lose(tx, action)
            case _:
                return None

    def _lose(self, tx: Transaction, action: Lose) -> None:
        node = node_store.find(tx.connection, action.attempt.node)
        if node is None or not node.is_away(tx.now_ms):
            return  # it has come back since it was looked at
        end = AttemptEnd(state=AttemptState.LOST, failure=action.failure)
        jitter = self.rules.chance.random()
        ending = attempt_store.Ending(attempt=action.attempt, end=end, retry=self.rules.retry, jitter=jitter)
        attempt_store.finish(tx, ending)

    def _effect(self, action: Action) -> None:
        """Begins what an action calls another service for."""
        match action:
            case Start() | Stop() | Close() | Fence():
                self._tell_node(action)
            case Publish():
                job = action.publication.job
                deliver = self.publishing.deliver if action.publication.payload else self.verification.conclude
                self.effects.run(("publish", job), lambda: deliver(action.publication))
            case Release():
                self.effects.run(("release", action.job), lambda: self.releasing.release(action.job))
            case TellBlobHold():
                self.effects.run(("hold", action.hold.name), lambda: self.blob_holding.tell(action.hold))
            case Follow():
                self._follow(action)
            case _:
                pass

    def _tell_node(self, action: Start | Stop | Close | Fence) -> None:
        """Says one thing at a time of each attempt: a stop that overtook its start would find nothing to stop."""
        part, again_s = action.attempt.part, self.rules.timing.stop_again_s
        if isinstance(action, Close) and part in self._followers:
            return  # a follower closes what it has seen the end of
        is_leaving = isinstance(action, Stop) and action.is_saving
        key = (_LEAVE if is_leaving else _WORDS[type(action)], part)
        others = [(word, part) for word in (_LEAVE, *_WORDS.values()) if word != key[0]]
        match action:
            case Start():
                self.effects.run(key, lambda: self.dispatch.start(action), after=others)
            case Stop():
                self.effects.run(key, lambda: self.dispatch.stop(action), again_s, after=others)
            case Close():
                self.effects.run(key, lambda: self.dispatch.close(action), again_s, after=others)
            case Fence():
                self.effects.run(key, lambda: self.dispatch.fence(action), again_s, after=others)

    def _follow(self, action: Follow) -> None:
        part = action.attempt.part
        if part in self._followers:
            return

        async def run() -> None:
            try:
                with context.background("scheduler.follower"):
                    await follower.follow(action.attempt, self.rules)
                self.effects.done((_WORDS[Close], part))
                self.aside.went_well(action.attempt.job)
            except Exception as error:  # noqa: BLE001 - as above
                # The next round starts another one; the pause keeps a poison event from spinning the loop.
                _log.error("a follower failed", attempt=str(action.attempt.name), exc_info=True)
                await self.aside.crashed(action.attempt.job, error)
                await asyncio.sleep(self.rules.timing.retry_longest_s)
            finally:
                self._followers.pop(part, None)
                self.poke()

        self._followers[part] = asyncio.create_task(run())

    def _drop_followers(self, actions: list[Action]) -> None:
        """Ends followers of attempts that were lost: they would wait for a node that may never come back."""
        for action in actions:
            if isinstance(action, Lose) and (task := self._followers.get(action.attempt.part)) is not None:
                task.cancel()

    async def close(self) -> None:
        """Ends followers and effects; what they had not finished is found again at the next start."""
        tasks = [*self._followers.values(), *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.effects.close()
        if self._has_started:  # else another process has the database
            await self.aside.leave()


def _strays(
    connection: Connection, open_ones: list[Attempt], reported: Mapping[str, Mapping[str, bool]]
) -> tuple[tuple[str, Attempt], ...]:
    """Returns what nodes name and should not hold, each with the node's id; what was never known here is left alone."""
    expected = {(attempt.node, str(attempt.name)) for attempt in open_ones}
    found = []
    for node, held in reported.items():
        for text in held:
            if (node, text) in expected:
                continue
            try:
                name = AttemptName.parse(text)
            except InvalidName:
                continue
            if (attempt := attempt_store.find(connection, name.parent, name.attempt, node)) is not None:
                found.append((node, attempt))
    return tuple(found)


def _fail_dependent(tx: Transaction, action: FailDependent) -> None:
    failure = action.failure
    step = job_store.Step(
        to=JobState.FAILED,
        reason=failure.reason,
        message=failure.message,
        sources=frozenset({JobState.BLOCKED}),
    )
    job_store.fail(tx, action.job, failure_bytes(failure), step)
