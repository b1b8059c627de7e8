"""The RPCs of the scheduler: read the request, call a rule, answer. No rules here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

import grpc

from services.grpckit import context as calls
from services.grpckit.errors import FieldViolation, invalid_fields, not_found
from services.grpckit.pages import cut, page_of
from services.scheduler.broadcast import Broadcast
from services.scheduler.checkpoint_calls import CheckpointCalls
from services.scheduler.checkpoint_verbs import CheckpointVerbs
from services.scheduler.explain_calls import ExplainCalls
from services.scheduler.foresight.service import Foresight
from services.scheduler.job_calls import JobCalls, JobParts
from services.scheduler.ledger import Ledger
from services.scheduler.node_calls import NodeCalls
from services.scheduler.nodes import Nodes, registration_problems
from services.scheduler.queue_calls import QueueCalls
from services.scheduler.queues.verbs import QueueVerbs
from services.scheduler.records import Job
from services.scheduler.store import attempts as attempt_store
from services.scheduler.store import job_filters, measured_runs, usage
from services.scheduler.store import jobs as job_store
from services.scheduler.store import nodes as node_store
from services.scheduler.sweep_calls import SweepCalls, SweepParts
from services.scheduler.verbs import Verbs, call_of
from services.scheduler.verification import Verification
from services.scheduler.watch import WatchRequest
from services.scheduler.watch_calls import WatchCalls
from services.scheduler.watching.streams import Streams
from services.scheduler.wire.budgets import budget_from_proto
from services.scheduler.wire.drafts import draft_of, preview, registration_of
from services.scheduler.wire.estimates import calibration_to_proto
from services.scheduler.wire.filters import filter_key, listing_of
from services.scheduler.wire.reports import status_from_proto
from services.scheduler.wire.resources import (
    attempt_to_proto,
    job_to_proto,
    node_to_proto,
)
from services.scheduler.wire.times import timestamp
from tuneforge import durations
from tuneforge.names import JobName, NodeName, ProjectName
from tuneforge.v1 import jobs_pb2, scheduler_pb2, scheduler_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the servicer calls."""

    ledger: Ledger
    verbs: Verbs
    streams: Streams
    nodes: Nodes
    broadcast: Broadcast
    checkpoints: CheckpointVerbs
    verification: Verification
    queues: QueueVerbs
    foresight: Foresight
    sweeps: SweepParts
    jobs: JobParts


class SchedulerServicer(
    CheckpointCalls,
    ExplainCalls,
    JobCalls,
    QueueCalls,
    NodeCalls,
    WatchCalls,
    SweepCalls,
    scheduler_pb2_grpc.SchedulerServiceServicer,
):
    """The scheduler's RPCs.

    Args:
        parts: The rules and the store.
    """

    def __init__(self, parts: Parts) -> None:
        CheckpointCalls.__init__(self, parts.ledger, parts.checkpoints, parts.verification)
        NodeCalls.__init__(self, parts.nodes)
        ExplainCalls.__init__(self, parts.ledger, parts.verbs, parts.foresight)
        self._parts = parts
        self._queues = parts.queues
        self._streams = parts.streams
        self._sweeps = parts.sweeps
        self._jobs = parts.jobs

    async def CreateJob(self, request: scheduler_pb2.CreateJobRequest, _: Context) -> jobs_pb2.Job:
        """Checks a spec whole and queues a job."""
        project = ProjectName.parse(request.parent).project
        if not request.HasField("spec"):
            raise invalid_fields([FieldViolation("spec", "is missing: say what to train")])
        draft = draft_of(request, project, calls.current().actor)
        if request.validate_only:
            return preview(await self._parts.verbs.check(draft))
        answer = await self._parts.verbs.create(draft, call_of(request, project, "CreateJob"))
        return cast("jobs_pb2.Job", answer)  # its bytes, which the server sends as they are

    async def EstimateResources(
        self, request: scheduler_pb2.EstimateResourcesRequest, _: Context
    ) -> jobs_pb2.ResourceEstimate:
        """Says what a spec would take."""
        project = ProjectName.parse(request.parent).project
        if not request.HasField("spec"):
            raise invalid_fields([FieldViolation("spec", "is missing: say what to train")])
        create = scheduler_pb2.CreateJobRequest(parent=request.parent, spec=request.spec)
        draft = draft_of(create, project, calls.current().actor)
        return jobs_pb2.ResourceEstimate.FromString(await self._parts.verbs.estimate(draft))

    async def ListCalibrations(
        self, request: scheduler_pb2.ListCalibrationsRequest, _: Context
    ) -> scheduler_pb2.ListCalibrationsResponse:
        """Lists how far predictions were off."""
        page = page_of(request.page_size, request.page_token, scope="ListCalibrations")
        kinds = sorted((await self._parts.ledger.read(measured_runs.kinds)).items(), key=lambda item: str(item[0]))
        rows = [item for item in kinds if str(item[0]) > (page.after or "")][: page.size + 1]
        shown, token = cut(rows, page, lambda item: str(item[0]))
        return scheduler_pb2.ListCalibrationsResponse(
            calibrations=[calibration_to_proto(kind, runs) for kind, runs in shown], next_page_token=token
        )

    async def GetJob(self, request: scheduler_pb2.GetJobRequest, _: Context) -> jobs_pb2.Job:
        """Returns a job."""
        job = await self._job(JobName.parse(request.name))
        whole = (await self._parts.ledger.read_now(lambda db, now: usage.with_running(db, [job], now)))[0]
        return self.foreseen(whole, job_to_proto(whole))

    async def ListJobs(self, request: scheduler_pb2.ListJobsRequest, _: Context) -> scheduler_pb2.ListJobsResponse:
        """Lists a project's jobs."""
        project = ProjectName.parse(request.parent).project
        wanted, order = listing_of(request)
        scope = f"ListJobs {request.parent} {order} {sorted(request.states)} {filter_key(request.filter)}"
        page = page_of(request.page_size, request.page_token, scope=scope)
        rows = await self._parts.ledger.read(
            lambda db: job_filters.list_page(db, project, wanted, order, page.after, page.size + 1)
        )
        shown, token = cut(rows, page, lambda job: job_filters.page_key(job, order))
        found = await self._parts.ledger.read_now(lambda db, now: usage.with_running(db, shown, now))
        jobs = [self.foreseen(job, job_to_proto(job)) for job in found]
        return scheduler_pb2.ListJobsResponse(jobs=jobs, next_page_token=token)

    async def CancelJob(self, request: scheduler_pb2.CancelJobRequest, _: Context) -> jobs_pb2.Job:
        """Cancels a job."""
        name = JobName.parse(request.name)
        call = call_of(request, name.project, "CancelJob")
        return jobs_pb2.Job.FromString(await self._parts.verbs.cancel(name, request.reason, call))

    async def PauseJob(self, request: scheduler_pb2.PauseJobRequest, _: Context) -> jobs_pb2.Job:
        """Pauses a job."""
        name = JobName.parse(request.name)
        call = call_of(request, name.project, "PauseJob")
        return jobs_pb2.Job.FromString(await self._parts.verbs.pause(name, request.reason, call))

    async def ResumeJob(self, request: scheduler_pb2.ResumeJobRequest, _: Context) -> jobs_pb2.Job:
        """Queues a paused job again."""
        name = JobName.parse(request.name)
        call = call_of(request, name.project, "ResumeJob")
        budget = budget_from_proto(request.budget) if request.HasField("budget") else None
        return jobs_pb2.Job.FromString(await self._parts.verbs.resume(name, call, budget))

    async def WatchJob(
        self, request: scheduler_pb2.WatchJobRequest, _: Context
    ) -> AsyncIterator[scheduler_pb2.WatchJobResponse]:
        """Streams what happened and happens in a job."""
        asked = WatchRequest(
            name=JobName.parse(request.name), resume_token=request.resume_token, max_batch=request.max_batch
        )
        async for message in self._parts.streams.job.watch(asked):
            yield message

    async def ListAttempts(
        self, request: scheduler_pb2.ListAttemptsRequest, _: Context
    ) -> scheduler_pb2.ListAttemptsResponse:
        """Lists the attempts of a job, newest first."""
        name = JobName.parse(request.parent)
        page = page_of(request.page_size, request.page_token, scope=f"ListAttempts {name}")
        before = page.after_number(0) or None
        job = await self._job(name)
        rows = await self._parts.ledger.read(
            lambda db: attempt_store.list_newest(db, job.number, before, page.size + 1)
        )
        shown, token = cut(rows, page, lambda parts: str(parts[0].name.attempt))
        return scheduler_pb2.ListAttemptsResponse(attempts=map(attempt_to_proto, shown), next_page_token=token)

    async def RegisterNode(
        self, request: scheduler_pb2.RegisterNodeRequest, _: Context
    ) -> scheduler_pb2.RegisterNodeResponse:
        """Makes a node known, or known again after its restart."""
        new = registration_of(request.node)
        if problems := registration_problems(new, request.node.capacity.slots):
            raise invalid_fields(problems)
        nodes, held = self._parts.nodes, tuple(request.node.attempts)
        node = await nodes.register(new, map(status_from_proto, held), held)
        return scheduler_pb2.RegisterNodeResponse(
            node=node_to_proto(node, held),
            heartbeat_interval=durations.from_seconds(nodes.timing.heartbeat_interval_s),
            lease_ttl=durations.from_seconds(nodes.timing.lease_ttl_s),
            manager_token=node.manager_token,
        )

    async def Heartbeat(
        self, request_iterator: AsyncIterator[scheduler_pb2.HeartbeatRequest], _: Context
    ) -> AsyncIterator[scheduler_pb2.HeartbeatResponse]:
        """Holds a node's lease."""
        async for request in request_iterator:
            node = NodeName.parse(request.name).node
            held = tuple(request.attempts)
            until_ms = await self._parts.nodes.heartbeat(
                node, request.generation, map(status_from_proto, held), held, is_draining=request.is_draining
            )
            yield scheduler_pb2.HeartbeatResponse(lease_expire_time=timestamp(until_ms))
            if self._parts.broadcast.is_draining:
                return

    async def ListNodes(self, request: scheduler_pb2.ListNodesRequest, _: Context) -> scheduler_pb2.ListNodesResponse:
        """Lists the nodes by name."""
        page = page_of(request.page_size, request.page_token, scope="ListNodes")
        rows = await self._parts.ledger.read(lambda db: node_store.list_by_name(db, page.after or "", page.size + 1))
        shown, token = cut(rows, page, lambda node: node.node)
        heard = self._parts.nodes.heard
        answers = [node_to_proto(node, heard[node.node].raw if node.node in heard else ()) for node in shown]
        return scheduler_pb2.ListNodesResponse(nodes=answers, next_page_token=token)

    async def _job(self, name: JobName) -> Job:
        job = await self._parts.ledger.look(lambda db: job_store.find(db, name))
        if job is None:
            raise not_found("job", name)
        return job
