"""The RPCs of foresight: read the request, call a rule, answer. No rules here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from services.grpckit import context as calls
from services.grpckit.errors import FieldViolation, invalid_fields, not_found
from services.grpckit.pages import cut, page_of
from services.scheduler.foresight.service import Foresight
from services.scheduler.ledger import Ledger
from services.scheduler.records import Job
from services.scheduler.store import forecasts as forecast_store
from services.scheduler.store import jobs as job_store
from services.scheduler.verbs import Verbs
from services.scheduler.wire.drafts import draft_of
from services.scheduler.wire.explanations import (
    explanation_to_proto,
    names_for,
    promise_to_proto,
    qualities_to_proto,
    simulation_to_proto,
    told_to_proto,
)
from tuneforge.names import JobName, ProjectName
from tuneforge.v1 import explanations_pb2, jobs_pb2, scheduler_pb2

Context = grpc.aio.ServicerContext[Any, Any]


class ExplainCalls:
    """The methods of foresight; `SchedulerServicer` takes them over.

    Args:
        ledger: The store.
        verbs: Checks what is simulated.
        foresight: Explains and simulates.
    """

    def __init__(self, ledger: Ledger, verbs: Verbs, foresight: Foresight) -> None:
        self._store = ledger
        self._checks = verbs
        self._foresight = foresight

    async def ExplainJob(self, request: scheduler_pb2.ExplainJobRequest, _: Context) -> explanations_pb2.JobExplanation:
        """Says why a job is in its state and what comes next."""
        found, view = await self._foresight.explain(await self._stored(JobName.parse(request.name)))
        return explanation_to_proto(found, names_for(view, _may_read()))

    async def SimulateJob(
        self, request: scheduler_pb2.SimulateJobRequest, _: Context
    ) -> scheduler_pb2.SimulateJobResponse:
        """Says what would become of a job."""
        project = ProjectName.parse(request.job.parent).project
        if not request.job.HasField("spec"):
            raise invalid_fields([FieldViolation("job.spec", "is missing: say what to train")])
        new = await self._checks.check(draft_of(request.job, project, calls.current().actor))
        found, view = await self._foresight.simulate(new)
        return scheduler_pb2.SimulateJobResponse(
            simulation=simulation_to_proto(found, names_for(view, _may_read())),
            resource_estimate=jobs_pb2.ResourceEstimate.FromString(new.resource_estimate or b""),
        )

    async def ListForecasts(
        self, request: scheduler_pb2.ListForecastsRequest, _: Context
    ) -> scheduler_pb2.ListForecastsResponse:
        """Lists promises and what became of them, newest first."""
        project = ProjectName.parse(request.parent).project
        page = page_of(request.page_size, request.page_token, scope=f"ListForecasts {request.parent} {request.job}")
        job = await self._one_of(project, request.job) if request.job else None
        before = page.after_number(0) or None
        rows = await self._store.read(lambda db: forecast_store.list_newest(db, project, job, before, page.size + 1))
        shown, token = cut(rows, page, lambda row: str(row[0].id))
        return scheduler_pb2.ListForecastsResponse(
            forecasts=[promise_to_proto(promise, name) for promise, name in shown],
            next_page_token=token,
            calibrations=qualities_to_proto(self._foresight.qualities),
        )

    def foreseen(self, job: Job, message: jobs_pb2.Job) -> jobs_pb2.Job:
        """Returns a job's message with the newest forecast in it."""
        told = self._foresight.latest.get(job.number)
        if told is not None and job.end_ms is None:
            message.forecast.CopyFrom(told_to_proto(told))
        return message

    async def _one_of(self, project: str, text: str) -> int:
        name = JobName.parse(text)
        if name.project != project:
            raise invalid_fields([FieldViolation("job", f"is {text!r}: use a job of project {project}")])
        return (await self._stored(name)).number

    async def _stored(self, name: JobName) -> Job:
        job = await self._store.read(lambda db: job_store.find(db, name))
        if job is None:
            raise not_found("job", name)
        return job


def _may_read() -> Callable[[str], bool]:
    return calls.current().principal.may_touch
