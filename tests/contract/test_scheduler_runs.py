"""The main flow over real sockets: placed, started, followed, published; and what each kind of end means."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from services.grpckit.errors import FieldViolation, ServiceError, invalid_fields
from services.scheduler import publishing
from services.scheduler.jobs import RetryPolicy
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged, with_timing
from tuneforge.v1 import errors_pb2, events_pb2, jobs_pb2, nodes_pb2, scheduler_pb2, types_pb2

pytestmark = EACH_DATABASE

SUCCEEDED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED
FAILED = nodes_pb2.ATTEMPT_STATE_FAILED
LOST = nodes_pb2.ATTEMPT_STATE_LOST


def failure(reason: errors_pb2.ErrorReason.ValueType, fault: types_pb2.FaultClass.ValueType) -> types_pb2.Failure:
    """Returns why an attempt failed."""
    return types_pb2.Failure(reason=reason, message="it broke", cure="mend it", fault=fault)


USER = failure(errors_pb2.ERROR_REASON_LOSS_NOT_FINITE, types_pb2.FAULT_CLASS_USER)
WORKER = failure(errors_pb2.ERROR_REASON_WORKER_LOST, types_pb2.FAULT_CLASS_INFRASTRUCTURE)


async def attempts_of(stage: Stage) -> list[jobs_pb2.Attempt]:
    """Returns the attempts of j1, newest first."""
    request = scheduler_pb2.ListAttemptsRequest(parent="projects/p/jobs/j1")
    return list((await stage.stub.ListAttempts(request)).attempts)


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
        await stage.trainer.end(attempt, SUCCEEDED)
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


@on_loop
async def test_lineage_has_the_resolved_spec(tmp_path: Path) -> None:
    """Lineage carries the spec and environment that the run resolved; a retry starts with that spec."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        first = await stage.trainer.started()
        resolved = events_pb2.Resolved(spec=first.request.spec, environment={"torch": "2.13"})
        resolved.spec.optimization.rows_per_micro_batch = 2
        await stage.trainer.add(first, events_pb2.Event(resolved=resolved))
        await stage.trainer.end(first, LOST, WORKER)
        second = await stage.trainer.started(2)
        assert second.request.spec.optimization.rows_per_micro_batch == 2
        await stage.trainer.end(second, SUCCEEDED)
        await stage.until_state("SUCCEEDED")
        lineage = stage.registry.published["projects/p/jobs/j1"].lineage
        assert lineage.spec.optimization.rows_per_micro_batch == 2
        assert lineage.environment["torch"] == "2.13"
        assert lineage.attempt == 2


@on_loop
async def test_user_fault_is_not_retried(tmp_path: Path) -> None:
    """An attempt that failed by its spec or data fails the job at once, with reason, sentence and cure."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt)
        await stage.trainer.end(attempt, FAILED, USER)
        job = await stage.until_state("FAILED")
        assert job.failure.reason == errors_pb2.ERROR_REASON_LOSS_NOT_FINITE
        assert (job.failure.message, job.failure.cure) == ("it broke", "mend it")
        assert stage.trainer.starts == ["projects/p/jobs/j1/attempts/1"]


@on_loop
async def test_lost_worker_gives_a_new_attempt(tmp_path: Path) -> None:
    """A worker that ended without an outcome is replaced by an attempt with a new number and a larger token."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        first = await stage.trainer.started()
        await stage.trainer.emit(first, 2)
        await stage.trainer.end(first, LOST, WORKER)
        second = await stage.trainer.started(2)
        assert second.request.name.endswith("/attempts/2")
        assert second.request.token > first.request.token
        await stage.trainer.add(second, events_pb2.Event(resumed_from=events_pb2.ResumedFrom(step=2, attempt=1)))
        await stage.trainer.end(second, SUCCEEDED)
        await stage.until_state("SUCCEEDED")
        newest, oldest = await attempts_of(stage)
        assert (newest.state, newest.resumed_step) == (SUCCEEDED, 2)
        assert (oldest.state, oldest.failure.reason) == (LOST, errors_pb2.ERROR_REASON_WORKER_LOST)


@on_loop
async def test_spent_budget_fails_the_job(tmp_path: Path) -> None:
    """More infrastructure faults than the budget allows fail the job with RETRIES_SPENT."""
    async with staged(tmp_path, retry=RetryPolicy(budget=1, first_delay_s=0.0)) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        for number in (1, 2):
            await stage.trainer.end(await stage.trainer.started(number), FAILED, WORKER)
        job = await stage.until_state("FAILED")
        assert job.failure.reason == errors_pb2.ERROR_REASON_RETRIES_SPENT
        assert job.failure.metadata["last_reason"] == "WORKER_LOST"
        assert len(stage.trainer.starts) == 2


@on_loop
async def test_retry_waits_by_the_database_clock(tmp_path: Path) -> None:
    """A retry starts when the database's clock has passed its wait, not before."""
    async with staged(tmp_path, retry=RetryPolicy(first_delay_s=1e6, longest_delay_s=1e6)) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        await stage.trainer.end(await stage.trainer.started(), FAILED, WORKER)
        await stage.trainer.until(lambda: stage.trainer.held["projects/p/jobs/j1/attempts/1"].is_gone)
        assert (await stage.get()).state == jobs_pb2.JOB_STATE_QUEUED
        stage.clock.advance(1e6)
        await stage.trainer.beat(stage.address)
        await stage.trainer.started(2)


@on_loop
async def test_interrupted_attempt_uses_no_budget(tmp_path: Path) -> None:
    """An attempt that was stopped with a checkpoint is followed by another one, without a fault being counted."""
    async with staged(tmp_path, retry=RetryPolicy(budget=0)) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        await stage.trainer.end(await stage.trainer.started(), nodes_pb2.ATTEMPT_STATE_INTERRUPTED)
        second = await stage.trainer.started(2)
        await stage.trainer.end(second, SUCCEEDED)
        await stage.until_state("SUCCEEDED")


@on_loop
async def test_lost_start_reply_is_observed_first(tmp_path: Path) -> None:
    """A start whose reply was lost is found at the node: it is neither started twice nor counted twice."""
    async with staged(tmp_path, trainer={"lost_replies": 1}) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt)
        await stage.trainer.end(attempt, SUCCEEDED)
        job = await stage.until_state("SUCCEEDED")
        assert job.attempt == 1
        assert len(stage.trainer.starts) == 1


@on_loop
async def test_restart_observes_a_start_of_unknown_outcome(tmp_path: Path) -> None:
    """A scheduler that was restarted between the start and its reply finds the attempt and goes on with it."""
    async with staged(tmp_path, trainer={"lost_replies": 1_000}) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        await stage.restart()
        stage.trainer.lost_replies = 0
        await stage.trainer.beat(stage.address)
        await stage.trainer.end(attempt, SUCCEEDED)
        assert (await stage.until_state("SUCCEEDED")).attempt == 1
        assert len(stage.trainer.starts) == 1


@on_loop
async def test_refused_spec_fails_the_job(tmp_path: Path) -> None:
    """A node that names what is wrong with a spec fails the job with these words: another node would say the same."""
    error = invalid_fields([FieldViolation("spec.lora.rank", "is 4: use 2")])
    async with staged(tmp_path, trainer={"refusal": error}) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        job = await stage.until_state("FAILED")
        assert job.failure.reason == errors_pb2.ERROR_REASON_INVALID_FIELD
        assert "spec.lora.rank is 4: use 2" in job.failure.message


@on_loop
async def test_full_node_is_asked_again(tmp_path: Path) -> None:
    """A node without room is asked again, without an attempt being spent."""
    async with staged(tmp_path, trainer={"refusal": ServiceError("NODE_FULL", "no slot is free")}) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        await stage.until_state("STARTING")
        stage.trainer.refusal = None
        await stage.trainer.started()
        assert (await stage.get()).attempt == 1


@pytest.mark.parametrize("reason", ["DRAINING", "NODE_MANAGED"])
def test_node_that_takes_no_start_now_costs_nothing(tmp_path: Path, reason: str) -> None:
    """A node that shuts down, or was started anew and has not registered, costs no budget: the job is queued again."""

    @on_loop
    async def run() -> None:
        refusal = ServiceError(reason, "nodes/n1 takes no start")
        async with staged(tmp_path, trainer={"refusal": refusal}, retry=RetryPolicy(budget=0)) as stage:
            await stage.trainer.register(stage.address)
            await stage.create()
            states = []
            async for event in stage.events():
                states.append(event.state.to)
                if states[-2:] == ["STARTING", "QUEUED"]:
                    break
            stage.trainer.refusal = None
            stage.clock.advance(2)
            # A start that a round before has sent may still be on its way; the node is told to end what it begins.
            begun = [await stage.trainer.started()]
            while begun[-1].request.name.endswith("/attempts/1"):
                begun.append(await stage.trainer.started(len(begun) + 1))
            assert begun[-1].request.name.endswith("/attempts/2")

    run()


@on_loop
async def test_stale_attempt_at_the_node_gives_a_new_one(tmp_path: Path) -> None:
    """A node that knows the name with another token gets a new attempt number."""
    refusal = ServiceError("STALE_ATTEMPT", "started with another token")
    async with staged(tmp_path, trainer={"refusal": refusal}, retry=RetryPolicy(first_delay_s=0.0, budget=1)) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        job = await stage.until_state("FAILED")
        assert job.attempt == 2
        assert job.failure.metadata["last_reason"] == "STALE_ATTEMPT"


@on_loop
async def test_lost_publish_reply_publishes_once(tmp_path: Path) -> None:
    """A publication whose reply was lost is made again and gives the same version."""
    async with staged(tmp_path) as stage:
        stage.registry.lost_replies = 2
        await stage.trainer.register(stage.address)
        await stage.create()
        await stage.trainer.end(await stage.trainer.started(), SUCCEEDED)
        job = await stage.until_state("SUCCEEDED")
        assert job.version.version == "projects/p/models/j1/versions/1"
        assert stage.registry.calls.count("PublishVersion") == 3
        assert len(stage.registry.published) == 1


@on_loop
async def test_publication_survives_a_restart(tmp_path: Path) -> None:
    """A result that waits for the registry is registered by the next start of the scheduler."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        stage.registry.is_away = True
        await stage.trainer.end(attempt, SUCCEEDED)
        await stage.until_state("PUBLISHING")
        await stage.restart()
        stage.registry.is_away = False
        await stage.until_state("SUCCEEDED")
        assert len(stage.registry.published) == 1


@pytest.mark.parametrize("reason", ["BLOB_MISSING", "INVALID_MODEL", "ALREADY_PUBLISHED"])
def test_refused_result_fails_the_job(tmp_path: Path, reason: str) -> None:
    """A result that the registry will never take fails the job with the registry's reason."""

    @on_loop
    async def run() -> None:
        async with staged(tmp_path) as stage:
            stage.registry.refusal = ServiceError(reason, "it cannot be taken")
            await stage.trainer.register(stage.address)
            await stage.create()
            await stage.trainer.end(await stage.trainer.started(), SUCCEEDED)
            job = await stage.until_state("FAILED")
            assert job.failure.reason == errors_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}")

    run()


@pytest.mark.parametrize(
    "reason",
    ["PERMISSION_DENIED", "UNAUTHENTICATED", "DATABASE_UNAVAILABLE", "STORAGE_UNAVAILABLE", "STORAGE_MISCONFIGURED"],
)
def test_result_outlives_a_wrong_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    """A registry that refuses the token, or whose store is away, is asked until it is not, with a warning a minute."""
    log = Mock()
    monkeypatch.setattr(publishing, "_log", log)

    @on_loop
    async def run() -> None:
        async with staged(tmp_path, timing=with_timing(publish_gives_up_s=0.001)) as stage:
            stage.registry.refusal = ServiceError(reason, "the token is not known")
            await stage.trainer.register(stage.address)
            await stage.create()
            await stage.trainer.end(await stage.trainer.started(), SUCCEEDED)
            await stage.until_state("PUBLISHING")
            while stage.registry.calls.count("PublishVersion") < 3:
                await stage.get()
            stage.registry.refusal = None
            await stage.until_state("SUCCEEDED")

    run()
    (warning,) = log.warning.call_args_list
    assert "the token is not known" in warning.kwargs["problem"]


@on_loop
async def test_an_answer_that_nobody_knows_is_waited_out(tmp_path: Path) -> None:
    """A registry that fails in itself is asked again, while it is away too; then the job fails and names its files."""
    async with staged(tmp_path, timing=with_timing(publish_gives_up_s=0.5)) as stage:
        stage.registry.refusal = ServiceError("INTERNAL", "incident 123")
        await stage.trainer.register(stage.address)
        await stage.create()
        await stage.trainer.end(await stage.trainer.started(), SUCCEEDED)
        job = await stage.until_state("FAILED")
        assert job.failure.reason == errors_pb2.ERROR_REASON_INTERNAL
        assert stage.registry.calls.count("PublishVersion") > 1
        digest = job.failure.metadata["manifest_digest"]
        assert digest
        files = f"(adapter.safetensors) are in the registry's blob store under the manifest {digest}"
        assert files in job.failure.message
        assert "`tuneforge jobs rerun j1`" in job.failure.cure


@on_loop
async def test_checkpoints_are_listed(tmp_path: Path) -> None:
    """The index has the newest checkpoints that the node keeps, newest first, by pages."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        for step in (2, 4, 6):
            saved = events_pb2.CheckpointSaved(step=step, size_bytes=10 * step, digest=f"{step:064d}")
            await stage.trainer.add(attempt, events_pb2.Event(checkpoint=saved))
        await stage.trainer.end(attempt, SUCCEEDED)
        await stage.until_state("SUCCEEDED")
        request = scheduler_pb2.ListCheckpointsRequest(parent="projects/p/jobs/j1", page_size=1)
        first = await stage.stub.ListCheckpoints(request)
        request.page_token = first.next_page_token
        second = await stage.stub.ListCheckpoints(request)
        names = [page.checkpoints[0].name for page in (first, second)]
        assert names == ["projects/p/jobs/j1/checkpoints/6", "projects/p/jobs/j1/checkpoints/4"]
        assert second.next_page_token == ""
        assert (first.checkpoints[0].size_bytes, first.checkpoints[0].node) == (60, "nodes/n1")
