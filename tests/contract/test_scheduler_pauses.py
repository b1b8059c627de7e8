"""Pausing and resuming jobs over real sockets: each success and each declared error."""

from __future__ import annotations

from pathlib import Path

from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.fake_trainer import HeldAttempt
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged
from tuneforge.v1 import jobs_pb2, nodes_pb2, scheduler_pb2, trainer_pb2

pytestmark = EACH_DATABASE

ID = "8f14e45f-ceea-4e7a-9c1d-000000000001"
INTERRUPTED = nodes_pb2.ATTEMPT_STATE_INTERRUPTED
SUCCEEDED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED


async def running(stage: Stage) -> HeldAttempt:
    """Brings job j1 to RUNNING and returns its attempt."""
    await stage.trainer.register(stage.address)
    await stage.create()
    attempt = await stage.trainer.started()
    await stage.trainer.emit(attempt)
    await stage.until_state("RUNNING")
    return attempt


@on_loop
async def test_a_paused_job_saves_its_state_and_frees_its_device(tmp_path: Path) -> None:
    """PAUSING until its attempt has left; then the next job runs, and after a resume a new attempt goes on."""
    async with staged(tmp_path) as stage:
        attempt = await running(stage)
        await stage.create("j2")
        paused = await stage.pause(reason="a demo needs the device", request_id=ID)
        assert paused.state == jobs_pb2.JOB_STATE_PAUSING
        assert paused.last_change.message == "Paused by local: a demo needs the device"
        await stage.trainer.until(lambda: attempt.stops)
        assert attempt.stop_modes[0] == trainer_pb2.STOP_MODE_CHECKPOINT
        assert (await stage.pause()).state == jobs_pb2.JOB_STATE_PAUSING
        assert len(stage.trainer.starts) == 1
        await stage.trainer.end(attempt, INTERRUPTED)
        assert (await stage.until_state("PAUSED")).last_change.reason == "PAUSED"
        second = await stage.trainer.started(2)
        assert second.request.name == "projects/p/jobs/j2/attempts/1"
        await stage.trainer.end(second, SUCCEEDED)
        await stage.until_state("SUCCEEDED", "j2")
        assert (await stage.get()).state == jobs_pb2.JOB_STATE_PAUSED
        assert await stage.pause(reason="a demo needs the device", request_id=ID) == paused
        assert (await stage.resume(request_id=ID)).state == jobs_pb2.JOB_STATE_QUEUED
        third = await stage.trainer.started(3)
        assert third.request.name == "projects/p/jobs/j1/attempts/2"
        assert (await stage.resume()).attempt == 2
        await stage.trainer.end(third, SUCCEEDED)
        await stage.until_state("SUCCEEDED")


@on_loop
async def test_a_queued_job_is_paused_at_once(tmp_path: Path) -> None:
    """Without an attempt there is nothing to save; a paused job is not started, and can be cancelled at once."""
    async with staged(tmp_path) as stage:
        await stage.create()
        assert (await stage.pause()).state == jobs_pb2.JOB_STATE_PAUSED
        await stage.create("j2")
        await stage.trainer.register(stage.address)
        attempt = await stage.trainer.started()
        assert attempt.request.name == "projects/p/jobs/j2/attempts/1"
        assert (await stage.cancel()).state == jobs_pb2.JOB_STATE_CANCELLED


@on_loop
async def test_a_run_that_ends_while_it_is_paused_is_published(tmp_path: Path) -> None:
    """Finished work is not thrown away: the pause loses."""
    async with staged(tmp_path) as stage:
        attempt = await running(stage)
        await stage.pause()
        await stage.trainer.end(attempt, SUCCEEDED)
        assert (await stage.until_state("SUCCEEDED")).version.version


@on_loop
async def test_a_cancel_wins_over_a_pause(tmp_path: Path) -> None:
    """A job that is being paused can be cancelled; its attempt is then asked to stop without saving."""
    async with staged(tmp_path) as stage:
        attempt = await running(stage)
        await stage.pause()
        await stage.trainer.until(lambda: attempt.stops)
        assert (await stage.cancel()).state == jobs_pb2.JOB_STATE_CANCELLING
        await stage.trainer.until(lambda: trainer_pb2.STOP_MODE_CANCEL in attempt.stop_modes)
        await stage.trainer.end(attempt, INTERRUPTED)
        await stage.until_state("CANCELLED")


@on_loop
async def test_a_pause_survives_a_restart(tmp_path: Path) -> None:
    """A pause that was accepted is carried out by the next start of the scheduler; a paused job stays paused."""
    async with staged(tmp_path) as stage:
        attempt = await running(stage)
        await stage.pause()
        await stage.restart()
        await stage.trainer.until(lambda: attempt.stops)
        await stage.trainer.end(attempt, INTERRUPTED)
        await stage.until_state("PAUSED")
        await stage.restart()
        assert (await stage.get()).state == jobs_pb2.JOB_STATE_PAUSED


@on_loop
async def test_a_job_whose_attempt_is_gone_is_paused(tmp_path: Path) -> None:
    """A node that does not hold the attempt has freed its device: the job goes on from the checkpoint before."""
    async with staged(tmp_path) as stage:
        attempt = await running(stage)
        attempt.is_gone = True
        await stage.pause()
        assert "checkpoint before" in (await stage.until_state("PAUSED")).last_change.message


@on_loop
async def test_what_cannot_be_paused_or_resumed_is_refused_with_its_state(tmp_path: Path) -> None:
    """A blocked job, one that is being paused or cancelled, one that has ended, one that is not there."""
    async with staged(tmp_path) as stage:
        name = "projects/p/jobs/nobody"
        pause = stage.stub.PauseJob(scheduler_pb2.PauseJobRequest(name=name))
        assert (await refusal(pause, "NOT_FOUND")).reason == "NOT_FOUND"
        resume = stage.stub.ResumeJob(scheduler_pb2.ResumeJobRequest(name=name))
        assert (await refusal(resume, "NOT_FOUND")).reason == "NOT_FOUND"
        long = await refusal(stage.pause(reason="x" * 1025), "INVALID_ARGUMENT")
        assert long.fields[0].field == "reason"
        attempt = await running(stage)
        await stage.pause(request_id=ID)
        assert (
            await refusal(stage.pause(request_id=ID, reason="other"), "INVALID_ARGUMENT")
        ).reason == "REQUEST_ID_REUSED"
        error = await refusal(stage.resume(), "FAILED_PRECONDITION")
        assert (error.reason, error.metadata["state"]) == ("WRONG_STATE", "PAUSING")
        await stage.cancel()
        assert (await refusal(stage.pause(), "FAILED_PRECONDITION")).metadata["state"] == "CANCELLING"
        await stage.trainer.end(attempt, INTERRUPTED)
        await stage.until_state("CANCELLED")
        for call in (stage.pause, stage.resume):
            error = await refusal(call(), "FAILED_PRECONDITION")
            assert (error.reason, error.metadata["state"]) == ("WRONG_STATE", "CANCELLED")
