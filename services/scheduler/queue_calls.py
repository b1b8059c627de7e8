"""The RPCs of queues: read the request, call a rule, answer. No rules here."""

from __future__ import annotations

from typing import Any

import grpc

from services.grpckit import context as calls
from services.grpckit.pages import cut, page_of
from services.scheduler.queues.verbs import Change, QueueVerbs
from services.scheduler.verbs import call_of
from services.scheduler.wire.queues import limits_from_proto
from tuneforge.names import ProjectName, QueueName, project_of
from tuneforge.v1 import queues_pb2

Context = grpc.aio.ServicerContext[Any, Any]

_ALL = "projects/-"


class QueueCalls:
    """The methods of queues; `SchedulerServicer` takes them over."""

    _queues: QueueVerbs

    async def GetQueue(self, request: queues_pb2.GetQueueRequest, _: Context) -> queues_pb2.Queue:
        """Returns a queue and how it stands."""
        return await self._queues.get(QueueName.parse(request.name))

    async def ListQueues(self, request: queues_pb2.ListQueuesRequest, _: Context) -> queues_pb2.ListQueuesResponse:
        """Lists queues by project."""
        page = page_of(request.page_size, request.page_token, scope=f"ListQueues {request.parent}")
        if request.parent == _ALL:
            may_touch = calls.current().principal.may_touch
            rows = await self._queues.list(may_touch, page.after or "", page.size + 1)
        else:
            project = ProjectName.parse(request.parent).project
            calls.require_project(project)
            rows = [await self._queues.get(QueueName(project, "default"))]
        shown, token = cut(rows, page, lambda queue: project_of(queue.name))
        return queues_pb2.ListQueuesResponse(queues=shown, next_page_token=token)

    async def UpdateQueue(self, request: queues_pb2.UpdateQueueRequest, _: Context) -> queues_pb2.Queue:
        """Changes a queue."""
        name = QueueName.parse(request.queue.name)
        change = Change(
            name=name,
            wanted=limits_from_proto(request.queue, self._queues.price),
            paths=tuple(request.update_mask.paths),
            etag=request.queue.etag,
        )
        return queues_pb2.Queue.FromString(
            await self._queues.update(change, call_of(request, name.project, "UpdateQueue"))
        )
