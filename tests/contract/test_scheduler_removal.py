"""Removing jobs over real sockets: which may be, what stays, what is let go, and what a stop in between leaves."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.duration_pb2 import Duration
from sqlalchemy import func, select

from services.scheduler.doctor.checkup import examine
from services.scheduler.doctor.finding import Finding
from services.scheduler.lifecycle.removing import Removing
from services.scheduler.store import removal, tables
from tests.contract.test_scheduler_checkpoints import begun, held, save
from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged, with_timing
from tuneforge.v1 import jobs_pb2, nodes_pb2, scheduler_pb2

pytestmark = EACH_DATABASE
ID = "8f14e45f-ceea-4e7a-9c1d-000000000041"
J1 = "projects/p/jobs/j1"
SUCCEEDED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED


async def delete(stage: Stage, name: str = J1, request_id: str = "") -> jobs_pb2.Job:
    """Removes a job."""
    return await stage.stub.DeleteJob(scheduler_pb2.DeleteJobRequest(name=name, request_id=request_id))


async def chunks_of(stage: Stage, number: int = 1) -> int:
    """Returns how many pieces of a job's log are on the disk."""
    assert stage.scheduler is not None
    query = select(func.count()).where(tables.chunks.c.job == number)
    return await stage.scheduler.ledger.read(lambda db: int(db.execute(query).scalar_one()))


async def findings(stage: Stage) -> list[Finding]:
    """Returns what the doctor finds wrong in the database."""
    assert stage.scheduler is not None
    return await stage.scheduler.ledger.read(examine)


async def until_gone(stage: Stage) -> None:
    """Waits until nothing waits to be taken from the disk."""
    assert stage.scheduler is not None
    while await stage.scheduler.ledger.read(lambda db: removal.pending(db, 1)):
        pass


@on_loop
async def test_removed_job_is_gone_and_its_version_stays(tmp_path: Path) -> None:
    """A removed job is found by nobody, its log leaves the disk, its version stays, and its name is not given again."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create(labels={"team": "a"})
        attempt = await stage.trainer.started()
        error = await refusal(delete(stage), "FAILED_PRECONDITION")
        assert error.reason == "WRONG_STATE"
        assert error.metadata["state"] in {"STARTING", "RUNNING"}
        await stage.trainer.emit(attempt, 5)
        await stage.trainer.end(attempt, SUCCEEDED)
        job = await stage.until_state("SUCCEEDED")
        await stage.trainer.until(lambda: attempt.is_gone)
        answer = await delete(stage, request_id=ID)
        assert (answer.name, answer.version) == (J1, job.version)
        assert await delete(stage, request_id=ID) == answer
        assert (await refusal(delete(stage), "NOT_FOUND")).reason == "NOT_FOUND"
        assert (await refusal(stage.get(), "NOT_FOUND")).reason == "NOT_FOUND"
        assert (await refusal(stage.watch().read(), "NOT_FOUND")).reason == "NOT_FOUND"
        everything = scheduler_pb2.ListJobsRequest(parent="projects/p")
        assert not (await stage.stub.ListJobs(everything)).jobs
        assert (await refusal(stage.create(), "ALREADY_EXISTS")).reason == "ALREADY_EXISTS"
        await until_gone(stage)
        assert await chunks_of(stage) == 0
        assert job.version.version in stage.registry.models
        assert await findings(stage) == []


@on_loop
async def test_what_is_needed_is_not_removed(tmp_path: Path) -> None:
    """A pinned checkpoint and a job that begins from one hold a job; without them its copies are let go with it."""
    async with staged(tmp_path) as stage:
        attempt = await begun(stage)
        await save(stage, attempt, 2)
        await held(stage, 2)
        await stage.trainer.end(attempt, SUCCEEDED)
        await stage.until_state("SUCCEEDED")
        checkpoint = f"{J1}/checkpoints/2"
        await stage.stub.PinCheckpoint(scheduler_pb2.PinCheckpointRequest(name=checkpoint))
        error = await refusal(delete(stage), "FAILED_PRECONDITION")
        assert (error.reason, error.metadata["holder"]) == ("IN_USE", checkpoint)
        await stage.stub.UnpinCheckpoint(scheduler_pb2.UnpinCheckpointRequest(name=checkpoint))
        await stage.create("j2", from_checkpoint=checkpoint)
        error = await refusal(delete(stage), "FAILED_PRECONDITION")
        assert error.metadata["holder"] == "projects/p/jobs/j2"
        await stage.trainer.started(2)
        await stage.cancel("j2")
        await stage.trainer.end(stage.trainer.held["projects/p/jobs/j2/attempts/1"], nodes_pb2.ATTEMPT_STATE_CANCELLED)
        await stage.until_state("CANCELLED", "j2")
        assert checkpoint in stage.registry.held_blobs
        await delete(stage)
        await until_gone(stage)
        while checkpoint in stage.registry.held_blobs:
            await chunks_of(stage)


@on_loop
async def test_jobs_go_when_their_time_is_over(tmp_path: Path) -> None:
    """A job with a `ttl` says when it goes, and goes then, also when the scheduler was stopped in the middle of it."""
    only_at_its_start = with_timing(removal_every_s=3600.0)  # rounds that come meanwhile would be quicker than the test
    async with staged(tmp_path, timing=only_at_its_start) as stage:
        await stage.create(ttl=Duration(seconds=60))
        await stage.create("j2")
        job = await stage.cancel()
        assert job.expire_time.ToMilliseconds() == stage.clock.now_ms + 60_000
        await stage.cancel("j2")
        assert stage.scheduler is not None
        (removing,) = (work for work in stage.scheduler.works if isinstance(work, Removing))
        await removing.round()
        assert (await stage.get()).name == J1
        stage.clock.advance(61)
        number = (await stage.scheduler.ledger.read_now(lambda db, now: removal.due(db, now, 9)))[0]
        await stage.scheduler.ledger.write(lambda tx: removal.begin(tx, number))
        await stage.restart()
        await until_gone(stage)
        assert (await refusal(stage.get(), "NOT_FOUND")).reason == "NOT_FOUND"
        assert (await stage.get("j2")).name == "projects/p/jobs/j2"
        assert await chunks_of(stage) == 0
