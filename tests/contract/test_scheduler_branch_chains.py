"""Branches of branches: the best checkpoint of the whole curve is offered and kept, whichever job saved it."""

from __future__ import annotations

from pathlib import Path

from tests.contract.test_scheduler_checkpoints import JOB, SUCCEEDED, begun, files, listed, name, refused, save
from tests.support.event_loop import on_loop
from tests.support.fake_trainer import HeldAttempt
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import staged, tiny_spec
from tuneforge.errors import Reason
from tuneforge.v1 import events_pb2, scheduler_pb2, spec_pb2

pytestmark = EACH_DATABASE


@on_loop
async def test_the_best_one_comes_along_a_chain_of_branches(tmp_path: Path) -> None:
    """A branch of a branch is offered the best one of the whole curve, which stays, and its job too, while it lives."""
    spec = tiny_spec(checkpointing=spec_pb2.Checkpointing(keep_last=1, keep_best=True))
    async with staged(tmp_path, trainer={"slots": 3}) as stage:
        attempt = await begun(stage, spec)
        best = events_pb2.EvaluationMetrics(step=2, loss=0.5, is_best=True)
        await stage.trainer.add(attempt, events_pb2.Event(evaluation=best))
        await save(stage, attempt, 2, 4)
        branches: list[HeldAttempt] = []
        for job_id, start, step in (("j2", name(4), 6), ("j3", "projects/p/jobs/j2/checkpoints/6", 8)):
            await stage.create(job_id, spec=spec_pb2.TrainingSpec(), from_checkpoint=start)
            branches.append(await stage.trainer.started(len(branches) + 2))
            told = [each.name for each in branches[-1].request.checkpoints]
            assert told == [start, name(2)]
            assert branches[-1].request.checkpoints[1].manifest == files(2)
            await save(stage, branches[-1], step)
        better = events_pb2.EvaluationMetrics(step=6, loss=0.4, is_best=True)
        await stage.trainer.add(attempt, events_pb2.Event(evaluation=better))
        await save(stage, attempt, 6, 8)
        await stage.trainer.end(branches[0], SUCCEEDED)
        await stage.until_state("SUCCEEDED", "j2")
        await stage.trainer.end(attempt, SUCCEEDED)
        await stage.until_state("SUCCEEDED")
        assert {2, 6, 8} <= set(await listed(stage))
        in_use = await refused(stage.stub.DeleteJob(scheduler_pb2.DeleteJobRequest(name=JOB)))
        assert (in_use.reason, in_use.metadata["holder"]) == (Reason.IN_USE, "projects/p/jobs/j3")
        assert f"the weights of its checkpoint {name(2)}" in str(in_use)
        await stage.trainer.end(branches[1], SUCCEEDED)
        await stage.until_state("SUCCEEDED", "j3")
        while 2 in await listed(stage):
            pass
        await stage.stub.DeleteJob(scheduler_pb2.DeleteJobRequest(name=JOB))


@on_loop
async def test_a_best_one_that_an_earlier_job_has_dropped_is_not_offered(tmp_path: Path) -> None:
    """The branch of a branch begins without it, and its run says so."""
    spec = tiny_spec(checkpointing=spec_pb2.Checkpointing(keep_last=1))
    async with staged(tmp_path, trainer={"slots": 2}) as stage:
        attempt = await begun(stage, spec)
        best = events_pb2.EvaluationMetrics(step=2, loss=0.5, is_best=True)
        await stage.trainer.add(attempt, events_pb2.Event(evaluation=best))
        await save(stage, attempt, 2, 4)
        await stage.create("j2", spec=spec_pb2.TrainingSpec(), from_checkpoint=name(4))
        branch = await stage.trainer.started(2)
        await save(stage, branch, 6)
        await stage.trainer.end(branch, SUCCEEDED)
        await stage.until_state("SUCCEEDED", "j2")
        start = "projects/p/jobs/j2/checkpoints/6"
        await stage.create("j3", spec=spec_pb2.TrainingSpec(), from_checkpoint=start)
        last = await stage.trainer.started(3)
        assert [each.name for each in last.request.checkpoints] == [start]
