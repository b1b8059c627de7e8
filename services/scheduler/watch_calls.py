"""The RPCs that stream many things: read the request, call a rule, answer. No rules here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import grpc

from services.grpckit import context as calls
from services.grpckit.identity import identity
from services.scheduler.watching.jobs import JobsRequest, Wanted
from services.scheduler.watching.queue import QueueRequest
from services.scheduler.watching.streams import Streams
from services.scheduler.wire.filters import filter_key, filter_of
from tuneforge.names import ProjectName
from tuneforge.v1 import watching_pb2

Context = grpc.aio.ServicerContext[Any, Any]
ALL = "projects/-"


class WatchCalls:
    """The methods of streams over many things; `SchedulerServicer` takes them over."""

    _streams: Streams
    _database = ""

    async def WatchJobs(
        self, request: watching_pb2.WatchJobsRequest, _: Context
    ) -> AsyncIterator[watching_pb2.WatchJobsResponse]:
        """Streams the jobs of a project, or of all."""
        projects = _projects(request.parent)
        asked = JobsRequest(
            wanted=Wanted(projects=projects, filter=filter_of(request.filter)),
            scope=(request.parent, " ".join(sorted(projects or ())), filter_key(request.filter)),
            resume_token=request.resume_token,
            max_batch=request.max_batch,
            skip_snapshot=request.skip_snapshot,
        )
        async for message in self._streams.jobs.watch(asked, await self._identity()):
            yield cast("watching_pb2.WatchJobsResponse", message)  # or its bytes, which the server sends as they are

    async def WatchQueue(
        self, request: watching_pb2.WatchQueueRequest, _: Context
    ) -> AsyncIterator[watching_pb2.WatchQueueResponse]:
        """Streams the queue of a project, or of all."""
        asked = QueueRequest(
            parent=request.parent,
            projects=_projects(request.parent),
            resume_token=request.resume_token,
            max_batch=request.max_batch,
        )
        async for message in self._streams.queue.watch(asked):
            yield message

    async def _identity(self) -> str:
        if not self._database:
            self._database = await self._streams.ledger.write(lambda tx: identity(tx.connection, "scheduler"))
        return self._database


def _projects(parent: str) -> frozenset[str] | None:
    """Returns the projects that a parent stands for and the caller may use; None: all there are.

    Raises:
        ServiceError: PERMISSION_DENIED.
    """
    if parent != ALL:
        project = ProjectName.parse(parent).project
        calls.require_project(project)
        return frozenset({project})
    mine = calls.current().principal.projects
    return None if calls.ALL_PROJECTS in mine else mine
