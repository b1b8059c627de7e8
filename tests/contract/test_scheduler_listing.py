"""Lists of jobs over real sockets: what a filter leaves out, and which of its fields are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.fake_registry import BASE
from tests.support.scheduling import Stage, staged
from tuneforge.v1 import jobs_pb2, scheduler_pb2


async def listed(stage: Stage, **fields: Any) -> list[str]:
    """Returns the ids of the jobs that a list has."""
    request = scheduler_pb2.ListJobsRequest(parent="projects/p", **fields)
    return [job.name.rpartition("/")[2] for job in (await stage.stub.ListJobs(request)).jobs]


@on_loop
async def test_list_by_label_text_state_and_order(tmp_path: Path) -> None:
    """Each part of a filter leaves out what it does not apply to, and the order is the one asked for."""
    async with staged(tmp_path) as stage:
        for job, team in (("nightly-1", "a"), ("nightly-2", "b"), ("other", "a")):
            await stage.create(job, labels={"team": team})
            stage.clock.advance(10)
        await stage.cancel("other")
        stage.clock.advance(1)
        await stage.cancel("nightly-1")
        assert await listed(stage, filter=jobs_pb2.JobFilter(labels={"team": "a"})) == ["other", "nightly-1"]
        assert await listed(stage, filter=jobs_pb2.JobFilter(search="NIGHT")) == ["nightly-2", "nightly-1"]
        assert await listed(stage, filter=jobs_pb2.JobFilter(base=BASE.rpartition("/versions/")[0], search="o")) == [
            "other",
            "nightly-2",
            "nightly-1",
        ]
        assert await listed(stage, order=scheduler_pb2.JOB_ORDER_OLDEST, page_size=1) == ["nightly-1"]
        assert await listed(stage, order=scheduler_pb2.JOB_ORDER_ENDED_LAST) == ["nightly-1", "other"]
        since = Timestamp(seconds=stage.clock.now_ms // 1000 - 12)
        assert await listed(stage, filter=jobs_pb2.JobFilter(created_from=since)) == ["other"]


@on_loop
async def test_wrong_fields_of_a_filter_are_named_together(tmp_path: Path) -> None:
    """A filter with several faults is refused with all of them, and a page token only goes on with its own list."""
    async with staged(tmp_path) as stage:
        wrong = jobs_pb2.JobFilter(
            states=[jobs_pb2.JobState.ValueType(99)],
            search="x" * 257,
            base="m",
            created_from=Timestamp(seconds=5),
            created_before=Timestamp(seconds=5),
        )
        error = await refusal(
            stage.stub.ListJobs(scheduler_pb2.ListJobsRequest(parent="projects/p", filter=wrong)), "INVALID_ARGUMENT"
        )
        assert {each.field for each in error.fields} == {
            *("filter.states", "filter.search", "filter.base", "filter.created_before")
        }
        request = scheduler_pb2.ListJobsRequest(parent="projects/p", order=scheduler_pb2.JobOrder.ValueType(99))
        assert [each.field for each in (await refusal(stage.stub.ListJobs(request), "INVALID_ARGUMENT")).fields] == [
            "order"
        ]
        for job in ("a", "b"):
            await stage.create(job)
        first = await stage.stub.ListJobs(scheduler_pb2.ListJobsRequest(parent="projects/p", page_size=1))
        other = scheduler_pb2.ListJobsRequest(
            parent="projects/p", page_token=first.next_page_token, filter=jobs_pb2.JobFilter(search="a")
        )
        assert (await refusal(stage.stub.ListJobs(other), "INVALID_ARGUMENT")).reason == "INVALID_PAGE_TOKEN"
