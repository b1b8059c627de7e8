"""The database's clock is set forward or backward: what was to last so long lasts so long."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import select

from services.scheduler.lifecycle import removing
from services.scheduler.store import tables
from tests.contract.test_scheduler_runs import FAILED, USER
from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Clock, Stage, staged, with_timing
from tuneforge.v1 import jobs_pb2, nodes_pb2, scheduler_pb2

HOUR_S = 3600.0
JUMPS = pytest.mark.parametrize("jump_s", [24 * HOUR_S, -24 * HOUR_S])
PATIENT = jobs_pb2.RetryPolicy(user=2, first_delay=Duration(seconds=600), longest_delay=Duration(seconds=600))


async def looked(stage: Stage) -> None:
    """Waits until the loop has looked once more, from beginning to end."""
    assert stage.scheduler is not None
    for _ in range(2):
        await stage.scheduler.reconciler.look()


async def kept(stage: Stage, *names: str) -> list[int]:
    """Returns columns of the first job."""
    assert stage.scheduler is not None
    query = select(*(tables.jobs.c[name] for name in names)).where(tables.jobs.c.number == 1)
    return list(await stage.scheduler.ledger.read(lambda db: db.execute(query).one()))


async def broken(stage: Stage) -> int:
    """Lets the first attempt of a job fail; returns how long it waits for the next one, in milliseconds."""
    await stage.create(retry=PATIENT)
    attempt = await stage.trainer.started()
    await stage.trainer.emit(attempt)
    await stage.trainer.end(attempt, FAILED, USER)
    while not (await kept(stage, "user_faults"))[0]:
        await looked(stage)
    begins, waits = await kept(stage, "not_before_ms", "queued_ms")
    return begins - waits


@EACH_DATABASE
@JUMPS
@on_loop
async def test_the_wait_before_a_retry_stays_as_long(tmp_path: Path, jump_s: float) -> None:
    """A third of it has gone by when the clock jumps: the other two are waited, and no more."""
    async with staged(tmp_path, clock=Clock(now_ms=10**12), timing=with_timing(lease_ttl_s=1e6)) as stage:
        await stage.trainer.register(stage.address)
        delay_s = await broken(stage) / 1000
        stage.clock.advance(delay_s / 3)
        await looked(stage)
        stage.clock.jump(jump_s)
        await looked(stage)
        (begins,) = await kept(stage, "not_before_ms")
        assert begins - stage.clock.now_ms == pytest.approx(delay_s * 2 / 3 * 1000, abs=2)
        assert len(stage.trainer.starts) == 1
        stage.clock.advance(delay_s * 2 / 3 + 0.1)
        await stage.trainer.started(2)


@on_loop
async def test_a_clock_that_went_back_while_nobody_looked_makes_no_wait_longer(tmp_path: Path) -> None:
    """The scheduler is down when the clock is set back by a day: a retry waits its own time at most."""
    async with staged(tmp_path, clock=Clock(now_ms=10**12), timing=with_timing(lease_ttl_s=1e6)) as stage:
        await stage.trainer.register(stage.address)
        delay_s = await broken(stage) / 1000
        await stage.stop()
        stage.clock.jump(-24 * HOUR_S)
        await stage.start()
        await stage.trainer.beat(stage.address)
        stage.clock.advance(delay_s + 0.1)
        await stage.trainer.started(2)


@JUMPS
@on_loop
async def test_a_lease_stays_as_long(tmp_path: Path, jump_s: float) -> None:
    """A node that is not heard any more is missed a lease later, whatever the clock does; one that is heard, never."""
    async with staged(tmp_path, clock=Clock(now_ms=10**12), timing=with_timing(lease_ttl_s=60.0)) as stage:
        await stage.trainer.register(stage.address)
        await looked(stage)
        stage.clock.jump(jump_s)
        await looked(stage)
        assert await state_of(stage) == nodes_pb2.NODE_STATE_READY
        stage.clock.advance(59)
        await looked(stage)
        assert await state_of(stage) == nodes_pb2.NODE_STATE_READY
        stage.clock.advance(2)
        while await state_of(stage) != nodes_pb2.NODE_STATE_UNREACHABLE:
            await looked(stage)


async def state_of(stage: Stage) -> int:
    """Returns the state of the node."""
    listed = await stage.stub.ListNodes(scheduler_pb2.ListNodesRequest())
    return listed.nodes[0].state


@JUMPS
@on_loop
async def test_a_job_is_kept_as_long(tmp_path: Path, jump_s: float) -> None:
    """Its time to live ends an hour after its end, by a clock that nobody sets."""
    async with staged(tmp_path, clock=Clock(now_ms=10**12)) as stage:
        await stage.create(ttl=Duration(seconds=3600))
        await stage.cancel()
        await looked(stage)
        stage.clock.jump(jump_s)
        await looked(stage)
        (expires,) = await kept(stage, "expire_ms")
        assert expires - stage.clock.now_ms == pytest.approx(HOUR_S * 1000, abs=2)
        assert (await stage.get()).state == jobs_pb2.JOB_STATE_CANCELLED


@on_loop
async def test_what_was_found_before_it_was_moved_is_kept(tmp_path: Path) -> None:
    """The round of removals reads what is due after a jump, then the loop moves it: it is not removed."""
    async with staged(tmp_path, clock=Clock(now_ms=10**12)) as stage:
        assert stage.scheduler is not None
        await stage.create(ttl=Duration(seconds=3600))
        await stage.cancel()
        await looked(stage)
        stage.clock.jump(24 * HOUR_S)
        await looked(stage)
        await stage.scheduler.ledger.write(lambda tx: removing._expire(tx, 1))
        assert (await stage.get()).state == jobs_pb2.JOB_STATE_CANCELLED
        stage.clock.advance(HOUR_S + 1)
        await stage.scheduler.ledger.write(lambda tx: removing._expire(tx, 1))
        await refusal(stage.get(), "NOT_FOUND")
