"""Creating, reading, listing and cancelling jobs over real sockets: each success and each declared error."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from pathlib import Path

import pytest

from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.fake_registry import ALIAS, BASE, DATA
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import staged, tiny_spec
from tuneforge.v1 import errors_pb2, jobs_pb2, nodes_pb2, scheduler_pb2, scheduling_pb2, spec_pb2

pytestmark = EACH_DATABASE

ID = "8f14e45f-ceea-4e7a-9c1d-000000000001"
SUCCEEDED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED


@on_loop
async def test_created_job_is_pinned_and_complete(tmp_path: Path) -> None:
    """The answer has every default, pinned names, digests, the memory estimate and its first event."""
    async with staged(tmp_path) as stage:
        spec = tiny_spec()
        spec.base.model = ALIAS
        spec.data.train.dataset = "projects/p/datasets/rows"
        spec.data.validation.dataset = DATA
        job = await stage.create(spec=spec, labels={"team": "a"})
        assert job.name == "projects/p/jobs/j1"
        assert job.state == jobs_pb2.JOB_STATE_QUEUED
        assert job.spec.base.model == BASE
        assert job.spec.data.train.dataset == DATA
        assert job.spec.optimization.rows_per_step == 8
        assert job.spec.output.model == "projects/p/models/j1"
        assert (job.base.version, job.base.digest) == (BASE, "1" * 64)
        assert job.train.digest == job.validation.digest == "3" * 64
        assert job.memory_estimate.total_bytes > job.memory_estimate.weights_bytes > 0
        assert (job.creator, dict(job.labels), job.latest_job_seq) == ("local", {"team": "a"}, 1)
        assert job == await stage.stored()


@on_loop
async def test_server_chooses_an_id(tmp_path: Path) -> None:
    """Without a job id the server chooses one, and the output model is named like the job."""
    async with staged(tmp_path) as stage:
        job = await stage.create("")
        assert job.name.startswith("projects/p/jobs/job-")
        assert job.spec.output.model == job.name.replace("/jobs/", "/models/")


@on_loop
async def test_validate_only_stores_nothing(tmp_path: Path) -> None:
    """A dry run answers with the pinned spec and the estimate, and leaves nothing behind."""
    async with staged(tmp_path) as stage:
        job = await stage.create(validate_only=True)
        assert job.base.version == BASE
        assert job.memory_estimate.total_bytes
        name = "projects/p/jobs/j1"
        error = await refusal(stage.stub.GetJob(scheduler_pb2.GetJobRequest(name=name)), "NOT_FOUND")
        assert error.reason == "NOT_FOUND"
        error = await refusal(stage.stub.CancelJob(scheduler_pb2.CancelJobRequest(name=name)), "NOT_FOUND")
        assert error.reason == "NOT_FOUND"


@on_loop
async def test_every_problem_comes_at_once(tmp_path: Path) -> None:
    """A spec with several faults is refused once, with every field, unknown names and ids among them."""
    async with staged(tmp_path) as stage:
        spec = tiny_spec()
        spec.base.model = "projects/p/models/nobody/versions/1"
        spec.data.train.dataset = "projects/p/datasets/nothing/versions/1"
        spec.data.validation.dataset = "no name"
        spec.lora.alpha = math.nan
        spec.optimization.learning_rate = -1
        spec.optimization.optimizer = 77  # type: ignore[assignment]  # a number of a later release
        spec.output.model = "projects/q/models/m"
        error = await refusal(stage.create("Bad Id", spec=spec, labels={"k" * 64: "v"}), "INVALID_ARGUMENT")
        assert error.reason == "INVALID_FIELD"
        assert {each.field for each in error.fields} == {
            "job_id",
            "labels",
            "spec.base.model",
            "spec.data.train.dataset",
            "spec.data.validation.dataset",
            "spec.lora.alpha",
            "spec.optimization.learning_rate",
            "spec.optimization.optimizer",
            "spec.output.model",
        }
        said = {each.field: each.description for each in error.fields}
        assert "import the model first" in said["spec.base.model"]
        assert "upload the rows first" in said["spec.data.train.dataset"]


@on_loop
async def test_other_projects_cannot_be_used(tmp_path: Path) -> None:
    """Models and data sets of projects that the caller may not touch look as if they did not exist."""
    person = {"principal": "ann", "roles": ["editor"], "projects": ["q"]}
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps([{"token_sha256": hashlib.sha256(b"s3").hexdigest(), **person}]))
    async with staged(tmp_path / "data", tokens_file=tokens) as stage:
        ann = (("authorization", "Bearer s3"),)
        request = scheduler_pb2.CreateJobRequest(parent="projects/q", spec=tiny_spec())
        error = await refusal(stage.stub.CreateJob(request, metadata=ann), "INVALID_ARGUMENT")
        assert {each.field for each in error.fields} == {"spec.base.model", "spec.data.train.dataset"}
        assert all("there is no" in each.description for each in error.fields)
        assert stage.registry.calls == []
        request.parent = "projects/p"
        error = await refusal(stage.stub.CreateJob(request, metadata=ann), "PERMISSION_DENIED")
        assert error.reason == "PERMISSION_DENIED"
        node = scheduler_pb2.RegisterNodeRequest(node=stage.trainer.node())
        assert (await refusal(stage.stub.RegisterNode(node, metadata=ann), "PERMISSION_DENIED")).reason
        assert (await refusal(stage.stub.RegisterNode(node), "UNAUTHENTICATED")).reason == "UNAUTHENTICATED"


@on_loop
async def test_rank_is_checked_against_the_base(tmp_path: Path) -> None:
    """A rank larger than the layer is refused with the largest that may be."""
    async with staged(tmp_path) as stage:
        error = await refusal(stage.create(spec=tiny_spec(lora=spec_pb2.LoraMethod(rank=65))), "INVALID_ARGUMENT")
        assert [each.field for each in error.fields] == ["spec.lora.rank"]
        assert "use at most 64" in error.fields[0].description


@on_loop
async def test_request_without_a_spec_or_with_a_bad_parent(tmp_path: Path) -> None:
    """A missing spec is a field error, a malformed parent a name error."""
    async with staged(tmp_path) as stage:
        missing = scheduler_pb2.CreateJobRequest(parent="projects/p")
        assert (await refusal(stage.stub.CreateJob(missing), "INVALID_ARGUMENT")).reason == "INVALID_FIELD"
        wrong = scheduler_pb2.CreateJobRequest(parent="p", spec=tiny_spec())
        assert (await refusal(stage.stub.CreateJob(wrong), "INVALID_ARGUMENT")).reason == "INVALID_NAME"


@on_loop
async def test_same_id_twice_is_refused(tmp_path: Path) -> None:
    """A second job of the same id is refused, and a dry run of it too."""
    async with staged(tmp_path) as stage:
        await stage.create()
        for is_dry in (False, True):
            error = await refusal(stage.create(validate_only=is_dry), "ALREADY_EXISTS")
            assert error.reason == "ALREADY_EXISTS"


@on_loop
async def test_repeated_request_gives_the_first_answer(tmp_path: Path) -> None:
    """The same request id gives the same job, even when the registry is away by then and after a restart."""
    async with staged(tmp_path) as stage:
        first = await stage.create("", request_id=ID)
        stage.registry.is_away = True
        assert await stage.create("", request_id=ID) == first
        await stage.restart()
        assert await stage.create("", request_id=ID) == first
        listed = await stage.stub.ListJobs(scheduler_pb2.ListJobsRequest(parent="projects/p"))
        assert len(listed.jobs) == 1
        error = await refusal(stage.create("other", request_id=ID), "INVALID_ARGUMENT")
        assert error.reason == "REQUEST_ID_REUSED"


@on_loop
async def test_the_same_request_at_the_same_moment_is_one_job(tmp_path: Path) -> None:
    """B80, B81: fifty at once have one answer; the same id with another body is refused and starts nothing."""
    async with staged(tmp_path) as stage:
        jobs = await asyncio.gather(*(stage.create("", request_id=ID) for _ in range(50)))
        assert len({job.name for job in jobs}) == 1
        error = await refusal(stage.create("", spec=tiny_spec(seed=7), request_id=ID), "INVALID_ARGUMENT")
        assert error.reason == "REQUEST_ID_REUSED"
        assert len((await stage.stub.ListJobs(scheduler_pb2.ListJobsRequest(parent="projects/p"))).jobs) == 1


@on_loop
async def test_absent_registry_is_told(tmp_path: Path) -> None:
    """A registry that does not answer is UNAVAILABLE with a time to retry, and nothing is stored."""
    async with staged(tmp_path) as stage:
        stage.registry.is_away = True
        error = await refusal(stage.create(request_id=ID), "UNAVAILABLE")
        assert error.reason == "PEER_UNAVAILABLE"
        assert error.retry_after_s
        stage.registry.is_away = False
        assert (await stage.create(request_id=ID)).name == "projects/p/jobs/j1"


@on_loop
async def test_job_that_never_fits_is_refused(tmp_path: Path) -> None:
    """A job that no known node could hold is refused: by how much it misses, and the cheapest change that would fit."""
    async with staged(tmp_path, trainer={"memory_bytes": 512_000_000}) as stage:
        await stage.trainer.register(stage.address)
        eight = spec_pb2.Optimization(rows_per_micro_batch=8)
        spec = tiny_spec(data=spec_pb2.DataConfig(max_tokens=512), optimization=eight)
        error = await refusal(stage.create(spec=spec), "FAILED_PRECONDITION")
        assert error.reason == "DOES_NOT_FIT"
        assert int(error.metadata["missing_bytes"]) > 0
        assert "too little; with `" in error.message
        zone = spec_pb2.Resources(node_labels={"zone": "x"})
        lacking = tiny_spec(resources=zone, data=spec_pb2.DataConfig(max_tokens=8))
        error = await refusal(stage.create(spec=lacking), "FAILED_PRECONDITION")
        assert "lacks the label zone=x" in error.message


@on_loop
async def test_jobs_are_listed_newest_first_by_pages(tmp_path: Path) -> None:
    """Pages cover a project's jobs once each, newest first; states filter; a token belongs to its list."""
    async with staged(tmp_path) as stage:
        for number in range(5):
            await stage.create(f"j{number}")
        await stage.cancel("j3")
        seen, token = [], ""
        while True:
            request = scheduler_pb2.ListJobsRequest(parent="projects/p", page_size=2, page_token=token)
            page = await stage.stub.ListJobs(request)
            seen += [job.name.rpartition("/")[2] for job in page.jobs]
            token = page.next_page_token
            if not token:
                break
            last = token
        assert seen == ["j4", "j3", "j2", "j1", "j0"]
        only = scheduler_pb2.ListJobsRequest(parent="projects/p", states=[jobs_pb2.JOB_STATE_CANCELLED])
        assert [job.name for job in (await stage.stub.ListJobs(only)).jobs] == ["projects/p/jobs/j3"]
        assert not (await stage.stub.ListJobs(scheduler_pb2.ListJobsRequest(parent="projects/q"))).jobs
        only.page_token = last
        error = await refusal(stage.stub.ListJobs(only), "INVALID_ARGUMENT")
        assert error.reason == "INVALID_PAGE_TOKEN"
        negative = scheduler_pb2.ListJobsRequest(parent="projects/p", page_size=-1)
        assert (await refusal(stage.stub.ListJobs(negative), "INVALID_ARGUMENT")).reason == "INVALID_FIELD"


@pytest.mark.parametrize("method", ["ListAttempts", "ListCheckpoints"])
def test_lists_below_a_job_refuse_alike(tmp_path: Path, method: str) -> None:
    """Lists below a job refuse an unknown job, a negative size and a token of another list."""
    request = getattr(scheduler_pb2, f"{method}Request")

    @on_loop
    async def run() -> None:
        async with staged(tmp_path) as stage:
            await stage.create()
            call = getattr(stage.stub, method)
            assert not (await call(request(parent="projects/p/jobs/j1"))).next_page_token
            assert (await refusal(call(request(parent="projects/p/jobs/no")), "NOT_FOUND")).reason == "NOT_FOUND"
            negative = request(parent="projects/p/jobs/j1", page_size=-1)
            assert (await refusal(call(negative), "INVALID_ARGUMENT")).reason == "INVALID_FIELD"
            foreign = request(parent="projects/p/jobs/j1", page_token="A" * 24)
            assert (await refusal(call(foreign), "INVALID_ARGUMENT")).reason == "INVALID_PAGE_TOKEN"

    run()


@on_loop
async def test_waiting_job_is_cancelled_at_once(tmp_path: Path) -> None:
    """A queued job is CANCELLED in the answer; cancelling it again returns it; its log ends with the reason."""
    async with staged(tmp_path) as stage:
        await stage.create()
        job = await stage.cancel(reason="not needed", request_id=ID)
        assert job.state == jobs_pb2.JOB_STATE_CANCELLED
        assert "not needed" in job.last_change.message
        assert await stage.cancel(reason="not needed", request_id=ID) == job
        assert (await stage.cancel()).state == jobs_pb2.JOB_STATE_CANCELLED
        error = await refusal(stage.cancel(request_id=ID, reason="other"), "INVALID_ARGUMENT")
        assert error.reason == "REQUEST_ID_REUSED"
        assert [event.state.to for event in await stage.all_events()] == ["QUEUED", "CANCELLED"]
        assert (await refusal(stage.cancel("nobody"), "NOT_FOUND")).reason == "NOT_FOUND"
        long = await refusal(stage.cancel(reason="x" * 1025), "INVALID_ARGUMENT")
        assert long.fields[0].field == "reason"


@on_loop
async def test_of_twenty_cancels_at_once_one_counts(tmp_path: Path) -> None:
    """Of a job that waits and of one that runs: all twenty answers are the same, and the log has one cancel."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create("j1")
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt)
        await stage.until_state("RUNNING")
        await stage.create("j2")
        for job in ("j1", "j2"):
            answers = await asyncio.gather(*(stage.cancel(job, reason=f"caller {n}") for n in range(20)))
            assert all(answer == answers[0] for answer in answers)
        await stage.trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_CANCELLED)
        for job, states in (("j1", ["QUEUED", "STARTING", "RUNNING", "CANCELLING"]), ("j2", ["QUEUED"])):
            told = [event.state.to for event in await stage.all_events(job) if event.WhichOneof("payload") == "state"]
            assert told == [*states, "CANCELLED"]


@on_loop
async def test_running_job_is_cancelled_when_its_device_is_free(tmp_path: Path) -> None:
    """A running job is CANCELLING until its attempt has ended; then the next job gets the slot."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt)
        await stage.until_state("RUNNING")
        await stage.create("j2")
        assert (await stage.cancel()).state == jobs_pb2.JOB_STATE_CANCELLING
        await stage.trainer.until(lambda: attempt.stops)
        assert (await stage.get()).state == jobs_pb2.JOB_STATE_CANCELLING
        assert len(stage.trainer.starts) == 1
        await stage.trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_CANCELLED)
        await stage.until_state("CANCELLED")
        await stage.trainer.started(2)


@on_loop
async def test_finish_that_loses_to_cancel_publishes_nothing(tmp_path: Path) -> None:
    """A run that ends well after its cancel was accepted is CANCELLED, and nothing is published."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt)
        await stage.until_state("RUNNING")
        await stage.cancel()
        await stage.trainer.end(attempt, SUCCEEDED)
        assert (await stage.until_state("CANCELLED")).state == jobs_pb2.JOB_STATE_CANCELLED
        assert stage.registry.published == {}


@on_loop
async def test_cancel_that_loses_to_finish_is_refused(tmp_path: Path) -> None:
    """While the result is being registered, and after the end, a cancel is refused with the state."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        stage.registry.is_away = True
        await stage.trainer.end(attempt, SUCCEEDED)
        await stage.until_state("PUBLISHING")
        error = await refusal(stage.cancel(), "FAILED_PRECONDITION")
        assert (error.reason, error.metadata["state"]) == ("WRONG_STATE", "PUBLISHING")
        stage.registry.is_away = False
        await stage.until_state("SUCCEEDED")
        error = await refusal(stage.cancel(), "FAILED_PRECONDITION")
        assert error.metadata["state"] == "SUCCEEDED"


@on_loop
async def test_cancel_of_an_attempt_that_its_node_lost(tmp_path: Path) -> None:
    """A node that does not hold the attempt any more has freed its device: the job is CANCELLED."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt)
        await stage.until_state("RUNNING")
        attempt.is_gone = True
        await stage.cancel()
        await stage.until_state("CANCELLED")


@on_loop
async def test_cancel_survives_a_restart(tmp_path: Path) -> None:
    """A cancel that was accepted is carried out by the next start of the scheduler."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt)
        await stage.until_state("RUNNING")
        await stage.cancel()
        await stage.restart()
        await stage.trainer.until(lambda: attempt.stops)
        await stage.trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_CANCELLED)
        await stage.until_state("CANCELLED")


@on_loop
async def test_job_waits_for_the_output_of_another(tmp_path: Path) -> None:
    """A job on another's output is BLOCKED, then queued on its version with every layer of the base."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create("first")
        spec = tiny_spec()
        spec.base.output_of_job = "projects/p/jobs/first"
        blocked = await stage.create("second", spec=spec)
        assert blocked.state == jobs_pb2.JOB_STATE_BLOCKED
        assert not blocked.HasField("base")
        assert blocked.memory_estimate.total_bytes > 0
        await stage.trainer.end(await stage.trainer.started(), SUCCEEDED)
        second = await stage.trainer.started(2)
        assert [layer.ref.version for layer in second.request.base] == [BASE, "projects/p/models/first/versions/1"]
        assert (await stage.get("second")).base.version == "projects/p/models/first/versions/1"
        third = await stage.create("third", spec=spec)
        assert third.state == jobs_pb2.JOB_STATE_QUEUED


@on_loop
async def test_failure_reaches_all_that_wait(tmp_path: Path) -> None:
    """When a job is cancelled, those that wait for its output fail with DEPENDENCY_FAILED, and so do theirs."""
    async with staged(tmp_path) as stage:
        await stage.create("a")
        for name, waits_for in (("b", "a"), ("c", "b")):
            spec = tiny_spec()
            spec.base.output_of_job = f"projects/p/jobs/{waits_for}"
            await stage.create(name, spec=spec)
        await stage.cancel("a")
        job = await stage.until_state("FAILED", "c")
        assert job.failure.reason == errors_pb2.ERROR_REASON_DEPENDENCY_FAILED
        assert "projects/p/jobs/b" in job.failure.message
        spec.base.output_of_job = "projects/p/jobs/a"
        error = await refusal(stage.create("d", spec=spec), "INVALID_ARGUMENT")
        assert "ended as CANCELLED" in error.fields[0].description


@on_loop
async def test_unknown_dependency_is_a_field_error(tmp_path: Path) -> None:
    """A job that does not exist, or one of another project, cannot be waited for."""
    async with staged(tmp_path) as stage:
        for name in ("projects/p/jobs/nobody", "projects/q/jobs/j", "x"):
            spec = tiny_spec()
            spec.base.output_of_job = name
            error = await refusal(stage.create(spec=spec), "INVALID_ARGUMENT")
            assert [each.field for each in error.fields] == ["spec.base.output_of_job"]


@on_loop
async def test_blocked_job_can_be_cancelled(tmp_path: Path) -> None:
    """A blocked job is cancelled at once."""
    async with staged(tmp_path) as stage:
        await stage.create("a")
        spec = tiny_spec()
        spec.base.output_of_job = "projects/p/jobs/a"
        await stage.create("b", spec=spec)
        assert (await stage.cancel("b")).state == jobs_pb2.JOB_STATE_CANCELLED


@on_loop
async def test_slips_are_said_at_submit(tmp_path: Path) -> None:
    """A node that nobody knows is in the answer and in the log, not refused; who waits for a moment says for which."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        where = scheduling_pb2.Scheduling(exclude_nodes=["nodes/typo"])
        where.start_after.FromMilliseconds(stage.clock.now_ms + 3_600_000)
        for validate_only in (True, False):
            job = await stage.create(scheduling=where, validate_only=validate_only)
            assert list(job.warnings) == ["No known node is nodes/typo: excluding it changes nothing."]
        assert job.last_change.message.startswith("It starts on 1970-01-01 01:")
        await stage.cancel()
        said = [each.log.message for each in await stage.all_events() if each.WhichOneof("payload") == "log"]
        assert list(job.warnings) == said
