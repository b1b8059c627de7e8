"""The index of checkpoints over real sockets: what nodes and the blob store have, what stays, what is begun from."""

from __future__ import annotations

from pathlib import Path

from tests.support.event_loop import on_loop
from tests.support.fake_trainer import HeldAttempt
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged, tiny_spec
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
        await save(stage, first, 2, 4)
        await stage.trainer.end(first, nodes_pb2.ATTEMPT_STATE_INTERRUPTED)
        second = await stage.trainer.started(2)
        told = [(each.name, each.manifest) for each in second.request.checkpoints]
        assert told == [(f"{JOB}/checkpoints/{step}", files(step)) for step in (4, 2)]


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
async def test_a_copy_told_without_its_save_counts(tmp_path: Path) -> None:
    """A worker that was killed between the save and the word of it is followed by one that only tells of the copy."""
    async with staged(tmp_path) as stage:
        attempt = await begun(stage)
        copied = events_pb2.CheckpointDurable(step=2, manifest=files(2, "f"))
        await stage.trainer.add(attempt, events_pb2.Event(checkpoint_durable=copied))
        await held(stage, 2)
        assert (await listed(stage))[2].digest == files(2, "f").digest
        assert stage.registry.held_blobs[f"{JOB}/checkpoints/2"] == files(2, "f")
