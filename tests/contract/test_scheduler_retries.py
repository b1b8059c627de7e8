"""Budgets of faults over real sockets: the two kinds count apart, and a job and its attempts show what they used."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.duration_pb2 import Duration

from services.scheduler.jobs import RetryPolicy
from tests.contract.test_scheduler_runs import FAILED, USER, WORKER, attempts_of
from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import staged
from tuneforge.v1 import errors_pb2, jobs_pb2

pytestmark = EACH_DATABASE
NONE = Duration()


@on_loop
async def test_faults_of_both_kinds_count_apart(tmp_path: Path) -> None:
    """A job's own policy says how often each kind is tried again; what is left and what each attempt used is shown."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        policy = jobs_pb2.RetryPolicy(infrastructure=1, user=2, first_delay=NONE, longest_delay=NONE)
        await stage.create(retry=policy)
        for number, (failure, steps) in enumerate([(USER, 1), (WORKER, 0), (USER, 3)], 1):
            attempt = await stage.trainer.started(number)
            await stage.trainer.emit(attempt, steps)
            await stage.trainer.end(attempt, FAILED, failure)
        await stage.trainer.started(4)
        job = await stage.get()
        faults = job.faults
        assert (faults.infrastructure_faults, faults.user_faults) == (1, 2)
        assert (faults.infrastructure_left, faults.user_left) == (0, 0)
        assert (faults.policy.infrastructure, faults.policy.user) == (1, 2)
        budgets = [jobs_pb2.FaultBudget.Name(each.fault_budget) for each in await attempts_of(stage)]
        assert [each.removeprefix("FAULT_BUDGET_") for each in budgets] == [
            *("UNSPECIFIED", "USER", "INFRASTRUCTURE", "USER")
        ]
        await stage.trainer.end(await stage.trainer.started(4), FAILED, WORKER)
        assert (await stage.until_state("FAILED")).failure.reason == errors_pb2.ERROR_REASON_RETRIES_SPENT


@on_loop
async def test_the_same_fault_twice_ends_the_job(tmp_path: Path) -> None:
    """A fault of the job's own that comes again at the same step is not tried a third time, whatever is left."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create(retry=jobs_pb2.RetryPolicy(user=9))
        for number in (1, 2):
            attempt = await stage.trainer.started(number)
            await stage.trainer.emit(attempt, 2)
            await stage.trainer.end(attempt, FAILED, USER)
        job = await stage.until_state("FAILED")
        assert job.failure.reason == errors_pb2.ERROR_REASON_LOSS_NOT_FINITE
        assert "same fault, LOSS_NOT_FINITE after step 2" in job.failure.message
        assert job.faults.user_left == 7


@on_loop
async def test_usual_policy_is_shown_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    """A job without a policy shows the scheduler's; each wrong field of a policy is named with what it may be."""
    async with staged(tmp_path, retry=RetryPolicy(budget=3, first_delay_s=0.5)) as stage:
        policy = (await stage.create()).faults.policy
        assert (policy.infrastructure, policy.user, policy.first_delay.ToMilliseconds()) == (3, 0, 500)
        wrong = jobs_pb2.RetryPolicy(infrastructure=101, user=21, longest_delay=Duration(seconds=-1))
        error = await refusal(stage.create("j2", retry=wrong, ttl=Duration(nanos=5)), "INVALID_ARGUMENT")
        assert [each.field for each in error.fields] == [
            *("retry.infrastructure", "retry.user", "retry.longest_delay", "ttl")
        ]
