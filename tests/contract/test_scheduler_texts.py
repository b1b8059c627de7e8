"""Texts and moments that not every database stores are refused with their field, on all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import staged
from tuneforge.v1 import jobs_pb2, scheduler_pb2

pytestmark = EACH_DATABASE
BAD, PROJECT, JOB = "a\0b", "projects/p", "projects/p/jobs/j1"


@on_loop
async def test_a_nul_character_is_refused_with_its_field(tmp_path: Path) -> None:
    """In reasons, filters and request ids."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create("j1")
        wanted = jobs_pb2.JobFilter(search="j1")
        asked: dict[str, list[Any]] = {
            "reason": [
                stage.stub.PauseJob(scheduler_pb2.PauseJobRequest(name=JOB, reason=BAD)),
                stage.stub.DrainNode(scheduler_pb2.DrainNodeRequest(name="nodes/n1", reason=BAD)),
                stage.stub.CancelJobs(scheduler_pb2.CancelJobsRequest(parent=PROJECT, reason=BAD, filter=wanted)),
            ],
            "filter.search": [
                stage.stub.ListJobs(
                    scheduler_pb2.ListJobsRequest(parent=PROJECT, filter=jobs_pb2.JobFilter(search=BAD))
                )
            ],
            "filter.labels": [
                stage.stub.ListJobs(
                    scheduler_pb2.ListJobsRequest(parent=PROJECT, filter=jobs_pb2.JobFilter(labels={"a": BAD}))
                )
            ],
            "request_id": [stage.stub.CancelJob(scheduler_pb2.CancelJobRequest(name=JOB, request_id=BAD))],
        }
        for field, calls in asked.items():
            for call in calls:
                refused = await refusal(call, "INVALID_ARGUMENT")
                assert [each.field for each in refused.fields] == [field]


@on_loop
async def test_a_moment_beyond_all_years_is_refused_with_its_field(tmp_path: Path) -> None:
    """A filter's moments have the years that a timestamp may have, or no database could compare them."""
    async with staged(tmp_path) as stage:
        for seconds in (2**62, -(2**62), 253_402_300_800):
            asked = scheduler_pb2.ListJobsRequest(parent=PROJECT)
            asked.filter.created_from.seconds = asked.filter.ended_before.seconds = seconds
            refused = await refusal(stage.stub.ListJobs(asked), "INVALID_ARGUMENT")
            assert [each.field for each in refused.fields] == ["filter.created_from", "filter.ended_before"]
