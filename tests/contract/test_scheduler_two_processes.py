"""Two scheduler processes on one PostgreSQL database: one leads, the other stands by, and nothing happens twice."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import reduce
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.scheduler.policy import POLICIES
from tests.contract.test_scheduler_process import Process, environment_for, scheduler_process
from tests.contract.test_scheduler_sweeps import GRID, RATE, RATES, bowl, spec
from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.fake_registry import FakeRegistry, serve_registry
from tests.support.fake_trainer import FakeTrainer, serve_trainer
from tests.support.postgres import TestDatabases
from tests.support.scheduling import tiny_spec
from tests.support.trial_pilot import piloted
from tests.unit.scheduler_sweeps.spaces import plan_of
from tuneforge import Client, SweepState
from tuneforge.errors import TuneforgeError
from tuneforge.specs.wire import spec_from_proto
from tuneforge.v1 import nodes_pb2, scheduler_pb2, scheduler_pb2_grpc, sweeps_pb2

pytestmark = pytest.mark.postgres

JOBS = 50
SERVICE = "tuneforge.v1.SchedulerService"
TINY = spec_from_proto(tiny_spec())


def settings(databases: TestDatabases, folder: Path, registry: str) -> dict[str, str]:
    """Returns the settings of a scheduler with a data folder of its own, on the one database of the test."""
    address = databases.of("scheduler", Path("shared"))
    return environment_for(
        folder,
        registry,
        TUNEFORGE_SCHEDULER_DATABASE_URL=address.url.render_as_string(hide_password=False),
        TUNEFORGE_SCHEDULER_FLUSH_S="0.02",
        TUNEFORGE_SCHEDULER_METRICS_LISTEN="127.0.0.1:0",
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

    def client(self) -> Client:
        """Returns a client that is given the addresses of all that are alive, the newest first."""
        return Client(scheduler=",".join(process.address for process in reversed(self.alive)), project="p")

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


def watched(client: Client, job: str) -> list[int]:
    """Returns the numbers of a job's events, from its first to its last one."""
    return [event.job_seq for event in client.jobs.get(job).watch()]


async def refused(process: Process, name: str) -> TuneforgeError:
    """Calls any method, as it must not be answered by one that stands by."""
    method = scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"].methods_by_name[name]
    request: Any = GetMessageClass(method.input_type)()
    if POLICIES[name].project_from:  # who may call is looked at first
        *parents, field = str(POLICIES[name].project_from).split(".")
        setattr(reduce(getattr, parents, request), field, "projects/p/x")

    async def requests() -> AsyncIterator[Any]:
        yield request

    async with grpc.aio.insecure_channel(process.address) as channel:
        call = getattr(scheduler_pb2_grpc.SchedulerServiceStub(channel), name)
        answer = call(requests() if method.client_streaming else request)
        return await refusal(answer.read() if method.server_streaming else answer, "UNAVAILABLE")


async def health(process: Process, service: str) -> str:
    """Returns the name of a service's health."""
    async with grpc.aio.insecure_channel(process.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


async def is_leader(process: Process) -> str:
    """Returns what `/metrics` says of the lead."""
    with await asyncio.to_thread(urllib.request.urlopen, f"http://{process.metrics}/metrics") as page:
        lines = page.read().decode().splitlines()
    return next(str(line.split()[1]) for line in lines if line.startswith("tuneforge_scheduler_is_leader "))


async def assert_tells_who_leads(standby: Process, leader: Process) -> None:
    """Fails unless one refuses every method, also those that only read, with the other one's address."""
    while not (await refused(standby, "GetJob")).metadata:
        pass  # until the leader has said its address, and the other one has read it
    for name in POLICIES:
        error = await refused(standby, name)
        assert (error.reason, error.metadata) == ("STANDBY", {"leader": leader.address}), name
        assert leader.address in error.message


async def assert_found_by_grpc_alone(*processes: Process) -> None:
    """Fails unless gRPC's own health check leads a client that knows nothing of us to the leader, each time."""
    config = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": SERVICE}}
    target = "ipv4:" + ",".join(process.address for process in processes)
    async with grpc.aio.insecure_channel(target, options=[("grpc.service_config", json.dumps(config))]) as channel:
        stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
        for _ in range(4):
            await stub.ListNodes(scheduler_pb2.ListNodesRequest())


async def until_serving(process: Process) -> None:
    """Waits until a process says that it answers."""
    async with grpc.aio.insecure_channel(process.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        stream = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        while (await stream.read()).status != health_pb2.HealthCheckResponse.SERVING:
            pass


@on_loop
async def test_the_second_stands_by_and_takes_over(tmp_path: Path, postgres_databases: TestDatabases) -> None:
    """One that stands by answers nothing but who leads, and says so to probes; then it leads, and a job runs on.

    The job goes on in the same attempt, and a watcher that knows both addresses sees all of it in order.
    """
    async with AsyncExitStack() as life:
        registry = await life.enter_async_context(serve_registry(FakeRegistry()))
        trainer = await life.enter_async_context(serve_trainer(FakeTrainer()))
        pair = Pair(life, postgres_databases, tmp_path, registry.address)
        first, second = await pair.start(), await pair.start()
        await assert_tells_who_leads(second, first)
        assert [await health(each, SERVICE) for each in (first, second)] == ["SERVING", "NOT_SERVING"]
        assert [await health(each, "") for each in (first, second)] == ["SERVING", "SERVING"]
        assert [await is_leader(each) for each in (first, second)] == ["1.0", "0.0"]
        await assert_found_by_grpc_alone(second, first)
        client = life.enter_context(pair.client())
        await asyncio.to_thread(client.jobs.create, TINY, job_id="a")
        watching = asyncio.create_task(asyncio.to_thread(watched, client, "a"))
        assert await pair.leader(trainer) is first
        attempt = await trainer.started()
        await trainer.emit(attempt, 5)
        await trainer.until(lambda: 5 in attempt.acks)
        await pair.kill(first)
        await asyncio.wait_for(until_serving(second), timeout=10)
        assert await is_leader(second) == "1.0"
        assert await pair.leader(trainer) is second
        await trainer.emit(attempt, 5)
        await trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_SUCCEEDED)
        assert await watching == list(range(1, len(attempt.events) + 6))
        assert len(trainer.starts) == len(registry.published) == 1


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
        submitted = asyncio.Event()

        async def submit() -> None:
            for number in range(JOBS):
                with pair.client() as client:
                    await asyncio.to_thread(client.jobs.create, TINY, job_id=f"j{number}")
                submitted.set()

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
                if not submitting.done():  # the client of now was not given the address of the newcomer, who may lead
                    submitted.clear()
                    await submitted.wait()
                await pair.kill(chance.choice(pair.alive[:2]))
                await pair.leader(trainer)

        async with asyncio.TaskGroup() as group:
            submitting = group.create_task(submit())
            group.create_task(train())
            group.create_task(kill())
        with pair.client() as client:
            for number in range(JOBS):
                numbers = await asyncio.to_thread(watched, client, f"j{number}")
                assert numbers == list(range(1, len(numbers) + 1))
        assert len(registry.published) == JOBS
        assert set(Counter(name.rpartition("/")[2] for name in trainer.held)) == {"1"}
        assert len(trainer.held) == JOBS


@pytest.mark.heavy
@on_loop
async def test_a_leader_that_hangs_loses_the_lead(tmp_path: Path, postgres_databases: TestDatabases) -> None:
    """A stopped leader is replaced within half a minute; when it goes on it changes nothing and ends itself.

    The job that ran goes on in its attempt, and a watcher who was at the stopped one misses nothing.
    """
    async with AsyncExitStack() as life:
        registry = await life.enter_async_context(serve_registry(FakeRegistry()))
        trainer = await life.enter_async_context(serve_trainer(FakeTrainer()))
        pair = Pair(life, postgres_databases, tmp_path, registry.address)
        first, second = await pair.start(), await pair.start()
        assert await pair.leader(trainer) is first
        client = life.enter_context(pair.client())
        await asyncio.to_thread(client.jobs.create, TINY, job_id="a")
        watching = asyncio.create_task(asyncio.to_thread(watched, client, "a"))
        attempt = await trainer.started()
        await trainer.emit(attempt, 5)
        await trainer.until(lambda: 5 in attempt.acks)
        first.process.send_signal(signal.SIGSTOP)
        pair.alive.remove(first)
        assert await asyncio.wait_for(pair.leader(trainer), timeout=30) is second
        await trainer.emit(attempt, 5)
        first.process.send_signal(signal.SIGCONT)
        assert await asyncio.wait_for(first.process.wait(), timeout=30) == 0
        await trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_SUCCEEDED)
        seen = await watching
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) >= len(attempt.events) + 5  # and that the node was silent for a while
        assert len(trainer.starts) == len(registry.published) == 1


@pytest.mark.heavy
@on_loop
async def test_a_sweep_outlives_its_leader(tmp_path: Path, postgres_databases: TestDatabases) -> None:
    """The leader is killed while two trials run and one waits: each point is trained once, and the best one found."""
    async with AsyncExitStack() as life:
        registry = await life.enter_async_context(serve_registry(FakeRegistry()))
        trainer = await life.enter_async_context(serve_trainer(FakeTrainer(slots=2)))
        gate = asyncio.Event()
        pilot = await life.enter_async_context(piloted(trainer, bowl, evaluations=2, gate=gate))
        pair = Pair(life, postgres_databases, tmp_path, registry.address)
        first = await pair.start()
        await pair.start()
        async with grpc.aio.insecure_channel(first.address) as channel:
            plan = plan_of(RATES, 3, algorithm=GRID, parallel_trials=2)
            request = sweeps_pb2.CreateSweepRequest(parent="projects/p", sweep_id="s", spec=spec(), plan=plan)
            await scheduler_pb2_grpc.SchedulerServiceStub(channel).CreateSweep(request)
        client = life.enter_context(pair.client())
        watching = asyncio.create_task(asyncio.to_thread(lambda: list(client.sweeps.watch("s"))))
        assert await pair.leader(trainer) is first
        await trainer.until(lambda: len(pilot.steps) == 2)
        await pair.kill(first)
        gate.set()
        await asyncio.wait_for(pair.leader(trainer), timeout=10)
        sweep, _ = (await watching)[-1]
        assert sweep.state is SweepState.SUCCEEDED
        assert sweep.best is not None
        assert sweep.best.parameters[RATE] == 1e-3
        assert Counter(name.rpartition("/")[2] for name in trainer.held) == {"1": 3}
        assert sorted(each.optimization.learning_rate for each in pilot.specs) == [1e-4, 1e-3, 1e-2]
        assert len(registry.published) == 3
