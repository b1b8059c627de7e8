"""Verbs for many jobs over real sockets: which are meant, what is said of the others; nobody waits for them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from services.scheduler.lifecycle import bulk
from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.fake_registry import DATA
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import staged, tiny_spec, with_timing
from tests.unit.scheduler_sweeps.spaces import plan_of
from tuneforge.v1 import errors_pb2, jobs_pb2, scheduler_pb2, scheduling_pb2, spec_pb2, sweeps_pb2, watching_pb2

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
        await asyncio.gather(*(stage.create(f"j{number}", labels={"team": "a"}) for number in range(60)))
        kept, bulk.AT_ONCE = bulk.AT_ONCE, 1
        try:
            many = asyncio.ensure_future(
                stage.stub.CancelJobs(scheduler_pb2.CancelJobsRequest(parent=P, filter=TEAM_A))
            )
            other = asyncio.ensure_future(stage.create("other"))
            done, _ = await asyncio.wait({many, other}, return_when=asyncio.FIRST_COMPLETED)
            assert done == {other}
            assert (await many).changed == 60
        finally:
            bulk.AT_ONCE = kept


@on_loop
async def test_classes_and_sweeps_are_meant_by_lists_watches_and_verbs(tmp_path: Path) -> None:
    """Jobs are picked by their classes, and by the sweep whose trials they are, in everything that takes a filter."""
    high = scheduling_pb2.Scheduling(priority=scheduling_pb2.PRIORITY_CLASS_HIGH)
    low = scheduling_pb2.Scheduling(priority=scheduling_pb2.PRIORITY_CLASS_LOW)
    either = jobs_pb2.JobFilter(priorities=[high.priority, low.priority])
    trials = jobs_pb2.JobFilter(sweep=f"{P}/sweeps/s")
    data = spec_pb2.DataConfig(validation=spec_pb2.DataSource(dataset=DATA))
    spec = tiny_spec(data=data, evaluation=spec_pb2.Evaluation(every_steps=1))
    plan = plan_of({"optimization.learning_rate": [1e-4, 1e-3]}, algorithm=sweeps_pb2.SEARCH_ALGORITHM_GRID)
    async with staged(tmp_path, timing=with_timing(sweep_tick_s=0.02)) as stage:
        watch: Any = stage.stub.WatchJobs(watching_pb2.WatchJobsRequest(parent=P, filter=trials))
        assert not (await watch.read()).snapshot.jobs
        await stage.create("s-0")
        await stage.create("above", scheduling=high)
        await stage.create("below", scheduling=low)
        await stage.stub.CreateSweep(sweeps_pb2.CreateSweepRequest(parent=P, sweep_id="s", spec=spec, plan=plan))
        (change,) = (await watch.read()).changes.changes
        assert change.job.name == f"{P}/jobs/s-1"
        watch.cancel()
        for wanted, names in ((either, ["below", "above"]), (trials, ["s-1"])):
            found = await stage.stub.ListJobs(scheduler_pb2.ListJobsRequest(parent=P, filter=wanted))
            assert [job.name for job in found.jobs] == [f"{P}/jobs/{each}" for each in names]
            paused = await stage.stub.PauseJobs(scheduler_pb2.PauseJobsRequest(parent=P, filter=wanted))
            assert list(paused.names) == sorted(job.name for job in found.jobs)
        unknown = scheduling_pb2.PriorityClass.ValueType(9)
        wrong = scheduler_pb2.ListJobsRequest(parent=P, filter=jobs_pb2.JobFilter(priorities=[unknown], sweep="s"))
        error = await refusal(stage.stub.ListJobs(wrong), "INVALID_ARGUMENT")
        assert {each.field for each in error.fields} == {"filter.priorities", "filter.sweep"}
