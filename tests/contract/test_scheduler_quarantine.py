"""Poison jobs over real sockets: what is stored of them is damaged, or they take nodes down. The others go on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import update

from services.grpckit.database import Database
from services.scheduler.doctor.checkup import examine
from services.scheduler.service import MIGRATIONS, SCHEMA_HEAD
from services.scheduler.store import marks, tables
from services.scheduler.store.transaction import Transaction
from tests.support.event_loop import on_loop
from tests.support.fake_trainer import FakeTrainer, serve_trainer
from tests.support.postgres import EACH_DATABASE, postgres_of
from tests.support.scheduling import Stage, staged
from tuneforge.v1 import errors_pb2, jobs_pb2, nodes_pb2, scheduler_pb2

QUARANTINED = errors_pb2.ERROR_REASON_QUARANTINED
SUCCEEDED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED


async def away(stage: Stage, change: Callable[[Transaction], object]) -> None:
    """Stops the scheduler, changes its database as nobody who knows the rules would, and starts another one."""
    await stage.stop()
    postgres = postgres_of("scheduler", stage.folder)
    path = stage.folder / "scheduler.db"
    database = Database(path, migrations=MIGRATIONS, schema_head=SCHEMA_HEAD, service="scheduler", postgres=postgres)
    database.open()
    database.write_sync(lambda db: change(Transaction(db, 0)))
    database.close()
    await stage.start()


async def more_nodes(life: AsyncExitStack, *numbers: int) -> list[FakeTrainer]:
    """Serves further nodes for as long as a stack is open."""
    return [await life.enter_async_context(serve_trainer(FakeTrainer(name=f"nodes/n{each}"))) for each in numbers]


async def put_aside(stage: Stage) -> jobs_pb2.Job:
    """Waits until j1 has failed; until it is put aside it may be that it cannot be read."""
    while True:
        try:
            job = await stage.get()
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.INTERNAL  # noqa: PT017 - one of the two ends of a try
            continue
        if job.state == jobs_pb2.JOB_STATE_FAILED:
            return job


async def other_job_succeeds(stage: Stage) -> None:
    """Runs another job to its end."""
    await stage.create("other")
    await stage.trainer.until(lambda: "projects/p/jobs/other/attempts/1" in stage.trainer.held)
    await stage.trainer.end(stage.trainer.held["projects/p/jobs/other/attempts/1"], SUCCEEDED)
    await stage.until_state("SUCCEEDED", "other")


@EACH_DATABASE
@pytest.mark.parametrize(
    ("columns", "evidence"),
    [
        ({"node_labels": "{half"}, "JSONDecodeError"),
        ({"inputs": b"\xff\xff\xff\xff"}, "DecodeError"),
        ({"spec": b"\xff\xff\xff\xff"}, "DecodeError"),
    ],
    ids=["row", "inputs", "spec"],
)
def test_damaged_job_is_put_aside_and_others_run(tmp_path: Path, columns: dict[str, Any], evidence: str) -> None:
    """A job whose stored row or message cannot be read fails as QUARANTINED with what was seen; the next one runs."""

    @on_loop
    async def run() -> None:
        async with staged(tmp_path) as stage:
            await stage.create()
            damage = update(tables.jobs).where(tables.jobs.c.job_id == "j1").values(**columns)
            await away(stage, lambda tx: tx.connection.execute(damage))
            await stage.trainer.register(stage.address)
            job = await put_aside(stage)
            assert job.failure.reason == QUARANTINED
            assert evidence in job.failure.metadata["evidence"]
            assert "Other jobs go on" in job.failure.message
            await other_job_succeeds(stage)
            listed = await stage.stub.ListJobs(scheduler_pb2.ListJobsRequest(parent="projects/p"))
            assert [each.name.rpartition("/")[2] for each in listed.jobs] == ["other", "j1"]

    run()


@on_loop
async def test_job_that_scheduler_dies_over_three_times_is_put_aside(tmp_path: Path) -> None:
    """A job that was being taken up at three deaths of the scheduler fails as QUARANTINED; two deaths end nothing."""
    async with staged(tmp_path) as stage:
        await stage.create()
        for deaths in (1, 2, 3):
            # As a kill leaves it: it was taken up, and nobody has said that it went well.
            await away(stage, lambda tx: marks.mark(tx, 1))
            state = (await stage.get()).state
            assert state == (jobs_pb2.JOB_STATE_FAILED if deaths == 3 else jobs_pb2.JOB_STATE_QUEUED)
        job = await stage.get()
        assert job.failure.reason == QUARANTINED
        assert "3 deaths of the scheduler" in job.failure.message
        await stage.trainer.register(stage.address)
        await other_job_succeeds(stage)


@on_loop
async def test_restarts_are_no_deaths(tmp_path: Path) -> None:
    """A scheduler that is stopped as it should be counts against no job, however often."""
    async with staged(tmp_path) as stage:
        await stage.create()
        for _ in range(4):
            assert stage.scheduler is not None
            await stage.scheduler.ledger.write(lambda tx: marks.mark(tx, 1))
            await stage.restart()
        assert (await stage.get()).state == jobs_pb2.JOB_STATE_QUEUED


async def lose(stage: Stage, trainer: FakeTrainer, *, steps: int = 0) -> None:
    """Gives the job to a node that is never heard again: it is the only one that takes work by then."""
    await trainer.register(stage.address)
    attempt = await trainer.started()
    if steps:
        await trainer.emit(attempt, steps)
        while (await stage.get()).step < steps:
            pass
    before = (await stage.get()).faults.infrastructure_faults
    stage.clock.advance(20)
    while not (job := await stage.get()).conditions and job.faults.infrastructure_faults == before:
        pass  # its lease is over, but the loop has not looked yet
    stage.clock.advance(700)
    while (await stage.get()).faults.infrastructure_faults == before:
        pass


@on_loop
async def test_job_that_takes_three_nodes_down_is_put_aside(tmp_path: Path) -> None:
    """Nodes lost right at the start, three in a row, quarantine a job before its budget is spent; they are named."""
    async with AsyncExitStack() as nodes, staged(tmp_path) as stage:
        await stage.create(retry=jobs_pb2.RetryPolicy(infrastructure=9))
        for trainer in (stage.trainer, *await more_nodes(nodes, 2, 3)):
            await lose(stage, trainer)
        job = await stage.until_state("FAILED")
        assert job.failure.reason == QUARANTINED
        assert all(f"nodes/n{number}" in job.failure.message for number in (1, 2, 3))
        assert job.attempt == 3
        assert stage.scheduler is not None
        assert await stage.scheduler.ledger.read(examine) == []


@on_loop
async def test_a_step_in_between_is_no_poison(tmp_path: Path) -> None:
    """An attempt that finished a step before it was lost says that the job can run: the others are bad luck."""
    async with AsyncExitStack() as nodes, staged(tmp_path) as stage:
        await stage.create(retry=jobs_pb2.RetryPolicy(infrastructure=9))
        for number, trainer in enumerate((stage.trainer, *await more_nodes(nodes, 2, 3, 4))):
            await lose(stage, trainer, steps=number % 2)
        while (job := await stage.get()).faults.infrastructure_faults < 4:
            pass
        assert job.state == jobs_pb2.JOB_STATE_QUEUED
