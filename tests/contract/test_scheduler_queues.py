"""Queues of projects over real sockets: what they are, who may change what, and that quotas hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2
from prometheus_client import REGISTRY

from services.scheduler.queues.budgets import Price
from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.principals import of, tokens_file
from tests.support.scheduling import Stage, staged, tiny_spec, with_timing
from tuneforge.errors import Reason
from tuneforge.v1 import jobs_pb2, nodes_pb2, queues_pb2, spec_pb2

QUEUE = "projects/p/queues/default"
ID = "8f14e45f-ceea-4e7a-9c1d-000000000001"
SUCCEEDED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED
PATIENT = with_timing(lease_ttl_s=100_000.0)
"""No node is lost while a test moves the clock."""


async def queue(stage: Stage, name: str = QUEUE) -> queues_pb2.Queue:
    """Returns a queue."""
    found: queues_pb2.Queue = await stage.stub.GetQueue(queues_pb2.GetQueueRequest(name=name))
    return found


def change(paths: list[str], request_id: str = "", **fields: Any) -> queues_pb2.UpdateQueueRequest:
    """Returns a request that changes the queue of project p."""
    message = queues_pb2.Queue(**{"name": QUEUE, **fields})
    return queues_pb2.UpdateQueueRequest(queue=message, update_mask=FieldMask(paths=paths), request_id=request_id)


@EACH_DATABASE
@on_loop
async def test_every_project_has_one_queue(tmp_path: Path) -> None:
    """The queue `default` is there without anybody making it, and no other; the list shows projects with jobs."""
    async with staged(tmp_path) as stage:
        found = await queue(stage)
        assert (found.name, found.weight, found.etag, found.quota) == (QUEUE, 1.0, "r0", queues_pb2.Quota())
        assert found.status.target_share == 1.0
        request = queues_pb2.GetQueueRequest(name="projects/p/queues/other")
        assert (await refusal(stage.stub.GetQueue(request), "NOT_FOUND")).reason == Reason.NOT_FOUND
        everywhere = queues_pb2.ListQueuesRequest(parent="projects/-")
        assert not (await stage.stub.ListQueues(everywhere)).queues
        await stage.create()
        (listed,) = (await stage.stub.ListQueues(everywhere)).queues
        assert (listed.name, listed.status.waiting_jobs, listed.status.target_share) == (QUEUE, 1, 1.0)
        for name in ("projects/a/queues/default", "projects/z/queues/default"):
            await stage.stub.UpdateQueue(change(["weight"], name=name, weight=2.0))
        first = await stage.stub.ListQueues(queues_pb2.ListQueuesRequest(parent="projects/-", page_size=2))
        everywhere.page_token = first.next_page_token
        rest = await stage.stub.ListQueues(everywhere)
        assert [each.name.split("/")[1] for each in (*first.queues, *rest.queues)] == ["a", "p", "z"]
        assert (first.queues[0].status.target_share, rest.next_page_token) == (2 / 3, "")
        one = await stage.stub.ListQueues(queues_pb2.ListQueuesRequest(parent="projects/empty"))
        assert [each.name for each in one.queues] == ["projects/empty/queues/default"]


@EACH_DATABASE
@on_loop
async def test_a_queue_is_changed_by_mask_and_etag(tmp_path: Path) -> None:
    """Only what the mask names changes; an old etag is refused, a repeated request id gives the first answer."""
    async with staged(tmp_path, price=Price(per_device_hour=2.0, currency="EUR")) as stage:
        quota = queues_pb2.Quota(max_devices=8, max_jobs=3)
        first = change(["weight", "quota.max_devices"], ID, weight=2.5, quota=quota, etag="r0")
        changed = await stage.stub.UpdateQueue(first)
        assert (changed.weight, changed.quota.max_devices, changed.quota.max_jobs) == (2.5, 8, 0)
        assert changed.etag == "r1"
        assert await stage.stub.UpdateQueue(first) == changed
        reused = change(["weight"], ID, weight=9.0)
        assert (await refusal(stage.stub.UpdateQueue(reused), "INVALID_ARGUMENT")).reason == "REQUEST_ID_REUSED"
        stale = await refusal(stage.stub.UpdateQueue(change(["is_paused"], is_paused=True, etag="r0")), "ABORTED")
        assert (stale.reason, stale.metadata["etag"]) == (Reason.ETAG_MISMATCH, "r1")
        budget = queues_pb2.Budget(device_seconds=60.0, cost=5.0, currency="EUR")
        limited = await stage.stub.UpdateQueue(change(["budget"], budget=budget))
        assert (limited.budget.cost, limited.budget.price_per_device_hour, limited.weight) == (5.0, 2.0, 2.5)
        await stage.restart()
        assert (await queue(stage)).budget == limited.budget
        assert not (await stage.stub.UpdateQueue(change(["budget"]))).HasField("budget")


@on_loop
async def test_all_that_is_wrong_is_listed(tmp_path: Path) -> None:
    """Each wrong value is named with what it may be; a mask that is empty or names what cannot change is refused."""
    async with staged(tmp_path) as stage:
        quota = queues_pb2.Quota(max_devices=2, guaranteed_devices=3, device_hours=5.0)
        budget = queues_pb2.Budget(device_seconds=-1.0, cost=1.0, currency="EUR")
        request = change(["weight", "quota", "budget"], quota=quota, budget=budget)
        wrong = await refusal(stage.stub.UpdateQueue(request), "INVALID_ARGUMENT")
        assert {each.field for each in wrong.fields} == {
            *("queue.weight", "queue.quota.guaranteed_devices", "queue.quota.window_hours"),
            *("queue.budget.device_seconds", "queue.budget.cost"),
        }
        for weight in (5e-324, 9e-7, 1.1e6, float("nan"), float("inf")):
            refused = await refusal(stage.stub.UpdateQueue(change(["weight"], weight=weight)), "INVALID_ARGUMENT")
            assert "use a number from 0.000001 to 1000000" in refused.fields[0].description
        for paths in ([], ["status", "name"]):
            refused = await refusal(stage.stub.UpdateQueue(change(paths)), "INVALID_ARGUMENT")
            assert {each.field for each in refused.fields} == {"update_mask"}


@on_loop
async def test_only_an_operator_gives_more(tmp_path: Path) -> None:
    """An admin of one project pauses and tightens its queue; weight and looser limits are an operator's to give."""
    tokens = tokens_file(
        tmp_path,
        {"operator": ["admin"], "lead": ["admin"], "author": ["editor"]},
        projects={"lead": ["p"], "author": ["p"]},
    )
    async with staged(tmp_path / "data", tokens_file=tokens) as stage:
        update, denied = stage.stub.UpdateQueue, "PERMISSION_DENIED"
        quota = queues_pb2.Quota(max_devices=4, guaranteed_devices=1)
        looser = change(["weight", "quota"], weight=3.0, quota=quota)
        refused = await refusal(update(looser, metadata=of("lead")), denied)
        assert refused.metadata["fields"] == "weight,quota.guaranteed_devices"
        await refusal(update(change(["is_paused"], is_paused=True), metadata=of("author")), denied)
        assert (await update(looser, metadata=of("operator"))).weight == 3.0
        tighter = change(["weight", "quota.max_devices", "is_paused"], quota=queues_pb2.Quota(max_devices=2))
        tighter.queue.weight, tighter.queue.is_paused = 1.0, True
        assert (await update(tighter, metadata=of("lead"))).quota.max_devices == 2
        wider = change(["quota.max_devices"], quota=queues_pb2.Quota(max_devices=4))
        assert (await refusal(update(wider, metadata=of("lead")), denied)).metadata["fields"] == "quota.max_devices"
        other = queues_pb2.GetQueueRequest(name="projects/q/queues/default")
        await refusal(stage.stub.GetQueue(other, metadata=of("author")), denied)
        listing = queues_pb2.ListQueuesRequest(parent="projects/q")
        await refusal(stage.stub.ListQueues(listing, metadata=of("author")), denied)
        seen = await stage.stub.ListQueues(queues_pb2.ListQueuesRequest(parent="projects/-"), metadata=of("author"))
        assert [each.name for each in seen.queues] == [QUEUE]


@EACH_DATABASE
@on_loop
async def test_a_full_queue_takes_no_more(tmp_path: Path) -> None:
    """One job more than may wait is answered RESOURCE_EXHAUSTED with what the quota is, also when only checked."""
    async with staged(tmp_path) as stage:
        await stage.stub.UpdateQueue(change(["quota"], quota=queues_pb2.Quota(max_waiting_jobs=1)))
        await stage.create()
        for fields in ({}, {"validate_only": True}):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stage.create("j2", **fields)
            error = await refusal(stage.create("j2", **fields), "RESOURCE_EXHAUSTED")
            assert error.reason == Reason.QUOTA_EXCEEDED
            assert (error.metadata["quota"], error.metadata["limit"]) == ("max_waiting_jobs", "1")
            assert error.retry_after_s
            assert "max_waiting_jobs" in _quota_failure(caught.value).violations[0].subject
        await stage.trainer.register(stage.address)
        await stage.trainer.started()
        await stage.create("j2")


def _quota_failure(error: grpc.aio.AioRpcError) -> error_details_pb2.QuotaFailure:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            for detail in status_pb2.Status.FromString(value).details:
                found = error_details_pb2.QuotaFailure()
                if detail.Unpack(found):
                    return found
    raise AssertionError("the error has no QuotaFailure")


@on_loop
async def test_a_job_that_could_never_start_is_refused(tmp_path: Path) -> None:
    """A demand above the quota is a clear error at once, not an endless wait."""
    async with staged(tmp_path) as stage:
        await stage.stub.UpdateQueue(change(["quota"], quota=queues_pb2.Quota(max_devices=3)))
        large = tiny_spec(resources=spec_pb2.Resources(nodes=4))
        error = await refusal(stage.create(spec=large), "FAILED_PRECONDITION")
        assert error.reason == Reason.QUOTA_TOO_SMALL
        assert (error.metadata["limit"], error.metadata["wanted"]) == ("3", "4")


@on_loop
async def test_nothing_new_starts_in_a_paused_queue(tmp_path: Path) -> None:
    """What runs goes on; what waits starts by itself once the queue goes on."""
    async with staged(tmp_path, trainer={"slots": 2}) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        first = await stage.trainer.started()
        await stage.trainer.emit(first)
        await stage.until_state("RUNNING")
        held = await stage.stub.UpdateQueue(change(["is_paused"], is_paused=True))
        assert "paused" in held.status.hold
        await stage.create("j2")
        await stage.trainer.end(first, SUCCEEDED)
        await stage.until_state("SUCCEEDED")
        assert (await stage.get("j2")).state == jobs_pb2.JOB_STATE_QUEUED
        await stage.stub.UpdateQueue(change(["is_paused"]))
        assert (await stage.trainer.started(2)).request.name == "projects/p/jobs/j2/attempts/1"


@EACH_DATABASE
@on_loop
async def test_spent_device_hours_make_a_project_wait(tmp_path: Path) -> None:
    """Once the hours of the window are used, nothing starts until they lie outside; a restart changes nothing."""
    async with staged(tmp_path, timing=PATIENT) as stage:
        await stage.trainer.register(stage.address)
        quota = queues_pb2.Quota(device_hours=1.0, window_hours=2)
        await stage.stub.UpdateQueue(change(["quota"], quota=quota))
        await stage.create()
        first = await stage.trainer.started()
        stage.clock.advance(3600)
        assert (await queue(stage)).status.window_device_hours == pytest.approx(1.0, abs=0.01)
        await stage.restart()
        await stage.trainer.beat(stage.address)
        await stage.trainer.end(first, SUCCEEDED)
        await stage.until_state("SUCCEEDED")
        status = (await queue(stage)).status
        assert status.spent.device_seconds == pytest.approx(3600, abs=1)
        assert "device-hours" in status.hold
        await stage.create("j2")
        assert (await stage.get("j2")).state == jobs_pb2.JOB_STATE_QUEUED
        assert len(stage.trainer.starts) == 1
        stage.clock.advance(3 * 3600)
        await stage.trainer.beat(stage.address)
        assert (await stage.trainer.started(2)).request.name == "projects/p/jobs/j2/attempts/1"


@pytest.mark.parametrize("quota", [{"max_devices": 2}, {"max_jobs": 2}], ids=["devices", "jobs"])
@on_loop
async def test_a_quota_is_never_exceeded(tmp_path: Path, quota: dict[str, int]) -> None:
    """With room for all of them no more run at once than the quota allows; each end lets the next one start."""
    async with staged(tmp_path, trainer={"slots": 6}) as stage:
        await stage.stub.UpdateQueue(change(["quota"], quota=queues_pb2.Quota(**quota)))
        await stage.trainer.register(stage.address)
        for number in range(5):
            await stage.create(f"j{number}")
        for number in range(5):
            held = await stage.trainer.started(min(5, number + 2))
            assert held is not None
            status = (await queue(stage)).status
            assert status.devices_held <= 2
            assert len(stage.trainer.starts) <= number + 2
            ended = stage.trainer.held[stage.trainer.starts[number]]
            await stage.trainer.end(ended, SUCCEEDED)
            await stage.until_state("SUCCEEDED", ended.request.name.split("/")[3])


@on_loop
async def test_metrics_tell_shares_by_project(tmp_path: Path) -> None:
    """Weight, shares, devices and holds of each project stand on the page of metrics."""

    def figure(name: str) -> float | None:
        return REGISTRY.get_sample_value(f"tuneforge_scheduler_project_{name}", {"project": "p"})

    async with staged(tmp_path, timing=PATIENT) as stage:
        await stage.stub.UpdateQueue(change(["weight"], weight=2.0))
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt)
        await stage.until_state("RUNNING")
        stage.clock.advance(50)
        await stage.stub.UpdateQueue(change(["is_paused"], is_paused=True))
        while not figure("is_held"):
            await stage.trainer.emit(attempt)  # events make the loop look
            await stage.get()
        names = ("weight", "share", "target_share", "devices_held", "jobs_running", "jobs_waiting")
        assert [figure(name) for name in names] == [2.0, 1.0, 1.0, 1.0, 1.0, 0.0]
        assert figure("device_seconds_total") == pytest.approx(50, abs=0.1)
        assert figure("usage_device_seconds") == pytest.approx(50, rel=0.01)
