"""The loop decides with the planner, over real sockets: classes, preemption, its ledger, windows, places, drains."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import REGISTRY

from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.fake_trainer import FakeTrainer, HeldAttempt, serve_trainer
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged, tiny_spec, with_timing
from tuneforge.v1 import (
    events_pb2,
    jobs_pb2,
    nodes_pb2,
    scheduler_pb2,
    scheduling_pb2,
    spec_pb2,
    trainer_pb2,
    types_pb2,
)

pytestmark = EACH_DATABASE

INTERRUPTED, SUCCEEDED = nodes_pb2.ATTEMPT_STATE_INTERRUPTED, nodes_pb2.ATTEMPT_STATE_SUCCEEDED
LOST = nodes_pb2.ATTEMPT_STATE_LOST
HIGH = scheduling_pb2.Scheduling(priority=scheduling_pb2.PRIORITY_CLASS_HIGH)
LOW = scheduling_pb2.Scheduling(priority=scheduling_pb2.PRIORITY_CLASS_LOW)

PATIENT = with_timing(lease_ttl_s=1e6)
"""Leases that outlive the jumps of the clock."""


def at(stage: Stage, seconds: float) -> Timestamp:
    """Returns a moment so many seconds from now on, by the stage's clock."""
    ms = stage.clock.now_ms + round(seconds * 1000)
    return Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


async def running(stage: Stage, job_id: str = "low", steps: int = 1, **fields: Any) -> HeldAttempt:
    """Brings a job to RUNNING and returns its attempt."""
    before = len(stage.trainer.starts)
    await stage.create(job_id, **fields)
    attempt = await stage.trainer.started(before + 1)
    await stage.trainer.emit(attempt, steps)
    await stage.until_state("RUNNING", job_id)
    return attempt


async def forwards(stage: Stage, seconds: float) -> None:
    """Moves the time on, and has the loop look."""
    stage.clock.advance(seconds)
    await stage.trainer.beat(stage.address)


async def resumed(stage: Stage, attempt: HeldAttempt, step: int) -> None:
    """Has an attempt go on from a step and make the next one."""
    attempt.status.step = step
    await stage.trainer.add(attempt, events_pb2.Event(resumed_from=events_pb2.ResumedFrom(step=step)))
    await stage.trainer.emit(attempt)


@on_loop
async def test_a_high_class_stops_a_low_one_which_saves_and_goes_on(tmp_path: Path) -> None:
    """The low job is asked to save, leaves, runs again after the high one; the ledger has what that cost and saved."""
    async with staged(tmp_path, timing=PATIENT) as stage:
        await stage.trainer.register(stage.address)
        low = await running(stage, scheduling=LOW)
        await forwards(stage, 1000)  # beyond the quantum
        await stage.trainer.emit(low, 9)
        await stage.create("high", scheduling=HIGH)
        preempting = await stage.until_state("PREEMPTING", "low")
        assert preempting.last_change.reason == "GIVES_WAY"
        assert "projects/p/jobs/high: It gives way to a job with a higher class" in preempting.last_change.message
        await stage.trainer.until(lambda: low.stops)
        assert set(low.stop_modes) == {trainer_pb2.STOP_MODE_CHECKPOINT}
        assert len(stage.trainer.starts) == 1
        await stage.trainer.end(low, INTERRUPTED)
        high = await stage.trainer.started(2)
        assert high.request.name == "projects/p/jobs/high/attempts/1"
        await forwards(stage, 100)
        await stage.trainer.end(high, SUCCEEDED)
        again = await stage.trainer.started(3)
        assert again.request.name == "projects/p/jobs/low/attempts/2"
        await forwards(stage, 7)
        await resumed(stage, again, 8)
        await stage.trainer.end(again, SUCCEEDED)
        job = await stage.until_state("SUCCEEDED", "low")
        # 9 of 10 steps took 1000 s; the step after 8 ... 10 is done again, and the restore took 7 s.
        assert job.ledger.preemptions == 1
        assert job.ledger.lost_to_preemption == pytest.approx(1000 * 2 / 10 + 7)
        assert job.ledger.saved == pytest.approx(1000 * 8 / 10)
        assert job.ledger.attained == pytest.approx(1007)
        assert job.ledger.lost_to_faults == 0
        total = await stage.stub.GetWorkLedger(scheduler_pb2.GetWorkLedgerRequest(parent="projects/p"))
        assert (total.preemptions, total.lost_to_preemption) == (1, job.ledger.lost_to_preemption)
        assert total.attained == pytest.approx(1107)
        await stage.trainer.beat(stage.address)
        await stage.create("next")
        await stage.trainer.started(4)  # the loop has looked since
        seconds = "tuneforge_scheduler_lost_device_seconds_total"
        assert REGISTRY.get_sample_value(seconds, {"cause": "preemption"}) == job.ledger.lost_to_preemption
        assert REGISTRY.get_sample_value("tuneforge_scheduler_saved_device_seconds_total") == job.ledger.saved


@on_loop
async def test_what_may_not_be_stopped_is_left_alone(tmp_path: Path) -> None:
    """Neither a job that says so nor one within its quantum gives way; the high one is next all the same."""
    async with staged(tmp_path, timing=PATIENT) as stage:
        await stage.trainer.register(stage.address)
        fixed = await running(stage, scheduling=scheduling_pb2.Scheduling(preemptible=False))
        await forwards(stage, 1000)
        await stage.create("waits")
        await stage.create("high", scheduling=HIGH)
        await forwards(stage, 1)
        assert (await stage.get("low")).state == jobs_pb2.JOB_STATE_RUNNING
        await stage.trainer.end(fixed, SUCCEEDED)
        young = await stage.trainer.started(2)
        assert young.request.name == "projects/p/jobs/high/attempts/1"
        await stage.trainer.emit(young)
        assert (await stage.get("high")).scheduling.preemptible
        await stage.trainer.end(young, SUCCEEDED)
        last = await stage.trainer.started(3)
        assert last.request.name == "projects/p/jobs/waits/attempts/1"
        assert not last.stops


@on_loop
async def test_work_lost_with_its_process_is_in_the_ledger(tmp_path: Path) -> None:
    """An attempt that is lost without a checkpoint costs all of its time, and the restart."""
    async with staged(tmp_path, timing=PATIENT) as stage:
        await stage.trainer.register(stage.address)
        lost = await running(stage, "j1")
        await forwards(stage, 50)
        await stage.trainer.emit(lost, 4)
        failure = types_pb2.Failure(message="killed", fault=types_pb2.FAULT_CLASS_INFRASTRUCTURE)
        await stage.trainer.end(lost, LOST, failure)
        again = await stage.trainer.started(2)
        await forwards(stage, 5)
        await resumed(stage, again, 0)
        await stage.trainer.end(again, SUCCEEDED)
        ledger = (await stage.until_state("SUCCEEDED")).ledger
        assert (ledger.lost_to_faults, ledger.saved, ledger.preemptions) == (55, 0, 0)


@on_loop
async def test_a_job_starts_after_its_moment(tmp_path: Path) -> None:
    """It waits in the queue until then, whatever is free; a job without one overtakes it."""
    async with staged(tmp_path, timing=PATIENT) as stage:
        await stage.trainer.register(stage.address)
        await stage.create("later", scheduling=scheduling_pb2.Scheduling(start_after=at(stage, 60)))
        first = await running(stage, "now")
        await stage.trainer.end(first, SUCCEEDED)
        await stage.until_state("SUCCEEDED", "now")
        assert (await stage.get("later")).state == jobs_pb2.JOB_STATE_QUEUED
        await forwards(stage, 61)
        assert (await stage.trainer.started(2)).request.name == "projects/p/jobs/later/attempts/1"


@on_loop
async def test_a_deadline_that_passes_is_said_and_ends_nothing(tmp_path: Path) -> None:
    """The job gets the condition LATE and a warning, once, and goes on; one that is over already is refused."""
    async with staged(tmp_path, timing=PATIENT) as stage:
        await stage.trainer.register(stage.address)
        attempt = await running(stage, "j1", scheduling=scheduling_pb2.Scheduling(deadline=at(stage, 30)))
        assert jobs_pb2.JOB_CONDITION_LATE not in (await stage.get()).conditions
        await forwards(stage, 31)
        async for event in stage.events():
            if "deadline has passed" in event.log.message:
                break
        assert jobs_pb2.JOB_CONDITION_LATE in (await stage.get()).conditions
        await forwards(stage, 1)
        await stage.trainer.end(attempt, SUCCEEDED)
        await stage.until_state("SUCCEEDED")
        assert sum("deadline" in event.log.message for event in await stage.all_events()) == 1


@on_loop
async def test_every_wrong_field_of_scheduling_is_listed(tmp_path: Path) -> None:
    """Class, window, nodes, labels and kinds in one answer; nothing is stored."""
    async with staged(tmp_path, timing=PATIENT) as stage:
        wrong = scheduling_pb2.Scheduling(
            priority=9,  # type: ignore[arg-type]
            deadline=at(stage, -5),
            exclude_nodes=["n1"],
            exclude_labels={"": "x"},
            device_kinds=[" "],
        )
        error = await refusal(stage.create(scheduling=wrong), "INVALID_ARGUMENT")
        assert {each.field for each in error.fields} == {
            "scheduling.priority",
            "scheduling.deadline",
            "scheduling.exclude_nodes[0]",
            "scheduling.exclude_labels['']",
            "scheduling.device_kinds[0]",
        }
        window = scheduling_pb2.Scheduling(start_after=at(stage, 60), deadline=at(stage, 30))
        error = await refusal(stage.create(scheduling=window), "INVALID_ARGUMENT")
        assert [each.field for each in error.fields] == ["scheduling.deadline"]
        assert "after `start_after`" in error.fields[0].description


@on_loop
async def test_excluded_nodes_and_labels_are_kept_off(tmp_path: Path) -> None:
    """A job goes where it may; one that no node may run is refused, with the reason."""
    other = FakeTrainer(name="nodes/n2", labels={"zone": "b"})
    async with staged(tmp_path, timing=PATIENT) as stage, serve_trainer(other):
        await stage.trainer.register(stage.address)
        await other.register(stage.address)
        await stage.create("named", scheduling=scheduling_pb2.Scheduling(exclude_nodes=["nodes/n1"]))
        assert (await other.started()).request.name == "projects/p/jobs/named/attempts/1"
        await stage.create("labelled", scheduling=scheduling_pb2.Scheduling(exclude_labels={"zone": ""}))
        assert (await stage.trainer.started()).request.name == "projects/p/jobs/labelled/attempts/1"
        nowhere = scheduling_pb2.Scheduling(exclude_labels={"zone": "b"}, exclude_nodes=["nodes/n1"])
        error = await refusal(stage.create("nowhere", scheduling=nowhere), "FAILED_PRECONDITION")
        assert error.reason == "DOES_NOT_FIT"
        kinds = scheduling_pb2.Scheduling(device_kinds=["h200"])
        error = await refusal(stage.create("kinds", scheduling=kinds), "FAILED_PRECONDITION")
        assert "no accelerators, not h200" in error.message


@on_loop
async def test_processor_and_memory_of_a_node_are_shared_out(tmp_path: Path) -> None:
    """Three slots and two cores: jobs of 1.2 cores run one after another, and a small one beside them."""
    async with staged(tmp_path, timing=PATIENT, trainer={"slots": 3}) as stage:
        await stage.trainer.register(stage.address)
        large = tiny_spec(resources=spec_pb2.Resources(cpu_millis=1200))
        small = tiny_spec(resources=spec_pb2.Resources(cpu_millis=500))
        first = await running(stage, "first", spec=large)
        await stage.create("second", spec=large)
        await stage.create("small", spec=small)
        assert (await stage.trainer.started(2)).request.name == "projects/p/jobs/small/attempts/1"
        assert (await stage.get("second")).state == jobs_pb2.JOB_STATE_QUEUED
        await stage.trainer.end(first, SUCCEEDED)
        assert (await stage.trainer.started(3)).request.name == "projects/p/jobs/second/attempts/1"


@on_loop
async def test_a_drained_node_takes_nothing_and_its_jobs_leave_at_the_deadline(tmp_path: Path) -> None:
    """State and reason are listed, nothing new starts; at the deadline its job goes on elsewhere, even a fixed one."""
    other = FakeTrainer(name="nodes/n2")
    async with staged(tmp_path, timing=PATIENT) as stage, serve_trainer(other):
        await stage.trainer.register(stage.address)
        attempt = await running(stage, "j1", scheduling=scheduling_pb2.Scheduling(preemptible=False))
        request = scheduler_pb2.DrainNodeRequest(
            name="nodes/n1",
            reason="new disks",
            deadline=at(stage, 60),
            request_id="8f14e45f-ceea-4e7a-9c1d-000000000002",
        )
        node = await stage.stub.DrainNode(request)
        assert (node.state, node.drain.reason, node.drain.actor) == (
            nodes_pb2.NODE_STATE_DRAINING,
            "new disks",
            "local",
        )
        assert await stage.stub.DrainNode(request) == node
        await other.register(stage.address)
        await stage.create("next")
        elsewhere = await other.started()
        assert elsewhere.request.name == "projects/p/jobs/next/attempts/1"
        await other.end(elsewhere, SUCCEEDED)
        await stage.until_state("SUCCEEDED", "next")
        assert not attempt.stops
        stage.clock.advance(61)
        await other.beat(stage.address)
        await stage.trainer.beat(stage.address)
        await stage.trainer.until(lambda: attempt.stops)
        assert (await stage.until_state("PREEMPTING")).last_change.reason == "NODE_DRAINED"
        await stage.trainer.end(attempt, INTERRUPTED)
        assert (await other.started(2)).request.name == "projects/p/jobs/j1/attempts/2"
        await stage.restart()
        (listed, _) = (await stage.stub.ListNodes(scheduler_pb2.ListNodesRequest())).nodes
        assert listed.drain.reason == "new disks"
        await stage.trainer.register(stage.address)
        after = await stage.stub.UndrainNode(scheduler_pb2.UndrainNodeRequest(name="nodes/n1"))
        assert (after.state, after.HasField("drain")) == (nodes_pb2.NODE_STATE_READY, False)
        await stage.create("back")
        assert (await stage.trainer.started(2)).request.name == "projects/p/jobs/back/attempts/1"


@on_loop
async def test_a_gang_that_waits_long_is_kept_its_nodes(tmp_path: Path) -> None:
    """Small jobs that come later go round the free node that it needs, until the other one is free too."""
    other = FakeTrainer(name="nodes/n2")
    async with staged(tmp_path, timing=PATIENT) as stage, serve_trainer(other):
        await stage.trainer.register(stage.address)
        fixed = await running(stage, "fixed", scheduling=scheduling_pb2.Scheduling(preemptible=False))
        await other.register(stage.address)
        await stage.create("gang", spec=tiny_spec(resources=spec_pb2.Resources(nodes=2)))
        stage.clock.advance(601)
        await stage.create("small")
        await other.beat(stage.address)
        await forwards(stage, 1)
        assert (await stage.get("small")).state == jobs_pb2.JOB_STATE_QUEUED
        await stage.trainer.end(fixed, SUCCEEDED)
        assert (await stage.trainer.started(2)).request.name == "projects/p/jobs/gang/attempts/1"
        assert not other.starts  # its part there waits for the first one's address
        assert (await stage.get("gang")).last_change.reason == "PLACED"


@on_loop
async def test_a_job_that_does_not_save_in_time_goes_on_from_the_checkpoint_before(tmp_path: Path) -> None:
    """Its node ends it after the grace; that costs no retry, and what was lost is in the ledger."""
    async with staged(tmp_path, timing=PATIENT) as stage:
        await stage.trainer.register(stage.address)
        low = await running(stage, scheduling=LOW)
        await forwards(stage, 100)
        await stage.trainer.emit(low, 3)
        await stage.create("high", scheduling=HIGH)
        await stage.trainer.until(lambda: low.stops)
        failure = types_pb2.Failure(message="ended", fault=types_pb2.FAULT_CLASS_INFRASTRUCTURE)
        await stage.trainer.end(low, LOST, failure)
        high = await stage.trainer.started(2)
        await stage.trainer.end(high, SUCCEEDED)
        again = await stage.trainer.started(3)
        await resumed(stage, again, 1)
        messages = [event.state.message async for event in _until(stage, "low", "RUNNING", 2)]
        ledger = (await stage.get("low")).ledger
        assert (ledger.preemptions, ledger.lost_to_faults) == (1, 0)
        assert (ledger.lost_to_preemption, ledger.saved) == (75, 25)
        assert any("it goes on from the checkpoint before" in message for message in messages)
        assert not any("Infrastructure fault" in message for message in messages)


async def _until(stage: Stage, job_id: str, state: str, times: int) -> AsyncIterator[events_pb2.Event]:
    """Yields the changes of a job until it has been in a state so often."""
    async for event in stage.events(job_id):
        if event.WhichOneof("payload") == "state":
            yield event
            times -= event.state.to == state
        if times == 0:
            return


@on_loop
async def test_what_cannot_be_drained_is_refused(tmp_path: Path) -> None:
    """A node that is not known, a reason that is too long and a deadline that is none, together."""
    async with staged(tmp_path, timing=PATIENT) as stage:
        unknown = scheduler_pb2.DrainNodeRequest(name="nodes/nobody")
        assert (await refusal(stage.stub.DrainNode(unknown), "NOT_FOUND")).reason == "NOT_FOUND"
        undrain = scheduler_pb2.UndrainNodeRequest(name="nodes/nobody")
        assert (await refusal(stage.stub.UndrainNode(undrain), "NOT_FOUND")).reason == "NOT_FOUND"
        early = Timestamp()
        early.FromDatetime(datetime(1950, 1, 1, tzinfo=UTC))
        wrong = scheduler_pb2.DrainNodeRequest(name="nodes/n1", reason="x" * 1025, deadline=early)
        error = await refusal(stage.stub.DrainNode(wrong), "INVALID_ARGUMENT")
        assert [each.field for each in error.fields] == ["reason", "deadline"]


@on_loop
async def test_a_job_waits_until_others_have_succeeded(tmp_path: Path) -> None:
    """BLOCKED until all of them have; one that fails, or was cancelled before, fails it or is refused at once."""
    async with staged(tmp_path, timing=PATIENT, trainer={"slots": 3}) as stage:
        await stage.trainer.register(stage.address)
        names = ["projects/p/jobs/one", "projects/p/jobs/two"]
        one, two = await running(stage, "one"), await running(stage, "two")
        both = scheduling_pb2.Scheduling(depends_on=names)
        assert (await stage.create("both", scheduling=both)).state == jobs_pb2.JOB_STATE_BLOCKED
        second = scheduling_pb2.Scheduling(depends_on=names[1:])
        await stage.create("second", scheduling=second)
        await stage.trainer.end(one, SUCCEEDED)
        await stage.until_state("SUCCEEDED", "one")
        assert (await stage.get("both")).state == jobs_pb2.JOB_STATE_BLOCKED
        await stage.restart()
        await stage.trainer.register(stage.address)
        await stage.trainer.end(two, SUCCEEDED)
        await stage.trainer.started(4)
        begun = sorted(stage.trainer.starts[2:])
        assert begun == ["projects/p/jobs/both/attempts/1", "projects/p/jobs/second/attempts/1"]
        await stage.create("next", scheduling=scheduling_pb2.Scheduling(depends_on=["projects/p/jobs/second"]))
        await stage.cancel("second")
        await stage.trainer.end(stage.trainer.held[begun[1]], nodes_pb2.ATTEMPT_STATE_CANCELLED)
        assert (await stage.until_state("FAILED", "next")).last_change.reason == "DEPENDENCY_FAILED"
        wrong = scheduling_pb2.Scheduling(
            depends_on=["projects/p/jobs/second", "projects/q/jobs/a", "b", "projects/p/jobs/c"]
        )
        error = await refusal(stage.create("wrong", scheduling=wrong), "INVALID_ARGUMENT")
        assert [each.field for each in error.fields] == [f"scheduling.depends_on[{index}]" for index in range(4)]
