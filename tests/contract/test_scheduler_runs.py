"""The main flow over real sockets: placed, started, followed, published; and what each kind of end means."""

from __future__ import annotations

from pathlib import Path

from tests.support.event_loop import on_loop
from tests.support.scheduling import staged
from tuneforge.v1 import events_pb2, jobs_pb2, nodes_pb2, scheduler_pb2, types_pb2


@on_loop
async def test_job_runs_and_is_published(tmp_path: Path) -> None:
    """A job is placed, started with its pinned inputs, followed, and its result becomes a version."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        assert attempt.request.manager_token == stage.trainer.manager_token
        assert [layer.ref.digest for layer in attempt.request.base] == ["1" * 64]
        assert attempt.request.train.manifest.files[0].path == "rows.jsonl"
        await stage.trainer.emit(attempt, 3)
        await stage.trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_SUCCEEDED)
        job = await stage.until_state("SUCCEEDED")
        assert job.version.version == "projects/p/models/j1/versions/1"
        assert (job.step, job.total_steps, job.attempt) == (3, 100, 1)
        published = stage.registry.published["projects/p/jobs/j1"]
        assert published.lineage.base.digest == "1" * 64
        assert published.metrics["loss"] == 0.5
        await stage.trainer.until(lambda: attempt.is_gone)
        events = await stage.all_events()
        assert [event.job_seq for event in events] == list(range(1, len(events) + 1))
        states = [event.state.to for event in events if event.WhichOneof("payload") == "state"]
        assert states == ["QUEUED", "STARTING", "RUNNING", "PUBLISHING", "SUCCEEDED"]
