"""Results that are not trained again, over real sockets: when an earlier job stands for a new one, and when not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from services.scheduler.doctor.checkup import examine
from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged, tiny_spec
from tuneforge.v1 import jobs_pb2, lineage_pb2, nodes_pb2, scheduler_pb2, scheduling_pb2, spec_pb2

pytestmark = EACH_DATABASE
FINISHED = scheduler_pb2.REUSE_FINISHED
RUNNING = scheduler_pb2.REUSE_FINISHED_OR_RUNNING
SUCCEEDED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED


async def train(stage: Stage, job: str = "j1", **fields: Any) -> jobs_pb2.Job:
    """Trains a job to its end."""
    count = len(stage.trainer.starts)
    await stage.create(job, **fields)
    await stage.trainer.end(await stage.trainer.started(count + 1), SUCCEEDED)
    return await stage.until_state("SUCCEEDED", job)


@on_loop
async def test_finished_result_is_given_again(tmp_path: Path) -> None:
    """A job that would train the same has succeeded at once with the version that is there; nothing is started."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        first = await train(stage)
        assert len(first.training_digest) == 64
        second = await stage.create("j2", reuse=FINISHED, labels={"team": "b"})
        assert (second.state, second.reused_from) == (jobs_pb2.JOB_STATE_SUCCEEDED, first.name)
        assert second.version == first.version
        assert second.training_digest == first.training_digest
        assert second.HasField("end_time")
        assert [event.state.reason for event in await stage.all_events("j2")] == ["REUSED"]
        third = await stage.create("j3", reuse=RUNNING)
        assert third.reused_from == first.name, "the one that trained is named, not the one that reused"
        assert (await stage.create("j4")).state == jobs_pb2.JOB_STATE_QUEUED, "nobody asked for an old result"
        assert len(stage.registry.published) == 1
        assert stage.scheduler is not None
        assert await stage.scheduler.ledger.read(examine) == []


@on_loop
async def test_nothing_follows_on_a_result_that_is_given_again(tmp_path: Path) -> None:
    """Where it would run no longer matters: a slip in that is not said, and the log ends with the end."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await train(stage)
        where = scheduling_pb2.Scheduling(exclude_nodes=["nodes/typo"])
        job = await stage.create("j2", reuse=FINISHED, scheduling=where)
        assert (job.state, list(job.warnings)) == (jobs_pb2.JOB_STATE_SUCCEEDED, [])
        assert [event.WhichOneof("payload") for event in await stage.all_events("j2")] == ["state"]
        where.start_after.FromMilliseconds(stage.clock.now_ms + 3_600_000)  # or a start might be in its log by now
        waits = await stage.create("j3", scheduling=where)
        assert (len(waits.warnings), waits.latest_job_seq) == (1, (await stage.get("j3")).latest_job_seq)


@on_loop
async def test_what_differs_or_is_gone_is_trained(tmp_path: Path) -> None:
    """Another seed, another project's job, a model that is asked for, a deleted or tainted version: all are trained."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        first = await train(stage)
        queued = jobs_pb2.JOB_STATE_QUEUED
        assert (await stage.create("seed", spec=tiny_spec(seed=5), reuse=FINISHED)).state == queued
        named = tiny_spec(output=spec_pb2.Output(model="projects/p/models/mine"))
        assert (await stage.create("named", spec=named, reuse=FINISHED)).state == queued
        version = stage.registry.models[first.version.version]
        version.taints.append(lineage_pb2.Revocation(actor="ann", reason="wrong"))
        assert (await stage.create("tainted", reuse=FINISHED)).state == queued
        del version.taints[:]
        kept = stage.registry.models.pop(first.version.version)
        assert (await stage.create("deleted", reuse=FINISHED)).state == queued
        stage.registry.models[first.version.version] = kept
        request = scheduler_pb2.CreateJobRequest(parent="projects/q", job_id="other", spec=tiny_spec(), reuse=FINISHED)
        assert (await stage.stub.CreateJob(request)).state == queued
        assert (await stage.create("again", reuse=FINISHED)).reused_from == first.name
        error = await refusal(stage.create("bad", reuse=scheduler_pb2.Reuse.ValueType(99)), "INVALID_ARGUMENT")
        assert [each.field for each in error.fields] == ["reuse"]


@on_loop
async def test_calls_at_the_same_moment_train_once(tmp_path: Path) -> None:
    """Of many calls that allow a running job to be theirs one makes a job, and all get it; after its end its result."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        answers = await asyncio.gather(*(stage.create(f"c{number}", reuse=RUNNING) for number in range(8)))
        (name,) = {job.name for job in answers}
        listed = await stage.stub.ListJobs(scheduler_pb2.ListJobsRequest(parent="projects/p"))
        assert [job.name for job in listed.jobs] == [name]
        only_finished = await stage.create("f", reuse=FINISHED)
        assert only_finished.state == jobs_pb2.JOB_STATE_QUEUED
        await stage.cancel("f")
        await stage.trainer.end(await stage.trainer.started(), SUCCEEDED)
        await stage.until_state("SUCCEEDED", name.rpartition("/")[2])
        late = await stage.create("late", reuse=RUNNING)
        assert (late.state, late.reused_from) == (jobs_pb2.JOB_STATE_SUCCEEDED, name)
        assert len(stage.trainer.starts) == 1
