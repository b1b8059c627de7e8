"""The index of checkpoints over real sockets: what nodes and the blob store have, what stays, what is begun from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from services.grpckit.errors import ServiceError
from tests.support.event_loop import on_loop
from tests.support.fake_trainer import HeldAttempt
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged, tiny_spec, with_timing
from tuneforge.errors import Reason, TuneforgeError, from_rpc_error
from tuneforge.v1 import events_pb2, jobs_pb2, nodes_pb2, scheduler_pb2, spec_pb2, types_pb2

pytestmark = EACH_DATABASE

SUCCEEDED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED
JOB = "projects/p/jobs/j1"


def files(step: int, seed: str = "") -> types_pb2.Manifest:
    """Returns the manifest of a step's checkpoint."""
    digest = f"{seed}{step}".zfill(64)
    entry = types_pb2.ManifestFile(path="weights.safetensors", sha256=digest, size_bytes=step)
    return types_pb2.Manifest(files=[entry], digest=digest)


async def save(stage: Stage, attempt: HeldAttempt, *steps: int, is_durable: bool = True) -> None:
    """Tells of checkpoints that were saved and, maybe, copied; returns when the scheduler has kept that."""
    for step in steps:
        saved = events_pb2.CheckpointSaved(step=step, size_bytes=step, digest=files(step).digest)
        await stage.trainer.add(attempt, events_pb2.Event(checkpoint=saved))
        if is_durable:
            copied = events_pb2.CheckpointDurable(step=step, manifest=files(step))
            await stage.trainer.add(attempt, events_pb2.Event(checkpoint_durable=copied))
    while attempt.acks[-1:] != [attempt.status.last_seq]:  # acknowledged once it is kept
        await stage.get()


async def listed(stage: Stage) -> dict[int, jobs_pb2.Checkpoint]:
    """Returns the checkpoints of j1 by step."""
    answer = await stage.stub.ListCheckpoints(scheduler_pb2.ListCheckpointsRequest(parent=JOB))
    return {int(each.name.rpartition("/")[2]): each for each in answer.checkpoints}


async def held(stage: Stage, *steps: int) -> None:
    """Waits until the registry was told to keep the blobs of exactly these checkpoints."""
    wanted = {f"{JOB}/checkpoints/{step}" for step in steps}
    while set(stage.registry.held_blobs) != wanted:
        await stage.get()


async def begun(stage: Stage, spec: spec_pb2.TrainingSpec | None = None) -> HeldAttempt:
    """Creates j1 and returns its running attempt."""
    await stage.trainer.register(stage.address)
    await stage.create(spec=spec)
    attempt = await stage.trainer.started()
    await stage.trainer.emit(attempt)
    return attempt


@on_loop
async def test_durable_checkpoints_are_kept_by_policy(tmp_path: Path) -> None:
    """The newest two are durable, their blobs are held, those of older ones released; a restart changes nothing."""
    async with staged(tmp_path) as stage:
        attempt = await begun(stage)
        await save(stage, attempt, 2, is_durable=False)
        assert not (await listed(stage))[2].HasField("manifest")
        await save(stage, attempt, 4, 6)
        await held(stage, 4, 6)
        found = await listed(stage)
        assert list(found) == [6, 4]
        assert found[6].manifest == files(6)
        assert found[6].HasField("durable_time")
        assert found[6].node == "nodes/n1"
        await stage.restart()
        await stage.trainer.register(stage.address)
        await save(stage, attempt, 8)
        await held(stage, 6, 8)
        assert list(await listed(stage)) == [8, 6]


@on_loop
async def test_a_hold_that_was_lost_is_told_again(tmp_path: Path) -> None:
    """While the registry is away nothing is forgotten; after it, holds and releases come in order."""
    async with staged(tmp_path) as stage:
        attempt = await begun(stage)
        stage.registry.is_away = True
        await save(stage, attempt, 2, 4, 6)
        await stage.restart()
        stage.registry.is_away = False
        await held(stage, 4, 6)


@on_loop
async def test_what_the_registry_lacks_is_not_durable(tmp_path: Path) -> None:
    """A copy whose blobs were collected before they were held is not offered to any node."""
    async with staged(tmp_path) as stage:
        stage.registry.lost_manifests.add(files(4).digest)
        attempt = await begun(stage)
        await save(stage, attempt, 2, 4)
        while (await listed(stage))[4].HasField("manifest"):
            pass
        await held(stage, 2)


@on_loop
async def test_the_next_attempt_is_told_what_it_may_go_on_from(tmp_path: Path) -> None:
    """The durable checkpoints, the newest first, with their files; the first attempt of a job is told of none."""
    async with staged(tmp_path) as stage:
        first = await begun(stage)
        assert not first.request.checkpoints
        assert first.request.HasField("newest_known_step")
        assert first.request.newest_known_step == 0
        await save(stage, first, 2, 4)
        await stage.trainer.end(first, nodes_pb2.ATTEMPT_STATE_INTERRUPTED)
        second = await stage.trainer.started(2)
        told = [(each.name, each.manifest) for each in second.request.checkpoints]
        assert told == [(f"{JOB}/checkpoints/{step}", files(step)) for step in (4, 2)]
        assert second.request.newest_known_step == 4


@on_loop
async def test_the_best_one_stays(tmp_path: Path) -> None:
    """With `keep_best` the checkpoint of the lowest validation loss outlives newer ones, on node and in store."""
    spec = tiny_spec(checkpointing=spec_pb2.Checkpointing(keep_best=True))
    async with staged(tmp_path) as stage:
        attempt = await begun(stage, spec)
        best = events_pb2.EvaluationMetrics(step=2, loss=0.5, is_best=True)
        await stage.trainer.add(attempt, events_pb2.Event(evaluation=best))
        await save(stage, attempt, 2, 4, 6, 8)
        await held(stage, 2, 6, 8)
        found = await listed(stage)
        assert [step for step, each in found.items() if each.is_best] == [2]
        assert found[2].node == "nodes/n1"


@on_loop
async def test_the_best_one_is_offered_however_old_it_is(tmp_path: Path) -> None:
    """The next node may need it for the result."""
    spec = tiny_spec(checkpointing=spec_pb2.Checkpointing(keep_last=20, keep_best=True))
    async with staged(tmp_path) as stage:
        first = await begun(stage, spec)
        best = events_pb2.EvaluationMetrics(step=2, loss=0.5, is_best=True)
        await stage.trainer.add(first, events_pb2.Event(evaluation=best))
        await save(stage, first, *range(1, 13))
        await stage.trainer.end(first, nodes_pb2.ATTEMPT_STATE_INTERRUPTED)
        second = await stage.trainer.started(2)
        told = [int(each.name.rpartition("/")[2]) for each in second.request.checkpoints]
        assert told == [12, 11, 10, 9, 8, 7, 6, 5, 2]


@on_loop
async def test_a_copy_told_without_its_save_counts(tmp_path: Path) -> None:
    """A worker that was killed between the save and the word of it is followed by one that only tells of the copy."""
    async with staged(tmp_path) as stage:
        attempt = await begun(stage)
        copied = events_pb2.CheckpointDurable(step=2, manifest=files(2, "f"))
        await stage.trainer.add(attempt, events_pb2.Event(checkpoint_durable=copied))
        await held(stage, 2)
        assert (await listed(stage))[2].digest == files(2, "f").digest
        assert stage.registry.held_blobs[f"{JOB}/checkpoints/2"] == files(2, "f")


async def refused(call: Any) -> TuneforgeError:
    """Returns the error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


def name(step: int) -> str:
    """Returns the name of a checkpoint of j1."""
    return f"{JOB}/checkpoints/{step}"


@on_loop
async def test_a_pinned_checkpoint_stays(tmp_path: Path) -> None:
    """Pinned, it outlives newer ones, over a restart too; unpinned, it goes. Each may be said twice."""
    async with staged(tmp_path) as stage:
        attempt = await begun(stage)
        await save(stage, attempt, 2)
        pin = scheduler_pb2.PinCheckpointRequest(name=name(2), request_id="r1")
        first = await stage.stub.PinCheckpoint(pin)
        assert first.is_pinned
        assert await stage.stub.PinCheckpoint(pin) == first
        await stage.restart()
        await stage.trainer.register(stage.address)
        await save(stage, attempt, 4, 6, 8)
        await held(stage, 2, 6, 8)
        got = await stage.stub.GetCheckpoint(scheduler_pb2.GetCheckpointRequest(name=name(2)))
        assert (got.is_pinned, got.node, got.manifest) == (True, "", files(2))
        unpin = scheduler_pb2.UnpinCheckpointRequest(name=name(2), request_id="r2")
        answer = await stage.stub.UnpinCheckpoint(unpin)
        assert not answer.is_pinned
        assert await stage.stub.UnpinCheckpoint(unpin) == answer
        await held(stage, 6, 8)
        gone = await refused(stage.stub.GetCheckpoint(scheduler_pb2.GetCheckpointRequest(name=name(2))))
        assert gone.reason == Reason.NOT_FOUND


@on_loop
async def test_only_a_durable_checkpoint_is_pinned(tmp_path: Path) -> None:
    """What is on a node only cannot be kept there; what is not there at all is not found."""
    async with staged(tmp_path) as stage:
        attempt = await begun(stage)
        await save(stage, attempt, 2, is_durable=False)
        error = await refused(stage.stub.PinCheckpoint(scheduler_pb2.PinCheckpointRequest(name=name(2))))
        assert error.reason == Reason.WRONG_STATE
        for call in (
            stage.stub.PinCheckpoint(scheduler_pb2.PinCheckpointRequest(name=name(3))),
            stage.stub.UnpinCheckpoint(scheduler_pb2.UnpinCheckpointRequest(name=name(3))),
            stage.stub.DeleteCheckpoint(scheduler_pb2.DeleteCheckpointRequest(name=name(3))),
            stage.stub.VerifyResume(scheduler_pb2.VerifyResumeRequest(name=name(3))),
        ):
            assert (await refused(call)).reason == Reason.NOT_FOUND


@on_loop
async def test_a_checkpoint_that_is_needed_is_not_deleted(tmp_path: Path) -> None:
    """Pinned, begun from, or the newest of a live job: refused, with who needs it; else it goes with its blobs."""
    async with staged(tmp_path, trainer={"slots": 2}) as stage:
        attempt = await begun(stage)
        await save(stage, attempt, 2, 4)

        def delete(step: int, request_id: str = "") -> Any:
            return stage.stub.DeleteCheckpoint(
                scheduler_pb2.DeleteCheckpointRequest(name=name(step), request_id=request_id)
            )

        newest = await refused(delete(4))
        assert (newest.reason, newest.metadata["holder"]) == (Reason.IN_USE, JOB)
        await stage.stub.PinCheckpoint(scheduler_pb2.PinCheckpointRequest(name=name(2)))
        assert (await refused(delete(2))).reason == Reason.IN_USE
        await stage.stub.UnpinCheckpoint(scheduler_pb2.UnpinCheckpointRequest(name=name(2)))
        branch = await stage.create("j2", from_checkpoint=name(2))
        begun_from = await refused(delete(2))
        assert (begun_from.reason, begun_from.metadata["holder"]) == (Reason.IN_USE, branch.name)
        other = await stage.trainer.started(2)
        await stage.trainer.end(other, SUCCEEDED)
        await stage.until_state("SUCCEEDED", "j2")
        deleted = await delete(2, "r1")
        assert deleted.manifest == files(2)
        assert await delete(2, "r1") == deleted
        await held(stage, 4)


@on_loop
async def test_a_job_begins_from_a_checkpoint(tmp_path: Path) -> None:
    """What it leaves out is as in the other job, its node is told where to begin, and the policy leaves that alone."""
    async with staged(tmp_path, trainer={"slots": 2}) as stage:
        attempt = await begun(stage)
        await save(stage, attempt, 2)
        changes = spec_pb2.TrainingSpec(optimization=spec_pb2.Optimization(learning_rate=0.5, max_steps=20))
        job = await stage.create("j2", spec=changes, from_checkpoint=name(2))
        assert job.from_checkpoint == name(2)
        assert (job.spec.lora.rank, job.spec.optimization.learning_rate) == (4, 0.5)
        assert job.spec.output.model == "projects/p/models/j1"
        other = await stage.trainer.started(2)
        assert [(each.name, each.manifest) for each in other.request.checkpoints] == [(name(2), files(2))]
        assert other.request.replay_steps == 0
        await save(stage, attempt, 4, 6, 8)
        await held(stage, 2, 6, 8)
        await stage.trainer.end(other, SUCCEEDED)
        await held(stage, 6, 8)  # it has ended: nobody begins from it any more


@on_loop
async def test_the_best_one_before_comes_along(tmp_path: Path) -> None:
    """A branch may end with its weights: it is offered after the one begun from, and stays while the branch lives."""
    spec = tiny_spec(checkpointing=spec_pb2.Checkpointing(keep_last=1, keep_best=True))
    async with staged(tmp_path, trainer={"slots": 2}) as stage:
        attempt = await begun(stage, spec)
        best = events_pb2.EvaluationMetrics(step=2, loss=0.5, is_best=True)
        await stage.trainer.add(attempt, events_pb2.Event(evaluation=best))
        await save(stage, attempt, 2, 4)
        branch = await stage.create("j2", spec=spec_pb2.TrainingSpec(), from_checkpoint=name(4))
        other = await stage.trainer.started(2)
        told = [(each.name, each.manifest) for each in other.request.checkpoints]
        assert told == [(name(4), files(4)), (name(2), files(2))]
        better = events_pb2.EvaluationMetrics(step=6, loss=0.4, is_best=True)
        await stage.trainer.add(attempt, events_pb2.Event(evaluation=better))
        await save(stage, attempt, 6, 8)
        await held(stage, 2, 4, 6, 8)
        in_use = await refused(stage.stub.DeleteCheckpoint(scheduler_pb2.DeleteCheckpointRequest(name=name(2))))
        assert (in_use.reason, in_use.metadata["holder"]) == (Reason.IN_USE, branch.name)
        await stage.trainer.end(other, SUCCEEDED)
        await held(stage, 6, 8)
        await stage.create("j3", spec=spec_pb2.TrainingSpec(), from_checkpoint=name(6))
        last = await stage.trainer.started(3)
        assert [each.name for each in last.request.checkpoints] == [name(6)]  # it is the best one itself


@on_loop
async def test_a_result_that_was_given_up_is_published_from_the_last_checkpoint(tmp_path: Path) -> None:
    """The failure names it, and a job with as many steps as the checkpoint begins from it: nothing is trained again."""
    async with staged(tmp_path, trainer={"slots": 2}, timing=with_timing(publish_gives_up_s=0.01)) as stage:
        stage.registry.refusal = ServiceError("INTERNAL", "incident 123")
        attempt = await begun(stage)
        await save(stage, attempt, 2, 4)
        await save(stage, attempt, 6, is_durable=False)
        await stage.trainer.end(attempt, SUCCEEDED)
        failed = await stage.until_state("FAILED")
        assert "`tuneforge jobs submit --from-checkpoint j1/4`" in failed.failure.cure
        stage.registry.refusal = None
        changes = spec_pb2.TrainingSpec(optimization=spec_pb2.Optimization(max_steps=4))
        await stage.create("j2", spec=changes, from_checkpoint=name(4))
        again = await stage.trainer.started(2)
        assert [each.name for each in again.request.checkpoints] == [name(4)]


@on_loop
async def test_what_the_state_needs_cannot_change(tmp_path: Path) -> None:
    """All fields that may not differ are listed at once; so is a run that would be over; so is a wrong checkpoint."""
    async with staged(tmp_path, trainer={"slots": 2}) as stage:
        attempt = await begun(stage)
        await save(stage, attempt, 2)
        await save(stage, attempt, 4, is_durable=False)
        wrong = spec_pb2.TrainingSpec(
            lora=spec_pb2.LoraMethod(rank=8),
            data=spec_pb2.DataConfig(max_tokens=64),
            optimization=spec_pb2.Optimization(rows_per_step=3, optimizer=spec_pb2.OPTIMIZER_SGD, max_steps=1),
            seed=9,
        )
        error = await refused(stage.create("j2", spec=wrong, from_checkpoint=name(2)))
        assert error.reason == Reason.INVALID_FIELD
        assert {each.field for each in error.fields} == {
            "spec.method",
            "spec.data",
            "spec.seed",
            "spec.optimization.rows_per_step",
            "spec.optimization.optimizer",
            "spec.optimization.max_steps",
        }
        for begin in (name(4), name(6), "projects/q/jobs/j1/checkpoints/2", "j1/2"):
            error = await refused(stage.create("j2", spec=spec_pb2.TrainingSpec(), from_checkpoint=begin))
            assert [each.field for each in error.fields] == ["from_checkpoint"]


async def verified(stage: Stage, *, loss_of_step_4: float, weights: str) -> jobs_pb2.Job:
    """Verifies steps 3 and 4 of a published job, on a node that finds this loss and these weights."""
    attempt = await begun(stage)
    await stage.trainer.emit(attempt)
    await save(stage, attempt, 2)
    await stage.trainer.emit(attempt, 2)
    saved = events_pb2.CheckpointSaved(step=4, digest=files(4).digest, weights_digest="a" * 64)
    await stage.trainer.add(attempt, events_pb2.Event(checkpoint=saved))
    await stage.trainer.end(attempt, SUCCEEDED)
    await stage.until_state("SUCCEEDED")
    request = scheduler_pb2.VerifyResumeRequest(name=name(2), request_id="r1")
    job = await stage.stub.VerifyResume(request)
    assert await stage.stub.VerifyResume(request) == job
    assert (job.verification.checkpoint, job.verification.num_steps) == (name(2), 2)
    again = await stage.trainer.started(2)
    assert again.request.replay_steps == 2
    assert [each.name for each in again.request.checkpoints] == [name(2)]
    for step, loss in ((3, 1 / 3), (4, loss_of_step_4)):
        await stage.trainer.add(again, events_pb2.Event(step=events_pb2.StepMetrics(step=step, loss=loss)))
    stage.registry.lost_replies = 1
    outcome = events_pb2.AttemptOutcome(result=events_pb2.ATTEMPT_RESULT_SUCCEEDED, replayed_weights_digest=weights)
    await stage.trainer.add(again, events_pb2.Event(outcome=outcome))
    again.status.state = SUCCEEDED
    await stage.trainer.tell()
    return await stage.until_state("SUCCEEDED", job.name.rpartition("/")[2])


@on_loop
async def test_a_verification_certifies_equal_bits(tmp_path: Path) -> None:
    """The certificate has every number twice, is stored once with the version, and the job publishes nothing."""
    async with staged(tmp_path) as stage:
        job = await verified(stage, loss_of_step_4=1 / 4, weights="a" * 64)
        certificate = job.verification.certificate
        assert (certificate.passed, certificate.first_divergent_step) == (True, 0)
        assert [(each.step, each.expected_loss, each.found_loss) for each in certificate.steps] == [
            (3, 1 / 3, 1 / 3),
            (4, 1 / 4, 1 / 4),
        ]
        assert not job.HasField("version")
        (report,) = stage.registry.reports.values()
        assert report.parent == "projects/p/models/j1/versions/1"
        (check,) = report.report.checks
        assert (check.check_name, check.passed, check.details["checkpoint"]) == ("resume", True, name(2))
        assert "3fd5555555555555" in check.details["step_3"]


@pytest.mark.parametrize(("loss", "weights", "first"), [(0.25000000000000006, "a", 4), (0.25, "b", 0)])
@on_loop
async def test_a_verification_names_what_differs(tmp_path: Path, loss: float, weights: str, first: int) -> None:
    """One bit in a loss, or other weights at the end: the verdict says so; the verification has succeeded."""
    async with staged(tmp_path) as stage:
        job = await verified(stage, loss_of_step_4=loss, weights=weights * 64)
        certificate = job.verification.certificate
        assert (certificate.passed, certificate.first_divergent_step) == (False, first)
        (report,) = stage.registry.reports.values()
        assert not report.report.checks[0].passed


@on_loop
async def test_a_verification_needs_steps_and_a_copy(tmp_path: Path) -> None:
    """More steps than were made, a checkpoint after the last step, or one that is on its node only: refused."""
    async with staged(tmp_path) as stage:
        attempt = await begun(stage)
        await stage.trainer.emit(attempt, 5)
        await save(stage, attempt, 2, 6)
        await save(stage, attempt, 4, is_durable=False)
        asked = scheduler_pb2.VerifyResumeRequest
        many = await refused(stage.stub.VerifyResume(asked(name=name(2), num_steps=5)))
        assert (many.reason, many.fields[0].field) == (Reason.INVALID_FIELD, "num_steps")
        late = await refused(stage.stub.VerifyResume(asked(name=name(6))))
        assert (late.reason, late.fields[0].field) == (Reason.INVALID_FIELD, "name")
        only_there = await refused(stage.stub.VerifyResume(asked(name=name(4))))
        assert only_there.reason == Reason.WRONG_STATE
