"""A thousand watchers of live jobs at one scheduler, slow ones among them, beside two hundred that watch all jobs.

The scheduler is a process of its own; nodes and registry are played by this one, which knows when each step was told.
Late = arrival at a watcher minus that moment, so it holds the way from the node through the database to the watcher.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil

from tests.support.fake_registry import FakeRegistry, serve_registry
from tests.support.fake_trainer import FakeTrainer, HeldAttempt, serve_trainer
from tests.support.scheduling import tiny_spec
from tuneforge.v1 import nodes_pb2, scheduler_pb2, watching_pb2
from tuneforge.v1.scheduler_pb2_grpc import SchedulerServiceStub

JOBS = 10
WATCHERS = 1000
SLOW = 50
"""Watchers that take a second and a half over each message, among the others."""
OF_ALL = 200
"""Watchers of all jobs, beside them."""
STEPS = 25
STEP_S = 1.0
CHANNELS = 20


@dataclass(slots=True)
class Seen:
    """What the watchers saw."""

    late_s: list[float] = field(default_factory=list)
    """Lateness of each step at each watcher of a job that is not slow."""
    late_all_s: list[float] = field(default_factory=list)
    """The same of the newest step in each message at each watcher of all jobs."""
    gaps: int = 0
    repeats: int = 0
    incomplete: int = 0
    """Watchers that did not see the last step."""
    slow_complete: int = 0
    """Slow watchers that have seen every event."""
    told: dict[tuple[str, int], float] = field(default_factory=dict)
    """When a step of a job was told by its node."""
    rss_mb: float = 0.0
    """Largest resident memory of the scheduler."""


def run_many() -> dict[str, float]:
    """Runs it once and returns the figures."""
    return asyncio.run(_run())


async def _run() -> dict[str, float]:
    seen = Seen()
    async with AsyncExitStack() as life:
        folder = Path(life.enter_context(tempfile.TemporaryDirectory()))
        registry = await life.enter_async_context(serve_registry(FakeRegistry()))
        trainer = await life.enter_async_context(serve_trainer(FakeTrainer(slots=JOBS)))
        process, address = await _scheduler(life, folder, registry.address)
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await life.enter_async_context(grpc.aio.insecure_channel(address, options=options)) for _ in range(CHANNELS)
        ]
        stubs = [SchedulerServiceStub(channel) for channel in channels]
        await trainer.register(address)
        names = [f"projects/p/jobs/j{number}" for number in range(JOBS)]
        for name in names:
            job_id = name.rpartition("/")[2]
            await stubs[0].CreateJob(
                scheduler_pb2.CreateJobRequest(parent="projects/p", job_id=job_id, spec=tiny_spec())
            )
        await trainer.until(lambda: len(trainer.held) == JOBS)
        idle_mb = _rss_mb(process)
        watchers = [
            asyncio.create_task(_watch(stubs[number % CHANNELS], names[number % JOBS], seen, is_slow=number < SLOW))
            for number in range(WATCHERS)
        ]
        of_all = [asyncio.create_task(_watch_all(stubs[number % CHANNELS], seen)) for number in range(OF_ALL)]
        beating = asyncio.create_task(_beat(trainer, address))
        await asyncio.sleep(5.0)  # all streams are open; what is measured is the steady state
        await asyncio.gather(*(_train(trainer, attempt, seen, process) for attempt in list(trainer.held.values())))
        await asyncio.gather(*watchers)
        for task in (*of_all, beating):
            task.cancel()
        await asyncio.gather(*of_all, beating, return_exceptions=True)
    return {
        "many_watchers": WATCHERS,
        "many_slow_watchers": SLOW,
        "many_jobs": JOBS,
        "many_p50_ms": statistics.median(seen.late_s) * 1e3,
        "many_p99_ms": _quantile(seen.late_s) * 1e3,
        "many_gaps": seen.gaps,
        "many_repeats": seen.repeats,
        "many_incomplete": seen.incomplete,
        "many_slow_complete": seen.slow_complete,
        "many_of_all": OF_ALL,
        "many_of_all_p99_ms": _quantile(seen.late_all_s) * 1e3,
        "many_rss_mb": seen.rss_mb,
        "many_rss_before_mb": idle_mb,
    }


async def _scheduler(life: AsyncExitStack, folder: Path, registry: str) -> tuple[psutil.Process, str]:
    environment = {
        "TUNEFORGE_DATA": str(folder / "data"),
        "TUNEFORGE_SCHEDULER_LISTEN": "127.0.0.1:0",
        "TUNEFORGE_SCHEDULER_METRICS_LISTEN": "",
        "TUNEFORGE_REGISTRY_ADDRESS": registry,
        "TUNEFORGE_LOG_LEVEL": "warning",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.scheduler", env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()

    async def end() -> None:
        process.terminate()
        await process.wait()

    life.push_async_callback(end)
    return psutil.Process(process.pid), line.split()[4]


async def _beat(trainer: FakeTrainer, address: str) -> None:
    while True:
        await trainer.beat(address)
        await asyncio.sleep(2.0)


async def _train(trainer: FakeTrainer, attempt: HeldAttempt, seen: Seen, process: psutil.Process) -> None:
    name = attempt.request.name.rpartition("/attempts/")[0]
    await asyncio.sleep(STEP_S * int(name.rpartition("/j")[2]) / JOBS)  # jobs are not in step with each other
    for step in range(1, STEPS + 1):
        seen.told[name, step] = time.monotonic()
        await trainer.emit(attempt)
        seen.rss_mb = max(seen.rss_mb, _rss_mb(process))
        await asyncio.sleep(STEP_S)
    await trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_SUCCEEDED)


async def _watch(stub: SchedulerServiceStub, name: str, seen: Seen, *, is_slow: bool) -> None:
    expected, last_step, token = 1, 0, ""
    async for message in stub.WatchJob(scheduler_pb2.WatchJobRequest(name=name, resume_token=token)):  # type: ignore[attr-defined]
        now = time.monotonic()
        for event in message.events.events:
            seen.gaps += event.job_seq > expected
            seen.repeats += event.job_seq < expected
            expected = event.job_seq + 1
            if event.HasField("step"):
                last_step = event.step.step
                if not is_slow:
                    seen.late_s.append(now - seen.told[name, last_step])
        if is_slow and message.HasField("events"):
            await asyncio.sleep(1.5)
    seen.incomplete += last_step != STEPS
    seen.slow_complete += is_slow and last_step == STEPS


async def _watch_all(stub: SchedulerServiceStub, seen: Seen) -> None:
    known: dict[str, int] = {}
    async for message in stub.WatchJobs(watching_pb2.WatchJobsRequest(parent="projects/p")):  # type: ignore[attr-defined]
        now = time.monotonic()
        for change in message.changes.changes:
            job = change.job
            seen.repeats += job.latest_job_seq <= known.get(job.name, 0)
            known[job.name] = job.latest_job_seq
            if change.kind == watching_pb2.JOB_CHANGE_KIND_CHANGED and (job.name, job.step) in seen.told:
                seen.late_all_s.append(now - seen.told[job.name, job.step])


def _rss_mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


def _quantile(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
