"""Reference cases about jobs and their states: 001-13, 001-14, 001-23, 001-25, 002-11 and 003-36."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.fake_registry import BASE, DATA
from tests.support.scheduling import staged, tiny_spec
from tuneforge.v1 import errors_pb2, explanations_pb2, jobs_pb2, nodes_pb2, scheduler_pb2, spec_pb2, types_pb2

SUCCEEDED, FAILED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED, nodes_pb2.ATTEMPT_STATE_FAILED
MISSING = "projects/p/models/invalid-id/versions/1"


@on_loop
async def test_001_13_a_spec_is_validated_without_creating_a_job(tmp_path: Path) -> None:
    """001-13: the answer is the job as it would be, and no job exists afterwards."""
    async with staged(tmp_path) as stage:
        job = await stage.create("named", validate_only=True)
        assert (job.name, job.base.version) == ("projects/p/jobs/named", BASE)
        assert job.spec.optimization.rows_per_step
        assert not (await stage.stub.ListJobs(scheduler_pb2.ListJobsRequest(parent="projects/p"))).jobs


@on_loop
async def test_001_14_an_unknown_model_is_the_only_error(tmp_path: Path) -> None:
    """001-14: one entry that names the model; what the request leaves out takes defaults and is no error."""
    async with staged(tmp_path) as stage:
        spec = tiny_spec()
        spec.base.model = MISSING
        error = await refusal(stage.create(spec=spec, validate_only=True), "INVALID_ARGUMENT")
        assert [each.field for each in error.fields] == ["spec.base.model"]
        assert "invalid-id" in error.fields[0].description


@on_loop
async def test_001_23_a_named_job_says_its_id_its_defaults_and_its_model(tmp_path: Path) -> None:
    """001-23: the id is that of the caller, or one of the server's; so is the model; a submit validates."""
    async with staged(tmp_path) as stage:
        job = await stage.create("initial-model-training")
        assert job.name == "projects/p/jobs/initial-model-training"
        assert job.spec.output.model == "projects/p/models/initial-model-training"
        assert job.spec.lora.alpha
        assert job.spec.optimization.learning_rate
        chosen = await stage.create("")
        assert chosen.spec.output.model == f"projects/p/models/{chosen.name.rpartition('/')[2]}"
        bad = tiny_spec(optimization=spec_pb2.Optimization(learning_rate=-1.0))
        assert (await refusal(stage.create("bad", spec=bad), "INVALID_ARGUMENT")).reason == "INVALID_FIELD"


@on_loop
async def test_001_25_the_result_of_a_job_is_tuned_further(tmp_path: Path) -> None:
    """001-25: a second job begins from what the first one published, pinned by digest."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create("first")
        await stage.trainer.end(await stage.trainer.started(), SUCCEEDED)
        first = await stage.until_state("SUCCEEDED", "first")
        spec = tiny_spec()
        spec.base.CopyFrom(spec_pb2.BaseModel(output_of_job=first.name))
        second = await stage.create("second", spec=spec)
        assert second.base.version == first.version.version
        assert second.base.digest == first.version.digest
        started = (await stage.trainer.started(2)).request
        assert started.name == "projects/p/jobs/second/attempts/1"


@on_loop
async def test_002_11_what_is_missing_is_named_and_what_comes_is_waited_for(tmp_path: Path) -> None:
    """002-11: names of nothing are refused, both at once; a base that a job has yet to publish is waited for by name.

    The job says for what it waits, and starts with the moment in which that is there: nobody polls.
    """
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        spec = tiny_spec()
        spec.base.model, spec.data.train.dataset = MISSING, DATA.replace("rows", "missing")
        error = await refusal(stage.create("none", spec=spec), "INVALID_ARGUMENT")
        assert {each.field for each in error.fields} == {"spec.base.model", "spec.data.train.dataset"}
        base = await stage.create("base")
        held = await stage.trainer.started()
        spec = tiny_spec()
        spec.base.CopyFrom(spec_pb2.BaseModel(output_of_job=base.name))
        child = await stage.create("child", spec=spec)
        assert child.state == jobs_pb2.JOB_STATE_BLOCKED
        assert base.name in child.last_change.message
        asked = scheduler_pb2.ExplainJobRequest(name=child.name)
        found = await stage.stub.ExplainJob(asked)
        assert [each.reason for each in found.blockers] == [explanations_pb2.BLOCKER_REASON_DEPENDENCY]
        assert list(found.blockers[0].jobs) == [base.name]
        await stage.trainer.end(held, SUCCEEDED)
        assert (await stage.trainer.started(2)).request.name == f"{child.name}/attempts/1"


@on_loop
async def test_003_36_a_job_lives_as_its_states_say(tmp_path: Path) -> None:
    """003-36: waiting, running with its step and loss, succeeded with its model, failed with a message, cancelled.

    A restart of the scheduler in the middle loses no job and starts none twice.
    """
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        assert (await stage.create("good")).state == jobs_pb2.JOB_STATE_QUEUED
        held = await stage.trainer.started()
        await stage.trainer.emit(held, 3)
        running = await stage.until_state("RUNNING", "good")
        assert running.start_time.seconds
        await stage.restart()
        await stage.trainer.register(stage.address)
        await stage.trainer.emit(held, 1)
        await stage.trainer.until(lambda: held.acks and held.acks[-1] == 4)
        assert (await stage.get("good")).step == 4
        await stage.trainer.end(held, SUCCEEDED)
        done = await stage.until_state("SUCCEEDED", "good")
        assert done.version.version.startswith("projects/p/models/good/versions/")
        assert done.end_time.seconds
        assert stage.trainer.starts == [held.request.name]
        steps = [event.step for event in await stage.all_events("good") if event.HasField("step")]
        assert [each.step for each in steps] == [1, 2, 3, 4]
        assert [each.loss for each in steps] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
        await stage.create("bad")
        failure = types_pb2.Failure(
            reason=errors_pb2.ERROR_REASON_INVALID_DATA, message="row 3 has no answer", fault=types_pb2.FAULT_CLASS_USER
        )
        await stage.trainer.end(await stage.trainer.started(2), FAILED, failure)
        failed = await stage.until_state("FAILED", "bad")
        assert failed.failure.message == "row 3 has no answer"
        await stage.create("gone")
        last = await stage.trainer.started(3)
        await stage.cancel("gone")
        await stage.trainer.until(lambda: last.stops)
        await stage.trainer.end(last, nodes_pb2.ATTEMPT_STATE_CANCELLED)
        await stage.until_state("CANCELLED", "gone")
