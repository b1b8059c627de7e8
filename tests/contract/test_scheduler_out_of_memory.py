"""Memory that runs out halves how many rows the next attempt computes at once, where nobody has fixed that number."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.test_scheduler_checkpoints import JOB, begun, refused, save
from tests.contract.test_scheduler_runs import FAILED, SUCCEEDED, attempts_of, failure
from tests.support.event_loop import on_loop
from tests.support.fake_trainer import HeldAttempt
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged, tiny_spec
from tuneforge.v1 import errors_pb2, events_pb2, jobs_pb2, scheduler_pb2, types_pb2

pytestmark = EACH_DATABASE

FULL = failure(errors_pb2.ERROR_REASON_OUT_OF_MEMORY, types_pb2.FAULT_CLASS_USER)


async def resolves(stage: Stage, attempt: HeldAttempt, rows: int) -> None:
    """Lets an attempt say how many rows it computes at once."""
    resolved = events_pb2.Resolved(spec=attempt.request.spec)
    resolved.spec.optimization.rows_per_micro_batch = rows
    await stage.trainer.add(attempt, events_pb2.Event(resolved=resolved))


@on_loop
async def test_each_attempt_computes_half_as_many_rows_at_once(tmp_path: Path) -> None:
    """From six rows to three and to one, told with both numbers, at no budget's cost; the result's spec is the last."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        for number, rows in ((1, 6), (2, 3)):
            attempt = await stage.trainer.started(number)
            await resolves(stage, attempt, rows)
            await stage.trainer.emit(attempt, 2)
            await stage.trainer.end(attempt, FAILED, FULL)
        last = await stage.trainer.started(3)
        await resolves(stage, last, 1)
        await stage.trainer.end(last, SUCCEEDED)
        job = await stage.until_state("SUCCEEDED")
        assert (job.faults.user_faults, job.faults.infrastructure_faults) == (0, 0)
        told = await attempts_of(stage)
        assert [each.rows_at_once for each in told] == [1, 3, 0]
        used = [jobs_pb2.FAULT_BUDGET_MICRO_BATCH] * 2
        assert [each.fault_budget for each in told] == [jobs_pb2.FAULT_BUDGET_UNSPECIFIED, *used]
        lowered = [event.state.message for event in await stage.all_events() if event.state.reason == "OUT_OF_MEMORY"]
        assert [f"computed {before} rows at once; its next attempt computes {after}," in message
                for (before, after), message in zip([(6, 3), (3, 1)], lowered, strict=True)] == [True] * 2  # fmt: skip
        lineage = stage.registry.published["projects/p/jobs/j1"].lineage
        assert lineage.spec.optimization.rows_per_micro_batch == 1


@pytest.mark.parametrize(("wish", "rows"), [(0, 1), (4, 4), (0, 0)])
@on_loop
async def test_without_fewer_rows_to_try_the_failure_stays(tmp_path: Path, wish: int, rows: int) -> None:
    """One row at once, a number that was fixed, or memory that ran out before any row: the job fails with its cure."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        spec = tiny_spec()
        spec.optimization.rows_per_micro_batch = wish
        await stage.create(spec=spec)
        attempt = await stage.trainer.started()
        if rows:
            await resolves(stage, attempt, rows)
        await stage.trainer.end(attempt, FAILED, FULL)
        job = await stage.until_state("FAILED")
        assert (job.failure.reason, job.failure.cure) == (errors_pb2.ERROR_REASON_OUT_OF_MEMORY, "mend it")
        assert job.faults.user_faults == 1


@on_loop
async def test_steps_are_done_again_with_as_many_rows_at_once(tmp_path: Path) -> None:
    """A verification computes as the attempt did whose steps it does again, and none beyond the change."""
    async with staged(tmp_path) as stage:
        first = await begun(stage)
        await resolves(stage, first, 4)
        await stage.trainer.emit(first, 3)
        await save(stage, first, 1, 3)
        await stage.trainer.end(first, FAILED, FULL)
        second = await stage.trainer.started(2)
        await resolves(stage, second, 2)
        await stage.trainer.add(second, events_pb2.Event(resumed_from=events_pb2.ResumedFrom(step=3)))
        for step in (4, 5):
            await stage.trainer.add(second, events_pb2.Event(step=events_pb2.StepMetrics(step=step, loss=1 / step)))
        await stage.trainer.end(second, SUCCEEDED)
        await stage.until_state("SUCCEEDED")
        asked = scheduler_pb2.VerifyResumeRequest
        many = await refused(stage.stub.VerifyResume(asked(name=f"{JOB}/checkpoints/1", num_steps=3)))
        assert many.fields[0].description == "is 3: use at most 2"
        for number, step, rows, steps in ((3, 3, 2, 2), (4, 1, 8, 2)):
            job = await stage.stub.VerifyResume(asked(name=f"{JOB}/checkpoints/{step}"))
            assert job.verification.num_steps == steps
            again = await stage.trainer.started(number)
            assert (again.request.rows_at_once, again.request.replay_steps) == (rows, steps)
            await stage.trainer.end(again, SUCCEEDED)
