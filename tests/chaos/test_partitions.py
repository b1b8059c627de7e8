"""Nodes that hear nothing, are not heard, or are gone for a while, over real sockets; clocks that jump."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.scheduler.doctor import examine
from tests.support.chaos.tcp_proxy import TcpProxy, tcp_proxy
from tests.support.event_loop import on_loop
from tests.support.fake_trainer import FakeTrainer, HeldAttempt, serve_trainer
from tests.support.scheduling import Stage, staged
from tuneforge.v1 import jobs_pb2, nodes_pb2

SUCCEEDED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED


@asynccontextmanager
async def behind_a_network(folder: Path) -> AsyncIterator[tuple[Stage, TcpProxy]]:
    """A stage whose node is reached through a proxy; at the end the doctor looks at the database."""
    async with staged(folder) as stage, tcp_proxy(stage.trainer.address) as proxy:
        stage.trainer.address = proxy.address
        await stage.trainer.register(stage.address)
        yield stage, proxy
        assert stage.scheduler is not None
        findings = await stage.scheduler.ledger.read(examine)
        assert findings == []


async def looks(stage: Stage, count: int) -> None:
    """Lets the loop look so often, a tick between two looks; what it decides before the last one is done then."""
    assert stage.scheduler is not None
    reconciler = stage.scheduler.reconciler
    for _ in range(count):
        await asyncio.sleep(stage.timing.longest_tick_s)
        before = reconciler.seen
        while await reconciler.look() is before:  # on a slow machine it may answer with what it saw last
            pass


async def rounds(stage: Stage, count: int = 4) -> None:
    """Lets the loop look so often, the lease being renewed: what must not happen has had its chance."""
    for _ in range(count):
        await stage.trainer.beat(stage.address)
        await looks(stage, 1)


async def ends_well(stage: Stage, attempt: HeldAttempt) -> None:
    """The run ends well, with a dense log and one version."""
    await stage.trainer.end(attempt, SUCCEEDED)
    await stage.until_state("SUCCEEDED")
    events = await stage.all_events()
    assert [event.job_seq for event in events] == list(range(1, len(events) + 1))
    assert len(stage.registry.published) == 1


@on_loop
async def test_a_node_that_hears_nothing_is_started_once(tmp_path: Path) -> None:
    """While its heartbeats come, a start that does not reach it is neither given up nor made elsewhere."""
    async with behind_a_network(tmp_path) as (stage, proxy):
        proxy.hold(to_server=True)
        await stage.create()
        await stage.until_state("STARTING")
        await rounds(stage)
        assert stage.trainer.starts == []
        assert (await stage.get()).state == jobs_pb2.JOB_STATE_STARTING
        proxy.heal()
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt, 3)
        await ends_well(stage, attempt)
        assert set(stage.trainer.starts) == {"projects/p/jobs/j1/attempts/1"}


@on_loop
async def test_a_node_that_is_not_heard_goes_on(tmp_path: Path) -> None:
    """It has started what it was told, and trains; when its words come through again nothing is missing or twice."""
    async with behind_a_network(tmp_path) as (stage, proxy):
        await stage.create()
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt, 2)
        await stage.until_state("RUNNING")
        proxy.hold(from_server=True)
        await stage.trainer.emit(attempt, 40)
        await rounds(stage)
        assert (await stage.get()).step < 42
        proxy.heal()
        await ends_well(stage, attempt)
        assert (await stage.get()).step == 42
        assert (await stage.get()).attempt == 1


@on_loop
async def test_flapping_connections_cost_nothing(tmp_path: Path) -> None:
    """The connection breaks twenty times in the middle of a run: one attempt, every event once."""
    async with behind_a_network(tmp_path) as (stage, proxy):
        await stage.create()
        attempt = await stage.trainer.started()
        for _ in range(20):
            await stage.trainer.emit(attempt, 3)
            await proxy.cut()
            proxy.heal()
        await ends_well(stage, attempt)
        assert (await stage.get()).step == 60
        assert (await stage.get()).attempt == 1


@on_loop
async def test_a_zombie_publishes_nothing(tmp_path: Path) -> None:
    """A node that was gone for long returns with a finished run: its successor's result is the one that counts."""
    async with (
        behind_a_network(tmp_path) as (stage, proxy),
        serve_trainer(FakeTrainer(name="nodes/n2")) as second,
    ):
        await stage.create()
        zombie = await stage.trainer.started()
        await stage.trainer.emit(zombie, 2)
        await stage.until_state("RUNNING")
        await proxy.cut()
        stage.clock.advance(30)
        await second.register(stage.address)
        await looks(stage, 2)
        assert jobs_pb2.JOB_CONDITION_UNREACHABLE in (await stage.get()).conditions
        stage.clock.advance(700)
        await second.beat(stage.address)
        successor = await second.started()
        assert successor.request.token > zombie.request.token
        await stage.trainer.end(zombie, SUCCEEDED)
        proxy.heal()
        await stage.trainer.beat(stage.address)
        await stage.trainer.until(lambda: zombie.is_gone)
        assert stage.registry.published == {}
        await second.emit(successor, 3)
        await second.end(successor, SUCCEEDED)
        await stage.until_state("SUCCEEDED")
        published = stage.registry.published["projects/p/jobs/j1"]
        assert published.lineage.attempt == 2


@pytest.mark.parametrize("seconds", [3600.0, 86_400.0 * 3650, -3600.0])
@on_loop
async def test_a_jump_of_the_clock_costs_no_attempt(tmp_path: Path, seconds: float) -> None:
    """The database's clock jumps by an hour or ten years: nodes that go on answering keep what they run."""
    async with behind_a_network(tmp_path) as (stage, _):
        await stage.create()
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt, 2)
        await stage.until_state("RUNNING")
        stage.clock.jump(seconds)
        await looks(stage, 3)
        await rounds(stage)
        job = await stage.get()
        assert job.attempt == 1
        assert job.budget.spent.device_seconds < 5, "no device time is made up"
        await ends_well(stage, attempt)
