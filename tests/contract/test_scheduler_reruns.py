"""Jobs that are run again over real sockets."""

from __future__ import annotations

from pathlib import Path

from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.fake_registry import DATA
from tests.support.scheduling import staged, tiny_spec
from tuneforge.v1 import datasets_pb2, jobs_pb2, nodes_pb2, scheduler_pb2, scheduling_pb2

ID = "8f14e45f-ceea-4e7a-9c1d-000000000042"


@on_loop
async def test_an_ended_job_is_run_again_with_the_same_pins(tmp_path: Path) -> None:
    """A rerun has the versions, labels and policy of the first job, also beside newer rows; `repin` takes those."""
    async with staged(tmp_path) as stage:
        spec = tiny_spec(seed=7)
        spec.data.train.dataset = "projects/p/datasets/rows"
        first = await stage.create(spec=spec, labels={"team": "a"}, retry=jobs_pb2.RetryPolicy(user=3))
        request = scheduler_pb2.RerunJobRequest(name=first.name, job_id="again", request_id=ID)
        error = await refusal(stage.stub.RerunJob(request), "FAILED_PRECONDITION")
        assert error.reason == "WRONG_STATE"
        await stage.cancel()
        newer = datasets_pb2.DatasetVersion()
        newer.CopyFrom(stage.registry.datasets[DATA])
        newer.name, newer.manifest.digest = "projects/p/datasets/rows/versions/4", "4" * 64
        stage.registry.datasets |= {newer.name: newer, "projects/p/datasets/rows/versions/latest": newer}
        again = await stage.stub.RerunJob(request)
        assert (again.name, again.rerun_of) == ("projects/p/jobs/again", first.name)
        assert (again.train, again.base, again.spec.seed) == (first.train, first.base, 7)
        assert again.training_digest == first.training_digest
        assert (dict(again.labels), again.faults.policy.user) == ({"team": "a"}, 3)
        assert await stage.stub.RerunJob(request) == again
        repinned = scheduler_pb2.RerunJobRequest(name=first.name, repin=True)
        other = await stage.stub.RerunJob(repinned)
        assert (other.train.digest, other.rerun_of) == ("4" * 64, first.name)
        assert other.training_digest != first.training_digest
        del stage.registry.datasets[DATA]
        error = await refusal(stage.stub.RerunJob(scheduler_pb2.RerunJobRequest(name=first.name)), "INVALID_ARGUMENT")
        assert [each.field for each in error.fields] == ["spec.data.train.dataset"]
        missing = scheduler_pb2.RerunJobRequest(name="projects/p/jobs/no")
        assert (await refusal(stage.stub.RerunJob(missing), "NOT_FOUND")).reason == "NOT_FOUND"


@on_loop
async def test_what_was_waited_for_is_not_waited_for_again(tmp_path: Path) -> None:
    """A job that ran after another one runs again although that one was removed; one that never ran still waits."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create("first")
        waits = scheduling_pb2.Scheduling(depends_on=["projects/p/jobs/first"])
        await stage.create("never", scheduling=waits)
        await stage.cancel("never")
        await stage.create("second", scheduling=waits)
        never = await stage.stub.RerunJob(scheduler_pb2.RerunJobRequest(name="projects/p/jobs/never", job_id="waits"))
        assert never.state == jobs_pb2.JOB_STATE_BLOCKED
        await stage.cancel("waits")
        await stage.trainer.end(await stage.trainer.started(1), nodes_pb2.ATTEMPT_STATE_SUCCEEDED)
        await stage.trainer.end(await stage.trainer.started(2), nodes_pb2.ATTEMPT_STATE_SUCCEEDED)
        await stage.until_state("SUCCEEDED", "second")
        await stage.stub.DeleteJob(scheduler_pb2.DeleteJobRequest(name="projects/p/jobs/first"))
        again = await stage.stub.RerunJob(scheduler_pb2.RerunJobRequest(name="projects/p/jobs/second", job_id="again"))
        assert again.state == jobs_pb2.JOB_STATE_QUEUED
        assert not again.scheduling.depends_on
