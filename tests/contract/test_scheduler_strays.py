"""Attempts that a node begins or keeps although they do not count: a cancel that races a start, and denied attempts."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import staged
from tuneforge.v1 import jobs_pb2, nodes_pb2

pytestmark = EACH_DATABASE


@on_loop
async def test_cancel_waits_for_a_start_on_its_way(tmp_path: Path) -> None:
    """A cancel that comes while the node is still being asked to start stops what that start begins."""
    gate = asyncio.Event()
    async with staged(tmp_path, trainer={"gate": gate}) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        await stage.trainer.until(lambda: stage.trainer.waiting)
        await stage.cancel()
        await asyncio.sleep(5 * stage.timing.longest_tick_s)  # rounds of the loop in which nothing may happen
        assert (await stage.get()).state == jobs_pb2.JOB_STATE_CANCELLING
        gate.set()
        attempt = await stage.trainer.started()
        await stage.trainer.until(lambda: attempt.stops)
        await stage.trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_CANCELLED)
        await stage.until_state("CANCELLED")
        await stage.trainer.until(lambda: attempt.is_gone)


@on_loop
async def test_closed_attempt_that_its_node_names_is_ended(tmp_path: Path) -> None:
    """An attempt that the node had denied and then names as running, its job having ended, is stopped and forgotten."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt)
        await stage.until_state("RUNNING")
        attempt.is_gone = True
        await stage.cancel()
        await stage.until_state("CANCELLED")
        attempt.is_gone = False
        await stage.trainer.beat(stage.address)
        await stage.trainer.until(lambda: attempt.stops)
        await stage.trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_CANCELLED)
        await stage.trainer.beat(stage.address)
        await stage.trainer.until(lambda: attempt.is_gone)
