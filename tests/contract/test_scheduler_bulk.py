"""Verbs for many jobs over real sockets: which are meant, what is said of the others; nobody waits for them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from services.scheduler.lifecycle import bulk
from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import staged
from tuneforge.v1 import errors_pb2, jobs_pb2, scheduler_pb2

pytestmark = EACH_DATABASE
P = "projects/p"
ID = "8f14e45f-ceea-4e7a-9c1d-000000000043"
TEAM_A = jobs_pb2.JobFilter(labels={"team": "a"})


@on_loop
async def test_verbs_change_what_the_filter_means(tmp_path: Path) -> None:
    """Each verb changes the jobs of a filter and names them, and the same call gives the first answer."""
    async with staged(tmp_path) as stage:
        for number in range(4):
            await stage.create(f"j{number}", labels={"team": "ab"[number % 2]})
        dry = scheduler_pb2.PauseJobsRequest(parent=P, filter=TEAM_A, validate_only=True)
        would = await stage.stub.PauseJobs(dry)
        assert (would.matched, would.changed, list(would.names)) == (2, 2, [f"{P}/jobs/j0", f"{P}/jobs/j2"])
        assert (await stage.get("j0")).state == jobs_pb2.JOB_STATE_QUEUED
        paused = await stage.stub.PauseJobs(scheduler_pb2.PauseJobsRequest(parent=P, filter=TEAM_A, reason="night"))
        assert paused == would
        assert (await stage.get("j0")).last_change.message.endswith("night")
        resumed = await stage.stub.ResumeJobs(scheduler_pb2.ResumeJobsRequest(parent=P, all=True))
        assert resumed.changed == 2, "the others are not paused, so that they are not meant"
        request = scheduler_pb2.CancelJobsRequest(parent=P, filter=TEAM_A, request_id=ID)
        cancelled = await stage.stub.CancelJobs(request)
        assert await stage.stub.CancelJobs(request) == cancelled
        assert cancelled.changed == 2
        some = jobs_pb2.JobFilter(states=[jobs_pb2.JOB_STATE_CANCELLED, jobs_pb2.JOB_STATE_QUEUED])
        deleted = await stage.stub.DeleteJobs(scheduler_pb2.DeleteJobsRequest(parent=P, filter=some))
        assert (deleted.matched, deleted.changed) == (4, 2)
        assert [each.reason for each in deleted.problems] == [errors_pb2.ERROR_REASON_WRONG_STATE] * 2
        assert [each.name for each in deleted.problems] == [f"{P}/jobs/j1", f"{P}/jobs/j3"]


@on_loop
async def test_a_filter_that_means_everything_has_to_be_meant(tmp_path: Path) -> None:
    """Without a filter and without `all` nothing is changed; wrong filters and reasons are refused."""
    async with staged(tmp_path) as stage:
        await stage.create()
        cancel = scheduler_pb2.CancelJobsRequest(parent=P)
        delete = scheduler_pb2.DeleteJobsRequest(parent=P, filter=jobs_pb2.JobFilter())
        for answer in (stage.stub.CancelJobs(cancel), stage.stub.DeleteJobs(delete)):
            assert [each.field for each in (await refusal(answer, "INVALID_ARGUMENT")).fields] == ["filter"]
        long = scheduler_pb2.PauseJobsRequest(parent=P, all=True, reason="x" * 1025)
        assert [each.field for each in (await refusal(stage.stub.PauseJobs(long), "INVALID_ARGUMENT")).fields] == [
            "reason"
        ]
        assert (await stage.get()).state == jobs_pb2.JOB_STATE_QUEUED
        everything = scheduler_pb2.CancelJobsRequest(parent=P, all=True)
        assert (await stage.stub.CancelJobs(everything)).changed == 1


@on_loop
async def test_others_write_while_many_jobs_are_changed(tmp_path: Path) -> None:
    """A call for many jobs is many transactions: one that was made after it began is answered before it ends."""
    async with staged(tmp_path) as stage:
        await asyncio.gather(*(stage.create(f"j{number}", labels={"team": "a"}) for number in range(24)))
        kept, bulk.AT_ONCE = bulk.AT_ONCE, 2
        try:
            many = asyncio.ensure_future(
                stage.stub.CancelJobs(scheduler_pb2.CancelJobsRequest(parent=P, filter=TEAM_A))
            )
            other = asyncio.ensure_future(stage.create("other"))
            done, _ = await asyncio.wait({many, other}, return_when=asyncio.FIRST_COMPLETED)
            assert done == {other}
            assert (await many).changed == 24
        finally:
            bulk.AT_ONCE = kept
