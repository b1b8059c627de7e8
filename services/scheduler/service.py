"""Puts the scheduler together: settings -> store -> rules -> servicer, and its life: start, drain, close."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.grpckit.database import Database
from services.grpckit.holding import Holding
from services.grpckit.identity import identity
from services.grpckit.server import ServiceDefinition
from services.grpckit.version_holds import VersionHolds
from services.scheduler import metrics
from services.scheduler.admission import Admission
from services.scheduler.blob_holding import BlobHolding
from services.scheduler.broadcast import Broadcast
from services.scheduler.checkpoint_verbs import CheckpointVerbs
from services.scheduler.clock_jumps import ClockJumps
from services.scheduler.compaction.compactor import Compactor
from services.scheduler.dispatch import Dispatch
from services.scheduler.effects import Effects
from services.scheduler.follower import Rules
from services.scheduler.foresight.service import Foresight
from services.scheduler.job_calls import JobParts
from services.scheduler.leading import Leading, OnlyAtTheLeader
from services.scheduler.ledger import Ledger
from services.scheduler.lifecycle.bulk import Bulk
from services.scheduler.lifecycle.putting_aside import PuttingAside
from services.scheduler.lifecycle.removing import Removing
from services.scheduler.lifecycle.rerun import Rerun
from services.scheduler.lifecycle.reuse import Reusing
from services.scheduler.nodes import Nodes
from services.scheduler.peers import Registry, Trainers
from services.scheduler.policy import POLICIES
from services.scheduler.publishing import Publishing
from services.scheduler.queues.verbs import QueueVerbs
from services.scheduler.reconcile import Reconciler
from services.scheduler.releasing import Releasing
from services.scheduler.servicer import Parts, SchedulerServicer
from services.scheduler.settings import SchedulerSettings, Timing
from services.scheduler.store import jobs as job_store
from services.scheduler.store import sweeps as sweep_store
from services.scheduler.store.transaction import DatabaseClock, database_clock
from services.scheduler.storing import Storing
from services.scheduler.sweep_calls import SweepParts
from services.scheduler.sweeps.parts import sweep_parts
from services.scheduler.verbs import Verbs
from services.scheduler.verification import Verification
from services.scheduler.watching.streams import streams_over
from tuneforge.v1 import scheduler_pb2, scheduler_pb2_grpc

MIGRATIONS = Path(__file__).parent / "migrations"
SCHEMA_HEAD = "0021"


class Work(Protocol):
    """Something that goes on for as long as the scheduler runs."""

    async def run(self) -> None:
        """Runs until it is cancelled."""


@dataclass(slots=True, kw_only=True)
class Scheduler:
    """One scheduler and its life."""

    database: Database
    ledger: Ledger
    broadcast: Broadcast
    registry: Registry
    trainers: Trainers
    reconciler: Reconciler
    holding: Holding
    foresight: Foresight
    works: tuple[Work, ...]
    """What goes on beside the loop."""
    servicer: SchedulerServicer
    leading: Leading | None = None
    """Gets the lead where other schedulers may run on the same database; None: nobody else can."""
    _loops: tuple[asyncio.Task[None], ...] = ()
    _keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Opens the database and starts the loop.

        Raises:
            StartRefused: the data folder is in use or of a newer release.
        """
        await asyncio.to_thread(self.database.open)
        if self.database.is_leading:
            await self._lead()

    async def listening(self, address: str) -> None:
        """Keeps the lead, or waits for it."""
        if self.leading is not None:
            self._keeping = asyncio.create_task(self.leading.run(address, self._lead))

    async def _lead(self) -> None:
        """Starts what only the one scheduler does that writes."""
        await self.reconciler.start()
        loops = (self.reconciler.run(), self.holding.run_for_ever(), *(work.run() for work in self.works))
        self._loops = tuple(asyncio.create_task(loop) for loop in loops)
        if self.leading is not None:
            self.leading.leads.set()

    async def drain(self) -> None:
        """Ends every watch; their tokens are good at the next start."""
        self.broadcast.drain()

    async def close(self) -> None:
        """Ends the loops and what they do, then closes the database: all that was acknowledged is in it."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self.reconciler.close()
        await self.holding.close()
        await self.ledger.settle()
        await self.trainers.close()
        await self.registry.close()
        await asyncio.to_thread(self.database.close)


def _database(settings: SchedulerSettings) -> Database:
    """Returns the scheduler's database, not yet opened."""
    return Database(
        settings.server.data / "scheduler.db",
        migrations=MIGRATIONS,
        schema_head=SCHEMA_HEAD,
        service="scheduler",
        postgres=settings.postgres,
        stands_by=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """All that a scheduler stands on and talks to; simulations give others."""

    database: Database
    """Not yet opened."""
    registry: Registry
    trainers: Trainers
    chance: random.Random
    """Source of jitter."""


def surroundings(settings: SchedulerSettings) -> Surroundings:
    """Returns the real ones, as the settings say."""
    return Surroundings(
        database=_database(settings),
        registry=Registry(settings.registry, settings.server.peers),
        trainers=Trainers(settings.server.peers),
        chance=random.Random(),  # noqa: S311 - jitter, not a secret
    )


def build(
    settings: SchedulerSettings, clock: DatabaseClock = database_clock, outside: Surroundings | None = None
) -> Scheduler:
    """Puts a scheduler together; called inside the running event loop.

    Args:
        settings: All settings.
        clock: The database's clock; tests give one that they move.
        outside: What it stands on and talks to; None: as the settings say.
    """
    outside = outside or surroundings(settings)
    database, registry, trainers = outside.database, outside.registry, outside.trainers
    broadcast = Broadcast()
    ledger = Ledger(database, broadcast, clock)
    admission = Admission(ledger=ledger, registry=registry, price=settings.price, retry=settings.retry)
    timing = settings.timing
    holding = _holding(ledger, registry, timing)
    reconciler = _reconciler(settings, outside, admission, holding)
    foresight, sweeps = _joined(reconciler, broadcast, holding, admission)
    metrics.show_lead(database)
    reusing, storing = Reusing(ledger=ledger, registry=registry), Storing(ledger)
    verbs = Verbs(ledger=ledger, admission=admission, holding=holding, reusing=reusing, storing=storing)
    jobs = _job_parts(reconciler, verbs)
    servicer = SchedulerServicer(
        Parts(
            ledger=ledger,
            verbs=verbs,
            streams=streams_over(ledger, broadcast, timing, lambda: reconciler.seen),
            nodes=reconciler.nodes,
            broadcast=broadcast,
            checkpoints=CheckpointVerbs(ledger=ledger),
            verification=reconciler.verification,
            queues=QueueVerbs(ledger=ledger, price=settings.price),
            foresight=foresight,
            sweeps=sweeps,
            jobs=jobs,
        )
    )
    return Scheduler(
        database=database,
        ledger=ledger,
        broadcast=broadcast,
        registry=registry,
        trainers=trainers,
        reconciler=reconciler,
        holding=holding,
        foresight=foresight,
        works=(
            foresight,
            sweeps.controller,
            jobs.removing,
            Compactor(ledger=ledger, jumps=reconciler.jumps, policy=settings.compaction),
        ),
        servicer=servicer,
        leading=None if settings.postgres is None else Leading(database=database, ledger=ledger),
    )


def _reconciler(
    settings: SchedulerSettings, outside: Surroundings, admission: Admission, holding: Holding
) -> Reconciler:
    """Returns the loop."""
    ledger, timing = admission.ledger, settings.timing
    registry, trainers, chance = outside.registry, outside.trainers, outside.chance
    verification = Verification(ledger=ledger, holding=holding, registry=registry)
    nodes = Nodes(ledger=ledger, timing=timing, retry=settings.retry, chance=chance)
    wake = asyncio.Event()
    return Reconciler(
        rules=Rules(ledger=ledger, trainers=trainers, timing=timing, retry=settings.retry, chance=chance),
        nodes=nodes,
        dispatch=Dispatch(ledger=ledger, trainers=trainers, timing=timing, retry=settings.retry, chance=chance),
        publishing=Publishing(ledger=ledger, registry=registry, gives_up_s=timing.publish_gives_up_s),
        releasing=Releasing(ledger=ledger, admission=admission, holding=holding),
        blob_holding=BlobHolding(ledger=ledger, registry=registry),
        verification=verification,
        order=settings.order,
        effects=Effects(timing, chance, wake.set),
        aside=PuttingAside(ledger=ledger),
        jumps=ClockJumps(ledger=ledger, ttl_ms=nodes.ttl_ms, newest=settings.compaction.newest),
        wake=wake,
    )


def _joined(
    reconciler: Reconciler, broadcast: Broadcast, holding: Holding, admission: Admission
) -> tuple[Foresight, SweepParts]:
    """Lets changes wake the loop, and `/metrics` look at it; returns what looks ahead of it, and the sweeps."""
    ledger = reconciler.rules.ledger
    foresight = Foresight(
        ledger=ledger, look=reconciler.look, last=lambda: reconciler.seen, changes=lambda: reconciler.changes
    )
    metrics.show(reconciler, broadcast, foresight)
    reconciler.nodes.poke = ledger.on_change = reconciler.poke
    ledger.on_end = holding.ended
    return foresight, sweep_parts(ledger, admission, holding, broadcast, reconciler.rules.timing)


def _job_parts(reconciler: Reconciler, verbs: Verbs) -> JobParts:
    """Returns what makes jobs from jobs, removes them, and changes many at once."""
    ledger = reconciler.rules.ledger
    removing = Removing(ledger=ledger, jumps=reconciler.jumps, every_s=reconciler.rules.timing.removal_every_s)
    bulk = Bulk(ledger=ledger, on_removed=removing.wake.set)
    return JobParts(rerun=Rerun(ledger=ledger, verbs=verbs), removing=removing, bulk=bulk)


def _holding(ledger: Ledger, registry: Registry, timing: Timing) -> Holding:
    """Returns what keeps the versions at the registry that jobs and sweeps need."""
    return Holding(
        VersionHolds(registry.channel, lambda: ledger.write(lambda tx: identity(tx.connection, "scheduler"))),
        lambda: ledger.read(lambda db: job_store.held_versions(db) | sweep_store.held_versions(db)),
        every_s=timing.holds_every_s,
        pause_s=timing.holds_pause_s,
    )


def definition_of(scheduler: Scheduler) -> ServiceDefinition:
    """Returns what `grpckit.server.serve` needs."""
    leading = scheduler.leading
    return ServiceDefinition(
        descriptor=scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"],
        add_to_server=scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server,
        servicer=scheduler.servicer if leading is None else OnlyAtTheLeader(scheduler.servicer, leading, POLICIES),
        policies=POLICIES,
        start=scheduler.start,
        ready=None if leading is None else leading.leads.wait,
        listening=scheduler.listening,
        drain=scheduler.drain,
        close=scheduler.close,
    )
