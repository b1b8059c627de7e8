"""Two scheduler processes on one PostgreSQL database: one leads, the other stands by, and nothing happens twice."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.contract.test_scheduler_process import Process, environment_for, scheduler_process
from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.fake_registry import FakeRegistry, serve_registry
from tests.support.fake_trainer import FakeTrainer, serve_trainer
from tests.support.postgres import TestDatabases
from tests.support.scheduling import tiny_spec
from tuneforge.v1 import nodes_pb2, scheduler_pb2, scheduler_pb2_grpc, watching_pb2

pytestmark = pytest.mark.postgres

JOBS = 50


def settings(databases: TestDatabases, folder: Path, registry: str) -> dict[str, str]:
    """Returns the settings of a scheduler with a data folder of its own, on the one database of the test."""
    address = databases.of("scheduler", Path("shared"))
    return environment_for(
        folder,
        registry,
        TUNEFORGE_SCHEDULER_DATABASE_URL=address.url.render_as_string(hide_password=False),
        TUNEFORGE_SCHEDULER_FLUSH_S="0.02",
    )


class Pair:
    """Scheduler processes on one database, of which some are alive."""

    def __init__(self, life: AsyncExitStack, databases: TestDatabases, folder: Path, registry: str) -> None:
        self._life = life
        self._databases = databases
        self._folder = folder
        self._registry = registry
        self.alive: list[Process] = []

    async def start(self) -> Process:
        """Starts one more."""
        folder = self._folder / f"data{random.getrandbits(32)}"
        environment = settings(self._databases, folder, self._registry)
        process = await self._life.enter_async_context(scheduler_process(environment))
        self.alive.append(process)
        return process

    async def kill(self, process: Process) -> None:
        """Ends one as hard as can be."""
        self.alive.remove(process)
        await process.kill()

    async def ask(self, method: str, request: Any) -> Any:
        """Calls whoever leads, until somebody does."""
        while True:
            for process in list(self.alive):
                async with grpc.aio.insecure_channel(process.address) as channel:
                    try:
                        return await getattr(scheduler_pb2_grpc.SchedulerServiceStub(channel), method)(request)
                    except grpc.aio.AioRpcError as error:
                        if error.code() is not grpc.StatusCode.UNAVAILABLE:
                            raise
            await asyncio.sleep(0.02)

    async def leader(self, trainer: FakeTrainer) -> Process:
        """Returns who leads: the one that takes the node's registration."""
        while True:
            for process in list(self.alive):
                try:
                    await trainer.register(process.address)
                except grpc.aio.AioRpcError:
                    continue
                return process
            await asyncio.sleep(0.02)


@on_loop
async def test_the_second_stands_by_and_takes_over(tmp_path: Path, postgres_databases: TestDatabases) -> None:
    """It answers reads and watches, refuses changes with a reason, and leads soon after the first one was killed."""
    async with AsyncExitStack() as life:
        registry = await life.enter_async_context(serve_registry(FakeRegistry()))
        trainer = await life.enter_async_context(serve_trainer(FakeTrainer()))
        pair = Pair(life, postgres_databases, tmp_path, registry.address)
        first, second = await pair.start(), await pair.start()
        channel = await life.enter_async_context(grpc.aio.insecure_channel(second.address))
        stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
        create = scheduler_pb2.CreateJobRequest(parent="projects/p", job_id="a", spec=tiny_spec())
        error = await refusal(stub.CreateJob(create), "UNAVAILABLE")
        assert error.reason == "STANDBY"
        await pair.ask("CreateJob", create)
        assert (await stub.GetJob(scheduler_pb2.GetJobRequest(name="projects/p/jobs/a"))).name
        seen: list[int] = []

        async def watch() -> None:
            async for message in stub.WatchJob(scheduler_pb2.WatchJobRequest(name="projects/p/jobs/a")):
                seen.extend(event.job_seq for event in message.events.events)

        watching = asyncio.create_task(watch())
        many: Any = stub.WatchJobs(watching_pb2.WatchJobsRequest(parent="projects/p"))
        assert (await many.read()).snapshot.jobs[0].name == "projects/p/jobs/a"
        assert await pair.leader(trainer) is first
        attempt = await trainer.started()
        await trainer.emit(attempt, 5)
        while (await many.read()).changes.changes[0].job.step < 5:
            pass
        many.cancel()
        await pair.kill(first)
        await asyncio.wait_for(pair.leader(trainer), timeout=10)
        await trainer.emit(attempt, 5)
        await trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_SUCCEEDED)
        await watching
        assert seen == list(range(1, len(seen) + 1))
        assert len(trainer.starts) == 1


@pytest.mark.heavy
@on_loop
async def test_fifty_jobs_under_kills_happen_once(tmp_path: Path, postgres_databases: TestDatabases) -> None:
    """Leaders and standbys are killed while fifty jobs run: each job has one attempt, one version and a dense log."""
    chance = random.Random(20261121)
    async with AsyncExitStack() as life:
        registry = await life.enter_async_context(serve_registry(FakeRegistry()))
        trainer = await life.enter_async_context(serve_trainer(FakeTrainer(slots=5)))
        pair = Pair(life, postgres_databases, tmp_path, registry.address)
        await pair.start()
        await pair.start()
        await pair.leader(trainer)

        async def submit() -> None:
            for number in range(JOBS):
                request = scheduler_pb2.CreateJobRequest(
                    parent="projects/p", job_id=f"j{number}", spec=tiny_spec(), request_id=f"request-{number}"
                )
                await pair.ask("CreateJob", request)

        async def train() -> None:
            for number in range(JOBS):
                await trainer.until(lambda: len(set(trainer.starts)) > number)  # noqa: B023
                attempt = trainer.held[list(dict.fromkeys(trainer.starts))[number]]
                await trainer.emit(attempt, chance.randint(1, 20))
                await trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_SUCCEEDED)

        async def kill() -> None:
            for count in (8, 20, 32, 44):
                await trainer.until(lambda: len(set(trainer.starts)) >= count)  # noqa: B023
                await pair.start()
                await pair.kill(chance.choice(pair.alive[:2]))
                await pair.leader(trainer)

        async with asyncio.TaskGroup() as group:
            group.create_task(submit())
            group.create_task(train())
            group.create_task(kill())
        for number in range(JOBS):
            numbers: list[int] = []
            token, is_over = "", False
            name = f"projects/p/jobs/j{number}"
            while not is_over:
                process = pair.alive[number % len(pair.alive)]
                async with grpc.aio.insecure_channel(process.address) as channel:
                    stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
                    async for message in stub.WatchJob(scheduler_pb2.WatchJobRequest(name=name, resume_token=token)):
                        numbers += [event.job_seq for event in message.events.events]
                        token, is_over = message.resume_token, message.end.reason == 1
            assert numbers == list(range(1, len(numbers) + 1))
        assert len(registry.published) == JOBS
        assert set(Counter(name.rpartition("/")[2] for name in trainer.held)) == {"1"}
        assert len(trainer.held) == JOBS


@pytest.mark.heavy
@on_loop
async def test_a_leader_that_hangs_loses_the_lead(tmp_path: Path, postgres_databases: TestDatabases) -> None:
    """A stopped leader is replaced within half a minute; when it goes on it changes nothing and ends itself."""
    async with AsyncExitStack() as life:
        registry = await life.enter_async_context(serve_registry(FakeRegistry()))
        trainer = await life.enter_async_context(serve_trainer(FakeTrainer()))
        pair = Pair(life, postgres_databases, tmp_path, registry.address)
        first, second = await pair.start(), await pair.start()
        assert await pair.leader(trainer) is first
        first.process.send_signal(signal.SIGSTOP)
        pair.alive.remove(first)
        assert await asyncio.wait_for(pair.leader(trainer), timeout=30) is second
        first.process.send_signal(signal.SIGCONT)
        assert await asyncio.wait_for(first.process.wait(), timeout=30) == 0
