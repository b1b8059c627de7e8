"""Queues: how much of the devices each project gets, and what it may spend."""

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.field_mask_pb2 import FieldMask

from tuneforge import _short_names as names
from tuneforge import _wire
from tuneforge._connections import Connections
from tuneforge._resumed_stream import WatchOptions
from tuneforge._transport import new_request_id
from tuneforge.queue_values import Budget, Queue, budget_to_proto, queue_from_proto
from tuneforge.queue_watch import QueueWatch
from tuneforge.v1 import queues_pb2 as pb
from tuneforge.v1.watching_pb2 import WatchQueueRequest

_ALL = "projects/-"
_COUNTS = ("max_devices", "max_jobs", "max_waiting_jobs", "window_hours", "guaranteed_devices")
_OF_QUOTA = ("max_devices", "max_jobs", "max_waiting_jobs", "device_hours", "window_hours", "guaranteed_devices")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueChange:
    """What is to be changed of a queue; None leaves it as it is. Numbers of a quota: 0 takes the limit away."""

    weight: float | None = None
    is_paused: bool | None = None
    max_devices: int | None = None
    max_jobs: int | None = None
    max_waiting_jobs: int | None = None
    device_hours: float | None = None
    """Given together with `window_hours`, unless that is set already."""
    window_hours: int | None = None
    guaranteed_devices: int | None = None
    budget: Budget | None = None
    """Takes the place of the whole budget; `Budget()` takes the limit away."""


class Queues:
    """The queue of the client's project, and those of others; `client.queues`."""

    def __init__(self, connections: Connections, project: str) -> None:
        self._connections = connections
        self._project = project

    def get(self, project: str | None = None) -> Queue:
        """Returns the queue of a project and how it stands.

        Args:
            project: Id; None: the client's.
        """
        scheduler = self._connections.scheduler
        request = pb.GetQueueRequest(name=self._name(project))
        return queue_from_proto(scheduler.call(scheduler.stub.GetQueue, request))

    def list(self) -> Iterator[Queue]:
        """Yields the queues of all projects that you may touch and that have had jobs, by project."""
        scheduler = self._connections.scheduler
        for page in scheduler.pages(scheduler.stub.ListQueues, pb.ListQueuesRequest(parent=_ALL)):
            yield from map(queue_from_proto, page.queues)

    def watch(self, *, all_projects: bool = False, options: WatchOptions | None = None) -> QueueWatch:
        """Yields the whole queue now and each time that it has changed: places of jobs, shares, nodes.

        Args:
            all_projects: Jobs of every project that you may touch, not of the client's alone.
            options: Patience and what to do at a break.
        """
        parent = _ALL if all_projects else names.parent(self._project)
        return QueueWatch(self._connections.scheduler, WatchQueueRequest(parent=parent), options=options)

    def update(self, change: QueueChange, *, project: str | None = None, etag: str = "") -> Queue:
        """Changes a queue and returns it.

        Args:
            change: What to change, something of it.
            project: Id; None: the client's.
            etag: The etag that the queue must have; empty: whatever it is.

        Raises:
            InvalidArgument: Values are out of range; `fields` lists all of them.
            PermissionDenied: You are no admin, or an admin of this project alone and the change loosens a limit.
            Conflict: The etag is not that of now.
        """
        values = {name: getattr(change, name) for name in _OF_QUOTA}
        for name in _COUNTS:
            _wire.counted(f"queue.quota.{name}", values[name])
        quota = {name: value for name, value in values.items() if value is not None}
        paths = [f"quota.{name}" for name in quota]
        paths += [name for name in ("weight", "is_paused", "budget") if getattr(change, name) is not None]
        queue = pb.Queue(
            name=self._name(project),
            weight=change.weight or 0.0,
            is_paused=bool(change.is_paused),
            quota=pb.Quota(**quota),
            budget=budget_to_proto(change.budget),
            etag=etag,
        )
        scheduler = self._connections.scheduler
        request = pb.UpdateQueueRequest(queue=queue, update_mask=FieldMask(paths=paths), request_id=new_request_id())
        return queue_from_proto(scheduler.call(scheduler.stub.UpdateQueue, request))

    def _name(self, project: str | None) -> str:
        return f"{names.parent(project or self._project)}/queues/default"
