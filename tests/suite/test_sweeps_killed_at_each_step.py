"""A scheduler that is killed before and after each of its commits while a sweep runs: nothing is lost or done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import pytest

from services.stores.ports import free_ports
from tests.contract.test_scheduler_sweeps import GRID, NAME, RATES, bowl, spec
from tests.support.event_loop import on_loop
from tests.support.fake_registry import FakeRegistry, serve_registry
from tests.support.fake_trainer import FakeTrainer, serve_trainer
from tests.support.killed_at import Mortal, killed_at
from tests.support.patience import WAIT_LIMIT_S
from tests.support.trial_pilot import piloted
from tests.unit.scheduler_sweeps.spaces import plan_of
from tuneforge.v1 import jobs_pb2, scheduler_pb2, scheduler_pb2_grpc, sweeps_pb2

pytestmark = pytest.mark.heavy


class Schedulers:
    """Schedulers one after the other, each in a process of its own, over one folder, on one port."""

    def __init__(self, folder: Path, registry: str) -> None:
        self.address = f"127.0.0.1:{free_ports(1)[0]}"
        self._folder = folder
        self._settings = {
            "TUNEFORGE_SCHEDULER_LISTEN": self.address,
            "TUNEFORGE_DATA": str(folder),
            "TUNEFORGE_REGISTRY_ADDRESS": registry,
            "TUNEFORGE_SCHEDULER_METRICS_LISTEN": "",
        }

    def started(self, kill_at: int) -> AbstractContextManager[Mortal]:
        """Runs one; it kills itself at its n-th step on disk once it was told to count; 0: never."""
        return killed_at(kill_at, "services.scheduler", self._settings, self._folder / "scheduler.log")


async def beats(trainer: FakeTrainer, address: str) -> None:
    """Keeps the node registered at whichever process answers."""
    while True:
        try:
            await trainer.register(address)
            await trainer.beat(address)
        except (grpc.aio.AioRpcError, AssertionError):
            pass
        await asyncio.sleep(0.2)


@on_loop
async def test_a_sweep_survives_a_kill_at_every_step(tmp_path: Path) -> None:
    """Each start is killed a few steps later than the one before, until a start comes to the end of the sweep."""
    async with serve_registry(FakeRegistry()) as registry, serve_trainer(FakeTrainer()) as trainer:
        schedulers = Schedulers(tmp_path, registry.address)
        async with (
            piloted(trainer, bowl, evaluations=2) as pilot,
            grpc.aio.insecure_channel(schedulers.address) as channel,
        ):
            stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
            plan = plan_of(RATES, 3, algorithm=GRID)
            with schedulers.started(0):
                beating = asyncio.create_task(beats(trainer, schedulers.address))
                request = sweeps_pb2.CreateSweepRequest(parent="projects/p", sweep_id="s", spec=spec(), plan=plan)
                await stub.CreateSweep(request, wait_for_ready=True, timeout=WAIT_LIMIT_S)
            kills = 0
            try:
                for kill_at in (*range(5, 60, 9), 0):
                    with schedulers.started(kill_at) as process:
                        process.arm()
                        if await ended(stub, process):
                            await assert_whole(stub, pilot.specs)
                            break
                        kills += 1
                else:
                    raise AssertionError("the sweep never came to its end")
            finally:
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
            assert kills >= 3


async def ended(stub: scheduler_pb2_grpc.SchedulerServiceAsyncStub, process: Mortal) -> bool:
    """Waits for the end of the sweep or of the process; returns whether it was the sweep's."""
    while process.process.exitcode is None:
        try:
            found = await stub.GetSweep(sweeps_pb2.GetSweepRequest(name=NAME), timeout=5)
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.05)
            continue
        if found.HasField("end_time"):
            return True
        await asyncio.sleep(0.05)
    return False


async def assert_whole(stub: scheduler_pb2_grpc.SchedulerServiceAsyncStub, started: Sequence[object]) -> None:
    """Fails unless each point is one trial with one job that has succeeded, and there is no other job."""
    trials = (await stub.ListTrials(sweeps_pb2.ListTrialsRequest(parent=NAME))).trials
    jobs = (await stub.ListJobs(scheduler_pb2.ListJobsRequest(parent="projects/p"))).jobs
    assert [each.state for each in trials] == [sweeps_pb2.TRIAL_STATE_SUCCEEDED] * 3
    assert len({each.digest for each in trials}) == 3
    assert {each.job for each in trials} == {each.name for each in jobs}
    assert {each.trial for each in jobs} == {each.name for each in trials}
    assert {each.state for each in jobs} == {jobs_pb2.JOB_STATE_SUCCEEDED}
    assert len(started) == 3
