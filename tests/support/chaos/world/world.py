"""Plays one seed: starts the scheduler, lets nodes, users and faults loose on it, and judges what is left."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, select

from services.grpckit.errors import ServiceError
from services.grpckit.settings import ServerSettings
from services.scheduler import doctor
from services.scheduler.jobs import HELD, TERMINAL, RetryPolicy
from services.scheduler.service import Scheduler, Surroundings, build
from services.scheduler.settings import SchedulerSettings, Timing
from services.scheduler.store.nodes import Registration
from services.scheduler.store.tables import attempts, chunks, jobs
from tests.support.chaos.world.clock import Stuck, run_virtually
from tests.support.chaos.world.disk import Disk, MemoryDatabase
from tests.support.chaos.world.faults import strike
from tests.support.chaos.world.network import Network, SimRegistry, SimTrainers, away
from tests.support.chaos.world.node import SimNode, weights_after
from tests.support.chaos.world.operator import begin_ruled, rule_queue
from tests.support.chaos.world.released import NoHolding, SimAdmission
from tests.support.chaos.world.script import HORIZON_S, STEPS, Story, story
from tests.support.chaos.world.users import serve_wish
from tuneforge.names import JobName
from tuneforge.v1 import events_pb2

T = TypeVar("T")
HEARTBEAT_S = 1.5
PATIENCE_S = 600.0
"""Virtual seconds after the last fault within which everything has to be over."""
TIMING = Timing(
    heartbeat_interval_s=HEARTBEAT_S,
    lease_ttl_s=4.0,
    flush_s=0.8,
    longest_tick_s=5.0,
    retry_first_s=0.2,
    retry_longest_s=2.0,
    stop_again_s=2.0,
)
_SERVER = ServerSettings(service="scheduler", listen="127.0.0.1:0", data=Path("/nowhere"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a seed."""

    seed: int
    trace: str
    """Digest of everything that happened."""
    problems: tuple[str, ...]
    states: dict[str, str]
    kills: int
    """How often the scheduler's process died."""
    lines: tuple[str, ...]
    """All that happened, for people."""
    seconds: float
    """Virtual seconds until everything was over."""


@dataclass(eq=False)
class World:
    """One seed while it is played."""

    seed: int
    story: Story
    chance: random.Random
    disk: Disk
    scheduler: Scheduler | None = None
    database: MemoryDatabase | None = None
    clock_ms: int = 1_000_000_000
    """The database's time at the beginning, moved by jumps."""
    dying: tuple[str, int] = ("", 0)
    """Moment of a write, and how many of them are still survived."""
    kills: int = 0
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    acknowledged: dict[str, set[str]] = field(default_factory=dict)
    """Verbs that users were told are done, by job."""
    refused: set[str] = field(default_factory=set)
    """Jobs that were not made, because what they wait for has ended badly."""
    is_ruled: bool = True
    """Whether the operator's limits hold."""
    asked: dict[str, set[str]] = field(default_factory=dict)
    """Verbs that users asked for, answered or not, by job."""
    seen: doctor.Snapshot = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.nodes = {
            f"n{number}:1": SimNode(
                name=f"n{number}", slots=slots, scripts=lambda job: self.story.jobs[job.split("/")[-1]], trace=self.note
            )
            for number, slots in enumerate(self.story.nodes, start=1)
        }
        self.network = Network(self.nodes, self.chance)
        self.registry = SimRegistry(self.chance)

    def note(self, line: str) -> None:
        """Adds to the trace."""
        self.lines.append(f"{asyncio.get_running_loop().time():8.3f} {line}")

    def now_ms(self, _: Connection) -> int:
        """Returns the database's time."""
        return self.clock_ms + round(asyncio.get_running_loop().time() * 1000)

    # --- the scheduler's process ----------------------------------------------------------------------------------
    async def start(self) -> None:
        """Starts a scheduler over the disk, as its process does."""
        self.look()
        self.database = MemoryDatabase(self.disk, self.chance, self._dies)
        settings = SchedulerSettings(
            server=_SERVER,
            registry="",
            timing=TIMING,
            retry=RetryPolicy(budget=self.story.budget, first_delay_s=0.5, longest_delay_s=4.0),
        )
        outside = Surroundings(
            database=self.database,
            registry=self.registry,
            trainers=SimTrainers(self.network, self.chance),
            chance=self.chance,
        )
        self.scheduler = build(settings, self.now_ms, outside)
        reconciler = self.scheduler.reconciler
        reconciler.releasing = replace(
            reconciler.releasing,
            admission=SimAdmission(self),  # type: ignore[arg-type]
            holding=NoHolding(),  # type: ignore[arg-type]
        )
        self.note("the scheduler starts")
        scheduler = self.scheduler

        async def live() -> None:
            while True:
                try:
                    await scheduler.reconciler.start()
                    break
                except ServiceError:
                    await asyncio.sleep(0.5)
            await scheduler.reconciler.run()

        self.process = asyncio.create_task(live())

    def _dies(self, moment: str) -> bool:
        wanted, left = self.dying
        if moment != wanted:
            return False
        self.dying = (wanted, left - 1)
        if left > 1:
            return False
        self.dying = ("", 0)
        self.kill(f"dies {moment} a write", back_in_s=1.0)
        return True

    def kill(self, why: str, back_in_s: float) -> None:
        """Ends the scheduler's process; another one starts after a while."""
        if self.scheduler is None:
            return
        self.note(f"the scheduler {why}")
        self.kills += 1
        self.scheduler = None
        loop = asyncio.get_running_loop()
        if self.database is not None:
            self.database.is_dead = True
        loop.call_soon(self._end_tasks)
        loop.call_later(back_in_s, lambda: self.spawn(self.start()))

    def _end_tasks(self) -> None:
        """Whatever the process was doing stops where it stands; nothing of it reaches the disk any more."""
        tasks = [task for task in asyncio.all_tasks() if not task.get_name().startswith("world")]
        for task in sorted(tasks, key=lambda task: int(task.get_name().rpartition("-")[2])):
            task.cancel()

    def spawn(self, run: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs something that is not part of the scheduler's process."""
        return asyncio.create_task(run, name="world")

    async def to_scheduler(self, call: Callable[[Scheduler], Awaitable[T]]) -> T:
        """Calls the scheduler as a client does.

        Raises:
            ServiceError: what it answers, or that it does not.
        """
        if self.scheduler is None:
            raise away("the scheduler")
        task = asyncio.ensure_future(call(self.scheduler))
        await asyncio.wait({task}, timeout=2.0)
        if not task.done():
            task.cancel()
        if not task.done() or task.cancelled():
            raise away("the scheduler")
        return task.result()

    # --- nodes ----------------------------------------------------------------------------------------------------
    async def keep_known(self, address: str) -> None:
        """Registers a node and renews its lease for ever, as a trainer does."""
        node = self.nodes[address]
        while True:
            try:
                await self._say(address, node, is_new=not node.manager_token)
            except ServiceError as error:
                if error.reason in {"NOT_FOUND", "STALE_ATTEMPT"} and node.is_up:
                    node.manager_token = ""
                await asyncio.sleep(0.3)
                continue
            await asyncio.sleep(HEARTBEAT_S)

    async def _say(self, address: str, node: SimNode, *, is_new: bool) -> None:
        generation, statuses = f"{node.generation:04d}", node.statuses()
        lies = [status for name in node.lies for status in [_lie(name)]]
        await self.network.transit(address, to_node=False)

        async def speak(scheduler: Scheduler) -> str:
            known = scheduler.reconciler.nodes
            if not is_new:
                await known.heartbeat(node.name, generation, [*statuses, *lies], (), is_draining=False)
                return ""
            new = Registration(
                node=node.name,
                address=address,
                capacity=node.capacity(),
                labels={},
                generation=generation,
                version="",
            )
            return (await known.register(new, statuses, ())).manager_token

        token = await self.to_scheduler(speak)
        await self.network.transit(address, to_node=True)
        if token and generation == f"{node.generation:04d}":
            node.manager_token = token

    # --- the course of things -------------------------------------------------------------------------------------
    async def play(self) -> Outcome:
        """Plays the seed to its end."""
        await self.begin()
        for wish in self.story.wishes:
            self.spawn(serve_wish(self, wish))
        for fault in self.story.faults:
            self.spawn(strike(self, fault))
        if self.story.rule is not None:
            self.spawn(rule_queue(self, self.story.rule))
        return await self.finish()

    async def begin(self) -> None:
        """Starts the scheduler and lets the nodes register."""
        if (mine := asyncio.current_task()) is not None:
            mine.set_name("world")
        if self.story.rule is not None:
            begin_ruled(self, self.story.rule)
        await self.start()
        for address in self.nodes:
            self.spawn(self.keep_known(address))

    async def finish(self) -> Outcome:
        """Waits until everything is over, judges it, and ends what still runs."""
        if (mine := asyncio.current_task()) is not None:
            mine.set_name("world")
        try:
            await self._until_over()
        except Stuck:
            self.problems.append("nothing will ever happen again")
        self.look()
        self._judge()
        tasks = asyncio.all_tasks() - {mine}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        states = {name: seen.state for name, seen in self.seen.items()}
        lines = (*self.lines, *(f"{name} {state}" for name, state in sorted(states.items())))
        return Outcome(
            seed=self.seed,
            trace=hashlib.sha256("\n".join(lines).encode()).hexdigest(),
            problems=tuple(self.problems),
            states={name: str(state) for name, state in states.items()},
            kills=self.kills,
            lines=lines,
            seconds=asyncio.get_running_loop().time(),
        )

    async def _until_over(self) -> None:
        give_up = asyncio.get_running_loop().time() + HORIZON_S + PATIENCE_S
        while not self._is_over():
            if asyncio.get_running_loop().time() > give_up:
                held = {name: [held.name for held in node.held.values()] for name, node in self.nodes.items()}
                self.problems.append(f"not over {PATIENCE_S:.0f} s after the last fault; nodes hold {held}")
                return
            await asyncio.sleep(1.0)

    def _is_over(self) -> bool:
        if any(node.held for node in self.nodes.values()) or len(self.acknowledged) + len(self.refused) < len(
            self.story.jobs
        ):
            return False
        with self.disk.connection.begin():
            found = list(self.disk.connection.execute(_STATES).scalars())
            states, held = set(found), sum(state in _HELD for state in found)
            most = self.story.rule.max_jobs if self.story.rule is not None and self.is_ruled else 0
            if held > most > 0:
                self.problems.append(f"{held} jobs hold devices at once, {most} may")
            return states <= _ENDS and self.disk.connection.execute(_UNCLOSED).one_or_none() is None

    def look(self) -> None:
        """Asks the doctor, about this moment and about what changed since the last one."""
        with self.disk.connection.begin():
            now = doctor.snapshot(self.disk.connection)
            found = [*doctor.examine(self.disk.connection), *doctor.compare(self.seen, now)]
        self.seen = now
        self.problems += [str(finding) for finding in found]

    def _steps_told(self, name: str) -> set[int]:
        """Returns the steps that a job's log has."""
        job = JobName.parse(name)
        query = select(chunks.c.payload).join(jobs, jobs.c.number == chunks.c.job)
        with self.disk.connection.begin():
            rows = self.disk.connection.execute(query.where(jobs.c.job_id == job.job)).scalars().all()
        events = [event for row in rows for event in events_pb2.EventBatch.FromString(row).events]
        return {event.step.step for event in events if event.WhichOneof("payload") == "step"}

    def _judge(self) -> None:
        """What users were promised."""
        for job, verbs in sorted(self.acknowledged.items()):
            name = f"projects/p/jobs/{job}"
            seen = self.seen.get(name)
            if seen is None:
                self.problems.append(f"{job} was acknowledged and is lost")
                continue
            published = self.registry.versions.get(name)
            if seen.state == "SUCCEEDED" and published != weights_after(name, STEPS):
                self.problems.append(f"{job} published {published}, an unbroken run gives {weights_after(name, STEPS)}")
            if seen.state == "SUCCEEDED" and (told := self._steps_told(name)) != set(range(1, STEPS + 1)):
                self.problems.append(f"{job} has only the steps {sorted(told)} in its log")
            if seen.state != "SUCCEEDED" and published is not None:
                self.problems.append(f"{job} ended as {seen.state} and has published")
            if seen.state == "CANCELLED" and "cancel" not in verbs | self.asked.get(job, set()):
                self.problems.append(f"{job} was cancelled by nobody")
            if "cancel" in verbs and seen.state != "CANCELLED":
                self.problems.append(f"{job} ended as {seen.state} after a cancel that was acknowledged")
            after = self.story.jobs[job].after
            is_first_good = not after or self.seen[f"projects/p/jobs/{after}"].state == "SUCCEEDED"
            if seen.state == "SUCCEEDED" and not is_first_good:
                self.problems.append(f"{job} succeeded, and {after} did not, which it waits for")
            may_fail = self.story.jobs[job].fails_at or self.story.budget < 50 or not is_first_good
            if seen.state == "FAILED" and not may_fail:
                self.problems.append(f"{job} failed without a reason")


_ENDS = {str(state) for state in TERMINAL}
_HELD = {str(state) for state in HELD}
_STATES = select(jobs.c.state)
_UNCLOSED = select(attempts.c.job).where(attempts.c.is_closed.is_(False)).limit(1)


def _lie(name: str) -> Any:
    from services.scheduler.jobs import AttemptState
    from services.scheduler.wire.reports import Status

    return Status(name=name, node_rank=0, state=AttemptState.RUNNING, last_seq=1, failure=None)


def play(seed: int, told: Story | None = None, dying: tuple[str, int] = ("", 0)) -> Outcome:
    """Plays one seed.

    Args:
        seed: Of all chance.
        told: What happens; None: what the seed says.
        dying: Moment of a write (`before`, `inside`, `after`) at whose n-th time the scheduler's process dies.
    """
    world = World(seed=seed, story=told or story(seed), chance=random.Random(seed), disk=Disk(), dying=dying)
    outcome: Outcome = run_virtually(world.play())
    return outcome
