"""Budgets over real sockets: what is spent counts once, and a job whose budget is spent saves its state and waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import select

from services.scheduler.queues.budgets import Price
from services.scheduler.store import tables
from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.fake_trainer import HeldAttempt
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged, with_timing
from tuneforge.errors import Reason
from tuneforge.v1 import events_pb2, jobs_pb2, nodes_pb2, queues_pb2, scheduler_pb2, trainer_pb2

QUEUE = "projects/p/queues/default"
INTERRUPTED = nodes_pb2.ATTEMPT_STATE_INTERRUPTED
SUCCEEDED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED
DAY_MS = 24 * 3_600_000
PATIENT = with_timing(lease_ttl_s=100_000.0)
"""No node is lost while a test moves the clock."""


async def running(stage: Stage, job: str = "j1", starts: int = 1, **fields: Any) -> HeldAttempt:
    """Brings a new job to RUNNING and returns its attempt."""
    await stage.create(job, **fields)
    attempt = await stage.trainer.started(starts)
    await stage.trainer.emit(attempt)
    await stage.until_state("RUNNING", job)
    return attempt


async def set_budget(stage: Stage, budget: queues_pb2.Budget) -> None:
    """Gives project p a budget."""
    queue = queues_pb2.Queue(name=QUEUE, budget=budget)
    request = queues_pb2.UpdateQueueRequest(queue=queue, update_mask=FieldMask(paths=["budget"]))
    await stage.stub.UpdateQueue(request)


@EACH_DATABASE
@on_loop
async def test_a_job_whose_budget_is_spent_saves_and_waits(tmp_path: Path) -> None:
    """It is asked to save, never killed; it resumes only with more, and what it has spent counts on."""
    async with staged(tmp_path, timing=PATIENT) as stage:
        await stage.trainer.register(stage.address)
        attempt = await running(stage, budget=queues_pb2.Budget(device_seconds=100.0))
        stage.clock.advance(60)
        assert (await stage.get()).budget.spent.device_seconds == pytest.approx(60, abs=0.1)
        assert not attempt.stops
        stage.clock.advance(41)
        await stage.trainer.until(lambda: attempt.stops)
        assert set(attempt.stop_modes) == {trainer_pb2.STOP_MODE_CHECKPOINT}
        assert (await stage.get()).last_change.reason == "BUDGET_SPENT"
        stage.clock.advance(4)
        await stage.trainer.end(attempt, INTERRUPTED)
        paused = await stage.until_state("PAUSED")
        assert paused.last_change.reason == "BUDGET_SPENT"
        assert "100.0 device-seconds" in paused.last_change.message
        assert paused.budget.spent.device_seconds == pytest.approx(105, abs=0.1)
        for budget in (None, queues_pb2.Budget(device_seconds=105.5)):
            refused = await refusal(stage.resume(budget=budget), "FAILED_PRECONDITION")
            assert (refused.reason, refused.metadata["whose"]) == (Reason.BUDGET_SPENT, "job")
        resumed = await stage.resume(budget=queues_pb2.Budget(device_seconds=300.0))
        assert (resumed.state, resumed.budget.limit.device_seconds) == (jobs_pb2.JOB_STATE_QUEUED, 300.0)
        second = await stage.trainer.started(2)
        assert second.request.name == "projects/p/jobs/j1/attempts/2"
        stage.clock.advance(50)
        await stage.trainer.end(second, SUCCEEDED)
        ended = await stage.until_state("SUCCEEDED")
        assert ended.budget.spent.device_seconds == pytest.approx(155, abs=0.1)


@EACH_DATABASE
@on_loop
async def test_a_restart_counts_nothing_twice(tmp_path: Path) -> None:
    """Device time before, during and after a restart of the scheduler counts once, for the job and for its project."""
    async with staged(tmp_path, timing=PATIENT) as stage:
        await stage.trainer.register(stage.address)
        attempt = await running(stage)
        stage.clock.advance(30)
        await stage.stop()
        stage.clock.advance(30)
        await stage.start()
        await stage.trainer.beat(stage.address)
        assert (await stage.get()).budget.spent.device_seconds == pytest.approx(60, abs=0.1)
        await stage.trainer.end(attempt, SUCCEEDED)
        assert (await stage.until_state("SUCCEEDED")).budget.spent.device_seconds == pytest.approx(60, abs=0.1)
        await stage.restart()
        queue = await stage.stub.GetQueue(queues_pb2.GetQueueRequest(name=QUEUE))
        assert queue.status.spent.device_seconds == pytest.approx(60, abs=0.1)
        assert queue.status.usage_device_seconds == pytest.approx(60, rel=0.01)
        assert queue.status.devices_held == 0


@on_loop
async def test_the_budget_of_a_project_holds_all_its_jobs(tmp_path: Path) -> None:
    """Running jobs save and wait, queued ones stay queued and go on by themselves once it is raised."""
    async with staged(tmp_path, timing=PATIENT, price=Price(per_device_hour=3600.0, currency="EUR")) as stage:
        await stage.trainer.register(stage.address)
        await set_budget(stage, queues_pb2.Budget(cost=50.0, currency="EUR"))
        attempt = await running(stage)
        await stage.create("j2")
        stage.clock.advance(51)
        await stage.trainer.until(lambda: attempt.stops)
        await stage.trainer.end(attempt, INTERRUPTED)
        assert (await stage.until_state("PAUSED")).last_change.reason == "BUDGET_SPENT"
        queue = await stage.stub.GetQueue(queues_pb2.GetQueueRequest(name=QUEUE))
        assert "of 50.00 EUR are spent" in queue.status.hold
        assert (await stage.get("j2")).state == jobs_pb2.JOB_STATE_QUEUED
        refused = await refusal(stage.resume(), "FAILED_PRECONDITION")
        assert (refused.reason, refused.metadata["whose"]) == (Reason.BUDGET_SPENT, "project")
        await set_budget(stage, queues_pb2.Budget(cost=500.0, currency="EUR"))
        assert (await stage.trainer.started(2)).request.name == "projects/p/jobs/j2/attempts/1"
        assert (await stage.resume()).state == jobs_pb2.JOB_STATE_QUEUED


@EACH_DATABASE
@on_loop
async def test_a_budget_of_a_day_is_spent_anew_the_next_day(tmp_path: Path) -> None:
    """What it paused goes on by itself when the day begins, but not what somebody wants paused; when is told."""
    async with staged(tmp_path, timing=PATIENT, trainer={"slots": 2}) as stage:
        await stage.trainer.register(stage.address)
        day = queues_pb2.BUDGET_PERIOD_DAY
        await set_budget(stage, queues_pb2.Budget(device_seconds=100.0, period=day))
        first, second = await running(stage), await running(stage, "j2", 2)
        stage.clock.advance(51)
        await stage.trainer.until(lambda: first.stops and second.stops)
        for attempt in (first, second):
            await stage.trainer.end(attempt, INTERRUPTED)
        paused = await stage.until_state("PAUSED")
        assert "device-seconds are spent in this day, the next one begins on " in paused.last_change.message
        await stage.until_state("PAUSED", "j2")
        await stage.pause("j2")
        told = await stage.stub.ExplainJob(scheduler_pb2.ExplainJobRequest(name="projects/p/jobs/j1"))
        status = (await stage.stub.GetQueue(queues_pb2.GetQueueRequest(name=QUEUE))).status
        end = status.period_end.ToDatetime()
        assert f"goes on by itself on {end:%Y-%m-%d %H:%M} UTC" in told.blockers[0].message
        assert status.period_spent.device_seconds == pytest.approx(102, abs=0.5)
        stage.clock.advance(24 * 3600)
        again = await stage.trainer.started(3)
        assert again.request.name == "projects/p/jobs/j1/attempts/2"
        assert (await stage.get("j2")).state == jobs_pb2.JOB_STATE_PAUSED
        status = (await stage.stub.GetQueue(queues_pb2.GetQueueRequest(name=QUEUE))).status
        assert status.period_start.ToDatetime() == end
        assert status.period_spent.device_seconds < 100
        assert status.spent.device_seconds >= 102
        await stage.trainer.end(again, SUCCEEDED)
        await stage.until_state("SUCCEEDED")
        assert "BUDGET_RENEWED" in [each.state.reason for each in await stage.all_events()]


async def goes_on_ms(stage: Stage) -> int | None:
    """Returns when the first job goes on by itself, in milliseconds since 1970."""
    assert stage.scheduler is not None
    query = select(tables.jobs.c.goes_on_ms).where(tables.jobs.c.number == 1)
    return await stage.scheduler.ledger.read(lambda db: db.execute(query).scalar_one())


@EACH_DATABASE
@on_loop
async def test_what_a_period_has_paused_follows_what_people_do(tmp_path: Path) -> None:
    """With another period it goes on when that one ends; a pause of all jobs is for it too, and names it."""
    async with staged(tmp_path, timing=PATIENT) as stage:
        await stage.trainer.register(stage.address)
        month, day = queues_pb2.BUDGET_PERIOD_MONTH, queues_pb2.BUDGET_PERIOD_DAY
        await set_budget(stage, queues_pb2.Budget(device_seconds=100.0, period=month))
        attempt = await running(stage)
        stage.clock.advance(101)
        await stage.trainer.until(lambda: attempt.stops)
        await stage.trainer.end(attempt, INTERRUPTED)
        await stage.until_state("PAUSED")
        assert await goes_on_ms(stage) == 31 * DAY_MS
        await set_budget(stage, queues_pb2.Budget(device_seconds=100.0, period=day))
        assert await goes_on_ms(stage) == DAY_MS
        for is_dry in (True, False):
            request = scheduler_pb2.PauseJobsRequest(parent="projects/p", all=True, validate_only=is_dry)
            assert list((await stage.stub.PauseJobs(request)).names) == ["projects/p/jobs/j1"]
            assert (await goes_on_ms(stage) is None) is not is_dry


@on_loop
async def test_periods_that_are_no_use_are_refused(tmp_path: Path) -> None:
    """A job has no period, nor does a queue have one that is not known."""
    async with staged(tmp_path) as stage:
        budget = queues_pb2.Budget(device_seconds=5.0, period=queues_pb2.BUDGET_PERIOD_WEEK)
        refused = await refusal(stage.create(budget=budget), "INVALID_ARGUMENT")
        assert [each.field for each in refused.fields] == ["budget.period"]
        unknown = queues_pb2.Budget(device_seconds=5.0, period=queues_pb2.BudgetPeriod.ValueType(9))
        refused = await refusal(set_budget(stage, unknown), "INVALID_ARGUMENT")
        assert [each.field for each in refused.fields] == ["queue.budget.period"]


@on_loop
async def test_energy_is_what_the_node_has_counted(tmp_path: Path) -> None:
    """A budget of energy is spent by the counters of the attempt's samples, the newest one of each attempt."""
    async with staged(tmp_path, timing=PATIENT) as stage:
        await stage.trainer.register(stage.address)
        attempt = await running(stage, budget=queues_pb2.Budget(energy_joules=500.0))
        for joules in (100.0, 300.0):
            devices = [events_pb2.DeviceSample(energy_joules=joules)]
            sample = events_pb2.DeviceMetrics(energy_joules=50.0, devices=devices)
            await stage.trainer.add(attempt, events_pb2.Event(device=sample))
        await stage.trainer.emit(attempt)
        await stage.trainer.until(lambda: attempt.acks and attempt.acks[-1] >= 4)
        assert (await stage.get()).budget.spent.energy_joules == 350.0
        assert not attempt.stops
        more = events_pb2.DeviceMetrics(energy_joules=550.0)
        await stage.trainer.add(attempt, events_pb2.Event(device=more))
        await stage.trainer.until(lambda: attempt.stops)
        await stage.trainer.end(attempt, INTERRUPTED)
        assert (await stage.until_state("PAUSED")).budget.spent.energy_joules == 550.0


@on_loop
async def test_a_budget_below_the_prediction_is_a_warning(tmp_path: Path) -> None:
    """CreateJob says so, also when it only checks, and takes the job; a malformed budget is listed with the rest."""
    async with staged(tmp_path) as stage:
        tight = queues_pb2.Budget(device_seconds=1e-6, energy_joules=1.0)
        for validate_only in (True, False):
            job = await stage.create(budget=tight, validate_only=validate_only)
            assert len(job.warnings) == 2
            assert "predicted: it will be paused before its end" in job.warnings[0]
            assert "measured its power" in job.warnings[1]
        assert not (await stage.create("j2", budget=queues_pb2.Budget(device_seconds=1e9))).warnings
        wrong = queues_pb2.Budget(device_seconds=float("nan"), cost=1.0, currency="EUR")
        refused = await refusal(stage.create("j3", budget=wrong), "INVALID_ARGUMENT")
        assert {each.field for each in refused.fields} == {"budget.device_seconds", "budget.cost"}
        assert {each.field for each in (await refusal(stage.resume("j2", budget=wrong), "INVALID_ARGUMENT")).fields}
