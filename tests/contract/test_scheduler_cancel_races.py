"""A cancel and the end of a run at the same moment: one of the two counts, never both, never neither."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import grpc

from tests.support.event_loop import on_loop
from tests.support.fake_trainer import HeldAttempt
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged
from tuneforge.v1 import jobs_pb2, nodes_pb2

pytestmark = EACH_DATABASE
ROUNDS = 12
SUCCEEDED, CANCELLED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED, nodes_pb2.ATTEMPT_STATE_CANCELLED


async def wait_a_little(yields: int) -> None:
    """Gives way some times: another place in the race in each round."""
    for _ in range(yields):
        await asyncio.sleep(0)


async def cancelled_in_time(stage: Stage, job: str, yields: int) -> bool:
    """Cancels a job; returns whether that was accepted."""
    await wait_a_little(yields)
    try:
        await stage.cancel(job)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION  # noqa: PT017 - one of the two ends of a try
        return False
    return True


async def finish(stage: Stage, attempt: HeldAttempt, yields: int) -> None:
    """Ends a run as its node does: as it was told to stop, or with its result when it was done before."""
    await wait_a_little(yields)
    await stage.trainer.end(attempt, CANCELLED if attempt.stops else SUCCEEDED)


@on_loop
async def test_one_of_cancel_and_finish_counts(tmp_path: Path) -> None:
    """Whoever comes first, the answer to the cancel, the job's end and what was published say the same."""
    order = random.Random(7)
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        for number in range(1, ROUNDS + 1):
            job = f"j{number}"
            await stage.create(job)
            attempt = await stage.trainer.started(number)
            await stage.trainer.emit(attempt)
            late, early = order.randrange(800), order.randrange(100)
            accepted, _ = await asyncio.gather(
                cancelled_in_time(stage, job, late if number % 2 else early),
                finish(stage, attempt, early if number % 2 else late),
            )
            events = await stage.all_events(job)
            end = await stage.get(job)
            is_published = f"projects/p/jobs/{job}" in stage.registry.published
            assert end.state == (jobs_pb2.JOB_STATE_CANCELLED if accepted else jobs_pb2.JOB_STATE_SUCCEEDED)
            assert is_published is not accepted
            assert end.HasField("version") is not accepted
            words = [event.state.to for event in events if event.WhichOneof("payload") == "state"]
            assert sum(word in {"SUCCEEDED", "CANCELLED", "FAILED"} for word in words) == 1
