"""An attempt on two nodes over real sockets: started in order, ended together, begun again together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.event_loop import on_loop
from tests.support.fake_trainer import FakeTrainer, HeldAttempt, serve_trainer
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged, tiny_spec
from tuneforge.v1 import errors_pb2, events_pb2, jobs_pb2, nodes_pb2, scheduler_pb2, spec_pb2, trainer_pb2, types_pb2

pytestmark = EACH_DATABASE

ADDRESS = "10.0.0.1:29500"
SUCCEEDED, CANCELLED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED, nodes_pb2.ATTEMPT_STATE_CANCELLED
FAILED, LOST = nodes_pb2.ATTEMPT_STATE_FAILED, nodes_pb2.ATTEMPT_STATE_LOST
INTERRUPTED = nodes_pb2.ATTEMPT_STATE_INTERRUPTED


def failure(reason: errors_pb2.ErrorReason.ValueType, *, is_user: bool = False) -> types_pb2.Failure:
    """Returns why a part failed."""
    fault = types_pb2.FAULT_CLASS_USER if is_user else types_pb2.FAULT_CLASS_INFRASTRUCTURE
    return types_pb2.Failure(reason=reason, message="it broke", cure="mend it", fault=fault)


FOLLOWS = failure(errors_pb2.ERROR_REASON_GANG_BROKEN)


@asynccontextmanager
async def two_nodes(folder: Path) -> AsyncIterator[tuple[Stage, FakeTrainer]]:
    """A scheduler with the nodes n1 and n2, and a job that wants both."""
    async with staged(folder) as stage, serve_trainer(FakeTrainer(name="nodes/n2")) as other:
        await stage.trainer.register(stage.address)
        await other.register(stage.address)
        await stage.create(spec=tiny_spec(resources=spec_pb2.Resources(nodes=2)))
        yield stage, other


async def both_started(stage: Stage, other: FakeTrainer, count: int = 1) -> tuple[HeldAttempt, HeldAttempt]:
    """Waits for both parts of the newest attempt; rank 0 tells where it listens in between."""
    first = await stage.trainer.started(count)
    first.status.rendezvous = ADDRESS
    await stage.trainer.emit(first)
    second = await other.started(count)
    await other.tell()
    return first, second


async def attempts_of(stage: Stage) -> list[jobs_pb2.Attempt]:
    """Returns the attempts of j1, newest first."""
    request = scheduler_pb2.ListAttemptsRequest(parent="projects/p/jobs/j1")
    return list((await stage.stub.ListAttempts(request)).attempts)


@on_loop
async def test_others_are_started_with_the_address_of_the_first(tmp_path: Path) -> None:
    """Rank 1 is started once rank 0 has said where it listens, and the result is published when both have ended."""
    async with two_nodes(tmp_path) as (stage, other):
        first = await stage.trainer.started()
        assert (first.request.node_rank, first.request.world_size, first.request.rendezvous) == (0, 2, "")
        assert other.starts == []
        first, second = await both_started(stage, other)
        assert (second.request.node_rank, second.request.world_size, second.request.rendezvous) == (1, 2, ADDRESS)
        assert second.request.token == first.request.token
        (attempt,) = await attempts_of(stage)
        assert [(part.node_rank, part.node) for part in attempt.parts] == [(0, "nodes/n1"), (1, "nodes/n2")]
        await stage.trainer.end(first, SUCCEEDED)
        await stage.trainer.until(lambda: first.is_gone)
        assert (await stage.get()).state == jobs_pb2.JOB_STATE_RUNNING
        await other.end(second, SUCCEEDED)
        job = await stage.until_state("SUCCEEDED")
        assert (job.attempt, job.version.version) == (1, "projects/p/models/j1/versions/1")
        events = await stage.all_events()
        assert [event.job_seq for event in events] == list(range(1, len(events) + 1))
        assert {event.node_rank for event in events if event.HasField("outcome")} == {0, 1}


@on_loop
async def test_a_scheduler_started_anew_goes_on_where_the_gang_stood(tmp_path: Path) -> None:
    """Killed when only rank 0 was started, the next scheduler starts rank 1, and no part twice."""
    async with two_nodes(tmp_path) as (stage, other):
        await stage.trainer.started()
        await stage.restart()
        await stage.trainer.register(stage.address)
        await other.register(stage.address)
        first, second = await both_started(stage, other)
        await stage.restart()
        await stage.trainer.register(stage.address)
        await other.register(stage.address)
        await stage.trainer.emit(first, 2)
        await stage.trainer.end(first, SUCCEEDED)
        await other.end(second, SUCCEEDED)
        assert (await stage.until_state("SUCCEEDED")).attempt == 1
        assert len(set(stage.trainer.starts)) == len(set(other.starts)) == 1


@on_loop
async def test_a_fault_of_one_part_is_that_of_the_job(tmp_path: Path) -> None:
    """Rank 1 fails by the job's own fault: rank 0 is stopped, and the job fails for that reason once it has ended."""
    async with two_nodes(tmp_path) as (stage, other):
        first, second = await both_started(stage, other)
        await stage.until_state("RUNNING")
        reason = errors_pb2.ERROR_REASON_OUT_OF_MEMORY
        await other.end(second, FAILED, failure(reason, is_user=True))
        await stage.trainer.until(lambda: first.stops)
        assert (await stage.get()).state == jobs_pb2.JOB_STATE_RUNNING
        await stage.trainer.end(first, FAILED, FOLLOWS)
        job = await stage.until_state("FAILED")
        assert job.failure.reason == reason
        (attempt,) = await attempts_of(stage)
        assert (attempt.state, attempt.failure.reason) == (FAILED, reason)
        assert [part.failure.reason for part in attempt.parts] == [errors_pb2.ERROR_REASON_GANG_BROKEN, reason]
        assert len(stage.trainer.starts) == 1


@on_loop
async def test_a_lost_node_replaces_the_whole_attempt(tmp_path: Path) -> None:
    """Rank 1's node is silent for too long: rank 0 is stopped, and both begin again when the node is back."""
    async with two_nodes(tmp_path) as (stage, other):
        first, second = await both_started(stage, other)
        await stage.trainer.beat(stage.address)
        stage.clock.advance(20)
        await stage.trainer.beat(stage.address)
        async for event in stage.events():  # the time that a node is away is counted from when that was seen
            if "does not answer" in event.log.message:
                break
        stage.clock.advance(700)
        await stage.trainer.beat(stage.address)
        await stage.trainer.until(lambda: first.stops)
        await stage.trainer.end(first, FAILED, FOLLOWS)
        await stage.until_state("QUEUED")
        await stage.trainer.beat(stage.address)
        await other.beat(stage.address)
        await other.until(lambda: second.stops)
        await other.end(second, CANCELLED)
        await other.beat(stage.address)
        newer, newest = await both_started(stage, other, 2)
        assert newer.request.token == newest.request.token > first.request.token
        await stage.trainer.end(newer, SUCCEEDED)
        await other.end(newest, SUCCEEDED)
        assert (await stage.until_state("SUCCEEDED")).attempt == 2
        _, oldest = await attempts_of(stage)
        assert (oldest.state, oldest.failure.reason) == (LOST, errors_pb2.ERROR_REASON_NODE_LOST)


@on_loop
async def test_a_part_that_leaves_lets_the_others_save(tmp_path: Path) -> None:
    """A node that shuts down saves with the whole gang: the others are asked to save, no budget is used."""
    async with two_nodes(tmp_path) as (stage, other):
        first, second = await both_started(stage, other)
        await other.end(second, INTERRUPTED)
        await stage.trainer.until(lambda: first.stops)
        assert set(first.stop_modes) == {trainer_pb2.STOP_MODE_CHECKPOINT}
        await stage.trainer.end(first, INTERRUPTED)
        newer, newest = await both_started(stage, other, 2)
        await stage.trainer.end(newer, SUCCEEDED)
        await other.end(newest, SUCCEEDED)
        assert (await stage.until_state("SUCCEEDED")).attempt == 2


@on_loop
async def test_a_cancel_waits_for_every_node(tmp_path: Path) -> None:
    """A cancelled job is CANCELLED when the last of its nodes is free, also when one part was never started."""
    async with two_nodes(tmp_path) as (stage, other):
        first = await stage.trainer.started()
        await stage.trainer.emit(first)
        await stage.until_state("RUNNING")
        await stage.cancel()
        await stage.trainer.until(lambda: first.stops)
        assert (await stage.get()).state == jobs_pb2.JOB_STATE_CANCELLING
        await stage.trainer.end(first, CANCELLED)
        await stage.until_state("CANCELLED")
        assert other.starts == []


@on_loop
async def test_a_stall_has_the_stacks_of_every_node(tmp_path: Path) -> None:
    """Each node tells what its own process was doing, once, by rank and name; each tells when it goes on."""
    async with two_nodes(tmp_path) as (stage, other):
        first, second = await both_started(stage, other)
        await stage.until_state("RUNNING")
        for node, part in ((other, second), (stage.trainer, first)):
            stall = events_pb2.Stall(attempt=1, message="it stands still", stacks=f"thread of {node.name}")
            part.status.stall.CopyFrom(stall)
            for _ in range(2):  # said again, told once
                await node.beat(stage.address)
        assert jobs_pb2.JOB_CONDITION_STALLED in (await stage.get()).conditions
        for node, part in ((other, second), (stage.trainer, first)):
            part.status.ClearField("stall")
            await node.beat(stage.address)
            await node.end(part, SUCCEEDED)
        told = [event.stall for event in await stage.all_events() if event.HasField("stall")]
        assert [(each.node_rank, each.node, each.stacks) for each in told if not each.is_over] == [
            (1, "nodes/n2", "thread of nodes/n2"),
            (0, "nodes/n1", "thread of nodes/n1"),
        ]
        assert [(each.node_rank, each.node, each.stacks) for each in told if each.is_over] == [
            (1, "nodes/n2", ""),
            (0, "nodes/n1", ""),
        ]
