"""The scheduler as a process: cold start, kill -9 in the middle of a run, and starts that must be refused."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from tests.support.event_loop import on_loop
from tests.support.fake_registry import FakeRegistry, serve_registry
from tests.support.fake_trainer import FakeTrainer, serve_trainer
from tests.support.scheduling import tiny_spec
from tuneforge.v1 import nodes_pb2, scheduler_pb2, scheduler_pb2_grpc

ROOT = Path(__file__).parents[2]


class Process:
    """A scheduler in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, address: str, metrics: str) -> None:
        self.process = process
        self.address = address
        self.metrics = metrics

    async def kill(self) -> None:
        """Ends it as hard as can be."""
        self.process.kill()
        await self.process.wait()


async def launch(environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Starts a scheduler."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.scheduler", cwd=ROOT, env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


def environment_for(folder: Path, registry: str, **more: str) -> dict[str, str]:
    """Returns the settings of a scheduler on a free port."""
    return {
        "TUNEFORGE_DATA": str(folder),
        "TUNEFORGE_SCHEDULER_LISTEN": "127.0.0.1:0",
        "TUNEFORGE_SCHEDULER_METRICS_LISTEN": "",
        # Fake nodes do not go on sending heartbeats: however long a test takes, they are not to be missed.
        "TUNEFORGE_SCHEDULER_LEASE_TTL_S": "600",
        "TUNEFORGE_REGISTRY_ADDRESS": registry,
        **more,
    }


@asynccontextmanager
async def scheduler_process(environment: Mapping[str, str]) -> AsyncIterator[Process]:
    """Runs a scheduler while the block runs."""
    process = await launch(environment)
    assert process.stdout is not None
    assert process.stderr is not None
    line = (await process.stdout.readline()).decode()
    assert "listening on " in line, (await process.stderr.read()).decode()
    reading = asyncio.create_task(process.stderr.read())
    try:
        yield Process(process, line.split()[4], line.split()[-1])
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()
        await reading


@on_loop
async def test_killed_scheduler_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """After kill -9 in the middle of a run the next start goes on: each event once, one attempt, one version."""
    async with serve_registry(FakeRegistry()) as registry, serve_trainer(FakeTrainer()) as trainer:
        environment = environment_for(tmp_path, registry.address)
        seen: list[int] = []
        token = ""
        for life in range(3):
            async with (
                scheduler_process(environment) as scheduler,
                grpc.aio.insecure_channel(scheduler.address) as channel,
            ):
                stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
                if life == 0:
                    await trainer.register(scheduler.address)
                    request = scheduler_pb2.CreateJobRequest(parent="projects/p", job_id="j1", spec=tiny_spec())
                    await stub.CreateJob(request)
                    attempt = await trainer.started()
                else:
                    await trainer.beat(scheduler.address)
                await trainer.emit(attempt, 20)
                if life == 2:
                    await trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_SUCCEEDED)
                enough = len(seen) + 10
                watch = stub.WatchJob(scheduler_pb2.WatchJobRequest(name="projects/p/jobs/j1", resume_token=token))
                async for message in watch:
                    seen += [event.job_seq for event in message.events.events]
                    token = message.resume_token
                    if life < 2 and len(seen) >= enough:
                        break
                watch.cancel()
                if life < 2:
                    await scheduler.kill()
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) == len(attempt.events) + 5
        assert len(trainer.starts) == 1
        assert len(registry.published) == 1


@on_loop
async def test_second_process_on_the_folder_is_refused(tmp_path: Path) -> None:
    """A second scheduler over the same data folder exits 78 with one clear line; so does one with wrong settings."""
    environment = environment_for(tmp_path, "127.0.0.1:1")
    async with scheduler_process(environment):
        second = await launch(environment)
        _, errors = await second.communicate()
        assert second.returncode == 78
        assert "is in use by process" in errors.decode()
        assert "Traceback" not in errors.decode()
    third = await launch(environment_for(tmp_path, "127.0.0.1:1", TUNEFORGE_SCHEDULER_LEASE_TTL_S="soon"))
    _, errors = await third.communicate()
    assert third.returncode == 78
    assert "TUNEFORGE_SCHEDULER_LEASE_TTL_S" in errors.decode()


@on_loop
async def test_scheduler_starts_without_torch(tmp_path: Path) -> None:
    """Importing the whole service imports neither torch nor transformers, and no migration tool."""
    program = (
        "import sys, services.scheduler.__main__\n"
        "found = {'torch', 'transformers', 'alembic', 'peft', 'tokenizers'} & set(sys.modules)\n"
        "sys.exit(repr(found) if found else 0)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=ROOT)
    assert await process.wait() == 0
