"""A real scheduler over a data folder beside a fake registry and fake nodes, with a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
from sqlalchemy import Connection

from services.grpckit.server import Server
from services.grpckit.settings import ServerSettings
from services.grpckit.testing import running_server
from services.scheduler.jobs import RetryPolicy
from services.scheduler.queue_view import QueueView
from services.scheduler.queues.budgets import NO_PRICE, Price
from services.scheduler.records import ActiveJob
from services.scheduler.service import Scheduler, build, definition_of
from services.scheduler.settings import SchedulerSettings, Timing
from services.scheduler.store import active
from tests.support.fake_registry import BASE, DATA, FakeRegistry, serve_registry
from tests.support.fake_trainer import FakeTrainer, serve_trainer
from tests.support.postgres import postgres_of
from tuneforge.v1 import events_pb2, jobs_pb2, scheduler_pb2, scheduler_pb2_grpc, spec_pb2

FAST = Timing(
    flush_s=0.01,
    longest_tick_s=0.05,
    retry_first_s=0.01,
    retry_longest_s=0.05,
    stop_again_s=0.05,
    holds_pause_s=0.01,
    removal_every_s=0.05,
    watch_heartbeat_s=5.0,
)
"""Waits that a test does not notice."""


@dataclass
class Clock:
    """The database's clock, moved by hand; in milliseconds."""

    now_ms: int = 1_000_000
    steady_ms: int = 0
    """What the steady clock beside it has come by."""

    def __call__(self, _: Connection) -> int:
        """Returns the time."""
        return self.now_ms

    def advance(self, seconds: float) -> None:
        """Moves the time on."""
        self.now_ms += round(seconds * 1000)
        self.steady_ms += round(seconds * 1000)

    def jump(self, seconds: float) -> None:
        """Sets the clock to another time, while none goes by."""
        self.now_ms += round(seconds * 1000)


def tiny_spec(**changes: Any) -> spec_pb2.TrainingSpec:
    """Returns a spec that the fake registry can serve."""
    spec = spec_pb2.TrainingSpec(
        base=spec_pb2.BaseModel(model=BASE),
        supervised=spec_pb2.SupervisedTask(),
        lora=spec_pb2.LoraMethod(rank=4),
        data=spec_pb2.DataConfig(train=spec_pb2.DataSource(dataset=DATA), max_tokens=128),
    )
    spec.MergeFrom(spec_pb2.TrainingSpec(**changes))
    return spec


class CheckedView(QueueView):
    """A view of the queue that compares each look with a fresh one."""

    def __init__(self) -> None:
        super().__init__()
        self.differences: list[tuple[tuple[ActiveJob, ...], tuple[ActiveJob, ...]]] = []
        """What was kept and what was there, where they were not the same."""

    def look(self, connection: Connection, now_ms: int) -> tuple[ActiveJob, ...]:
        """Looks, and notes a difference."""
        kept, fresh = super().look(connection, now_ms), tuple(active.all_jobs(connection, {}))
        if kept != fresh:
            self.differences.append((kept, fresh))
        return kept


@dataclass
class Stage:
    """All that a test of the scheduler plays with."""

    folder: Path
    registry: FakeRegistry
    trainer: FakeTrainer
    clock: Clock = field(default_factory=Clock)
    timing: Timing = FAST
    tokens_file: Path | None = None
    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(first_delay_s=0.0))
    price: Price = NO_PRICE
    scheduler: Scheduler | None = None
    server: Server | None = None
    view: CheckedView = field(default_factory=CheckedView)
    up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while calls can be made."""
    _life: AsyncExitStack = field(default_factory=AsyncExitStack)
    _channel: grpc.aio.Channel | None = None

    @property
    def address(self) -> str:
        """Where the scheduler listens."""
        assert self.server is not None
        return self.server.address

    async def start(self) -> None:
        """Starts the scheduler over the folder."""
        server = ServerSettings(
            service="scheduler",
            listen="127.0.0.1:0",
            data=self.folder,
            drain_s=30.0,
            tokens_file=self.tokens_file,
        )
        settings = SchedulerSettings(
            server=server,
            registry=self.registry.address,
            postgres=postgres_of("scheduler", self.folder),
            timing=self.timing,
            retry=self.retry,
            price=self.price,
        )
        self._life = AsyncExitStack()
        self.scheduler = build(settings, self.clock)
        self.scheduler.reconciler.view = self.view = CheckedView()
        self.scheduler.reconciler.jumps.steady = lambda: self.clock.steady_ms / 1000
        self.server = await self._life.enter_async_context(
            running_server(definition_of(self.scheduler), settings.server)
        )
        self._channel = grpc.aio.insecure_channel(self.address)
        self.stub = scheduler_pb2_grpc.SchedulerServiceStub(self._channel)
        self.up.set()

    async def stop(self) -> None:
        """Stops the scheduler as SIGTERM does; open streams see it end."""
        self.up.clear()
        await self._life.aclose()
        if self._channel is not None:
            await self._channel.close(grace=5.0)  # what the scheduler said last is still read
        assert self.view.differences == [], "a job was changed without `changes.stamp` or `changes.touch`"

    async def restart(self) -> None:
        """Stops the scheduler and starts another one over the same folder."""
        await self.stop()
        await self.start()

    async def create(self, job_id: str = "j1", **fields: Any) -> jobs_pb2.Job:
        """Creates a job."""
        spec = fields.pop("spec", None) or tiny_spec()
        request = scheduler_pb2.CreateJobRequest(parent="projects/p", job_id=job_id, spec=spec, **fields)
        return await self.stub.CreateJob(request)

    async def get(self, job_id: str = "j1") -> jobs_pb2.Job:
        """Returns a job."""
        return await self.stub.GetJob(scheduler_pb2.GetJobRequest(name=f"projects/p/jobs/{job_id}"))

    async def stored(self, job_id: str = "j1") -> jobs_pb2.Job:
        """Returns a job without its forecast, which comes at some moment and is part of no change."""
        job = await self.get(job_id)
        job.ClearField("forecast")
        return job

    async def cancel(self, job_id: str = "j1", **fields: Any) -> jobs_pb2.Job:
        """Cancels a job."""
        return await self.stub.CancelJob(scheduler_pb2.CancelJobRequest(name=f"projects/p/jobs/{job_id}", **fields))

    async def pause(self, job_id: str = "j1", **fields: Any) -> jobs_pb2.Job:
        """Pauses a job."""
        return await self.stub.PauseJob(scheduler_pb2.PauseJobRequest(name=f"projects/p/jobs/{job_id}", **fields))

    async def resume(self, job_id: str = "j1", **fields: Any) -> jobs_pb2.Job:
        """Resumes a job."""
        return await self.stub.ResumeJob(scheduler_pb2.ResumeJobRequest(name=f"projects/p/jobs/{job_id}", **fields))

    def watch(self, job_id: str = "j1", token: str = "", max_batch: int = 0) -> Any:
        """Opens a watch."""
        request = scheduler_pb2.WatchJobRequest(
            name=f"projects/p/jobs/{job_id}", resume_token=token, max_batch=max_batch
        )
        return self.stub.WatchJob(request)

    async def until_state(self, state: str, job_id: str = "j1") -> jobs_pb2.Job:
        """Waits, by watching, until a job has been in a state."""
        async for event in self.events(job_id):
            if event.WhichOneof("payload") == "state" and event.state.to == state:
                return await self.get(job_id)
        raise AssertionError(f"{job_id} ended without {state}")

    async def events(self, job_id: str = "j1") -> AsyncIterator[events_pb2.Event]:
        """Yields the events of one watch."""
        stream = self.watch(job_id)
        try:
            async for message in stream:
                for event in message.events.events:
                    yield event
        finally:
            stream.cancel()

    async def all_events(self, job_id: str = "j1") -> list[events_pb2.Event]:
        """Returns all events of a job that has ended or ends."""
        return [event async for event in self.events(job_id)]


@asynccontextmanager
async def staged(folder: Path, **fields: Any) -> AsyncIterator[Stage]:
    """Serves registry, node and scheduler while the block runs; the node is not registered yet."""
    trainer_fields = fields.pop("trainer", {})
    async with serve_registry(FakeRegistry()) as registry, serve_trainer(FakeTrainer(**trainer_fields)) as trainer:
        stage = Stage(folder=folder, registry=registry, trainer=trainer, **fields)
        await stage.start()
        try:
            yield stage
        finally:
            await stage.stop()


def with_timing(**changes: float) -> Timing:
    """Returns the fast timing with changes."""
    return replace(FAST, **changes)
