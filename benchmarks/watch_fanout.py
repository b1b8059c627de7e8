"""How late events reach many watchers of one job, beside as many clients that poll once a second.

Ours: `WatchJob` streams; late = arrival minus the event's own time, for each step event at each watcher. Peer: `GetJob`
once a second, as clients of a service without streams do; late = the poll that shows a step minus the step's time. Both
on the same kind of run, one after the other, rounds alternating. Equal work: each watcher and each poller has seen the
last step, and each watcher every event once. Then a thousand watchers at once (`watch_thousand.py`), in the details.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from benchmarks.record import Record
from benchmarks.watch_thousand import run_many
from services.launcher import SERVICES, Suite
from services.stores.ports import free_ports
from tests.support.tiny_model import make_tiny_model, write_rows
from tuneforge import Client, JobHandle
from tuneforge.v1 import scheduler_pb2
from tuneforge.v1.scheduler_pb2_grpc import SchedulerServiceStub

if TYPE_CHECKING:
    from tuneforge.v1.scheduler_pb2_grpc import SchedulerServiceAsyncStub

READERS = 50
ROUNDS = 2
STEPS = 60
ROWS_PER_STEP = 64  # steps of about a quarter of a second, quicker than those of most real runs
POLL_S = 1.0
TARGET_RATIO = 10.0


@dataclass(slots=True)
class Round:
    """What the readers of one run saw."""

    late_s: list[float] = field(default_factory=list)
    """Lateness of each step at each reader."""
    complete: bool = True
    """Every reader saw all that it could."""
    unary_s: list[float] = field(default_factory=list)
    """How long each poll took."""


def run() -> Record:
    """Runs the rounds and returns the record."""
    with tempfile.TemporaryDirectory() as folder:
        ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        suite = Suite(data=Path(folder) / "data", ports=ports, metrics=False)
        try:
            suite.start("registry", "scheduler", "trainer")
            registry, scheduler, trainer, inference = map(suite.address, SERVICES)
            with Client(registry=registry, scheduler=scheduler, trainer=trainer, inference=inference) as client:
                model = make_tiny_model(Path(folder) / "model", layers=4, hidden=256)
                client.models.import_folder(model, "small")
                client.datasets.upload(write_rows(Path(folder) / "rows.jsonl", 64), "animals")
                _job(client, "warm-up").result(timeout_s=300)
                watched, polled = Round(), Round()
                for number in range(ROUNDS):
                    asyncio.run(_watchers(scheduler, _job(client, f"watched-{number}").name, watched))
                    asyncio.run(_pollers(scheduler, _job(client, f"polled-{number}").name, polled))
        finally:
            suite.stop()
    return _record(watched, polled, run_many())


def _job(client: Client, job_id: str) -> JobHandle:
    spec = {
        "base": {"model": "small/1"},
        "supervised": {},
        "lora": {"rank": 4},
        "data": {"train": {"dataset": "animals"}},
        "optimization": {"maxSteps": STEPS, "rowsPerStep": ROWS_PER_STEP},
        "checkpointing": {"everySteps": 0},
    }
    return client.jobs.create(spec, job_id=job_id)


async def _watchers(address: str, name: str, found: Round) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = SchedulerServiceStub(channel)
        await asyncio.gather(*(_watch(stub, name, found) for _ in range(READERS)))


async def _watch(stub: SchedulerServiceAsyncStub, name: str, found: Round) -> None:
    expected, last_step = 1, 0
    async for message in stub.WatchJob(scheduler_pb2.WatchJobRequest(name=name)):
        now = time.time()
        for event in message.events.events:
            found.complete &= event.job_seq == expected
            expected += 1
            if event.HasField("step"):
                last_step = event.step.step
                found.late_s.append(now - event.time.ToNanoseconds() / 1e9)
    found.complete &= last_step == STEPS


async def _pollers(address: str, name: str, found: Round) -> None:
    """Polls beside one watcher, which tells when each step was really made."""
    made: dict[int, float] = {}
    seen: list[tuple[int, float]] = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = SchedulerServiceStub(channel)

        async def clock() -> None:
            async for message in stub.WatchJob(scheduler_pb2.WatchJobRequest(name=name)):
                for event in message.events.events:
                    if event.HasField("step"):
                        made[event.step.step] = event.time.ToNanoseconds() / 1e9

        async def poll() -> None:
            await asyncio.sleep(random.random() * POLL_S)  # pollers are not in step with each other
            shown = 0
            while shown < STEPS:
                began = time.monotonic()
                job = await stub.GetJob(scheduler_pb2.GetJobRequest(name=name))
                found.unary_s.append(time.monotonic() - began)
                now = time.time()
                seen.extend((step, now) for step in range(shown + 1, int(job.step) + 1))
                shown = int(job.step)
                await asyncio.sleep(max(0.0, POLL_S - (time.monotonic() - began)))

        await asyncio.gather(clock(), *(poll() for _ in range(READERS)))
    found.complete &= len(seen) == READERS * STEPS and len(made) == STEPS
    found.late_s.extend(now - made[step] for step, now in seen)


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _record(watched: Round, polled: Round, many: dict[str, float]) -> Record:
    ours, peer = _quantile(watched.late_s, 0.99), _quantile(polled.late_s, 0.99)
    return Record(
        name="watch_fanout",
        what=f"99th percentile of how late a step reaches each of {READERS} watchers of one job",
        ours=ours * 1e3,
        peer=peer * 1e3,
        peer_name=f"{READERS} clients that poll GetJob once a second",
        ratio=peer / ours,
        target=TARGET_RATIO,
        limit=statistics.median(polled.unary_s) * 1e3,
        unit="ms",
        equal_output=watched.complete
        and polled.complete
        and not many["many_gaps"] + many["many_repeats"] + many["many_incomplete"],
        command="make bench NAME=watch_fanout",
        details={
            "readers": READERS,
            "rounds": ROUNDS,
            "steps": STEPS,
            "ours_p50_ms": statistics.median(watched.late_s) * 1e3,
            "peer_p50_ms": statistics.median(polled.late_s) * 1e3,
            "ours_samples": len(watched.late_s),
            **many,
        },
    )
