"""The RPCs of a job's later life and of many jobs at once: read the request, call a rule, answer. No rules here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc

from services.scheduler.lifecycle.bulk import Ask, Bulk
from services.scheduler.lifecycle.removing import Removing
from services.scheduler.lifecycle.rerun import Rerun
from services.scheduler.verbs import call_of
from services.scheduler.wire.filters import filter_of
from tuneforge.names import JobName, ProjectName
from tuneforge.v1 import jobs_pb2, scheduler_pb2

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobParts:
    """What these methods call."""

    rerun: Rerun
    removing: Removing
    bulk: Bulk


class JobCalls:
    """The methods of a job's later life; `SchedulerServicer` takes them over."""

    _jobs: JobParts

    async def RerunJob(self, request: scheduler_pb2.RerunJobRequest, _: Context) -> jobs_pb2.Job:
        """Runs an ended job again."""
        name = JobName.parse(request.name)
        call = call_of(request, name.project, "RerunJob")
        answer = await self._jobs.rerun.run(name, request.job_id, call, repin=request.repin)
        return jobs_pb2.Job.FromString(answer)

    async def DeleteJob(self, request: scheduler_pb2.DeleteJobRequest, _: Context) -> jobs_pb2.Job:
        """Removes an ended job."""
        name = JobName.parse(request.name)
        answer = await self._jobs.removing.delete(name, call_of(request, name.project, "DeleteJob"))
        return jobs_pb2.Job.FromString(answer)

    async def CancelJobs(self, request: scheduler_pb2.CancelJobsRequest, _: Context) -> scheduler_pb2.ChangedJobs:
        """Cancels many jobs."""
        return await self._change("cancel", request, "CancelJobs", request.reason)

    async def PauseJobs(self, request: scheduler_pb2.PauseJobsRequest, _: Context) -> scheduler_pb2.ChangedJobs:
        """Pauses many jobs."""
        return await self._change("pause", request, "PauseJobs", request.reason)

    async def ResumeJobs(self, request: scheduler_pb2.ResumeJobsRequest, _: Context) -> scheduler_pb2.ChangedJobs:
        """Resumes many jobs."""
        return await self._change("resume", request, "ResumeJobs")

    async def DeleteJobs(self, request: scheduler_pb2.DeleteJobsRequest, _: Context) -> scheduler_pb2.ChangedJobs:
        """Removes many jobs."""
        return await self._change("delete", request, "DeleteJobs")

    async def _change(self, verb: str, request: Any, method: str, reason: str = "") -> scheduler_pb2.ChangedJobs:
        project = ProjectName.parse(request.parent).project
        ask = Ask(
            verb=verb,
            project=project,
            wanted=filter_of(request.filter),
            is_all=request.all,
            validate_only=request.validate_only,
            reason=reason,
        )
        answer = await self._jobs.bulk.change(ask, call_of(request, project, method))
        return scheduler_pb2.ChangedJobs.FromString(answer)
