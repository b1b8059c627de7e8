"""The queue as it stands and as it changes: `client.queues.watch`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Self

from tuneforge import _wire
from tuneforge._connections import Service
from tuneforge._resumed_stream import ResumedStream, WatchOptions
from tuneforge.job_values import JobState
from tuneforge.nodes import NodeState
from tuneforge.v1 import jobs_pb2, nodes_pb2, watching_pb2
from tuneforge.v1.scheduler_pb2_grpc import SchedulerServiceStub


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """One job that has not ended."""

    job: str
    """`projects/{project}/jobs/{job}`."""
    state: JobState
    priority: int
    position: int
    """Its place among all jobs that could start now, of every project, from 1; 0: it does not wait for a node."""
    queue_time: datetime | None
    nodes: tuple[str, ...]
    step: int
    total_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueShare:
    """How a project with jobs stands beside the others."""

    project: str
    weight: float
    usage_device_seconds: float
    over_share: float
    """Its part of all usage over the part that its weight gives it; 1 is exactly its share."""
    waiting: int
    running: int
    hold: str
    """Why nothing of it starts now; empty: it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueNode:
    """A node as the queue sees it."""

    name: str
    state: NodeState
    slots: int
    taken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    """The whole queue at one moment."""

    time: datetime
    entries: Mapping[str, QueueEntry] = field(default_factory=dict)
    """By the job's name."""
    shares: Mapping[str, QueueShare] = field(default_factory=dict)
    """By project."""
    nodes: Mapping[str, QueueNode] = field(default_factory=dict)
    """By the node's name."""

    @property
    def waiting(self) -> list[QueueEntry]:
        """The jobs that wait for a node, the next one first."""
        return sorted((each for each in self.entries.values() if each.position), key=lambda each: each.position)


class QueueWatch(Iterator[QueueView]):
    """The queue each time that it has changed, whole, for ever. Close it, or use `with`, to stop."""

    def __init__(
        self,
        scheduler: Service[SchedulerServiceStub],
        request: watching_pb2.WatchQueueRequest,
        *,
        options: WatchOptions | None = None,
    ) -> None:
        def open_at(token: str) -> object:
            request.resume_token = token
            return scheduler.stub.WatchQueue(request)

        self._stream: ResumedStream[watching_pb2.WatchQueueResponse] = ResumedStream(
            scheduler, open_at, options=options
        )
        self._entries: dict[str, QueueEntry] = {}
        self._shares: dict[str, QueueShare] = {}
        self._nodes: dict[str, QueueNode] = {}
        self._views = self._run()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> QueueView:
        if self._stream.is_closed:
            raise StopIteration
        return next(self._views)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the watch. May be called from another thread."""
        self._stream.close()

    def _run(self) -> Iterator[QueueView]:
        for message in self._stream.messages():
            if message.WhichOneof("payload") != "news":
                continue
            self._take(message.news)
            if message.news.is_last:
                yield QueueView(
                    time=_wire.instant(message.news.time),
                    entries=dict(self._entries),
                    shares=dict(self._shares),
                    nodes=dict(self._nodes),
                )

    def _take(self, news: watching_pb2.QueueNews) -> None:
        if news.begins_snapshot:
            for known in (self._entries, self._shares, self._nodes):
                known.clear()
        self._entries.update((each.job, _entry(each)) for each in news.entries)
        self._shares.update((each.project, _share(each)) for each in news.shares)
        self._nodes.update((each.name, _node(each)) for each in news.nodes)
        for name in news.left_jobs:
            self._entries.pop(name, None)
        for name in news.left_projects:
            self._shares.pop(name, None)
        for name in news.left_nodes:
            self._nodes.pop(name, None)


def _entry(message: watching_pb2.QueueEntry) -> QueueEntry:
    return QueueEntry(
        job=message.job,
        state=_wire.word(JobState, jobs_pb2.JobState.DESCRIPTOR, message.state),
        priority=message.priority,
        position=message.position,
        queue_time=_wire.instant_or_none(message.queue_time),
        nodes=tuple(message.nodes),
        step=message.step,
        total_steps=message.total_steps,
    )


def _share(message: watching_pb2.QueueShare) -> QueueShare:
    return QueueShare(
        project=message.project,
        weight=message.weight,
        usage_device_seconds=message.usage_device_seconds,
        over_share=message.over_share,
        waiting=message.waiting,
        running=message.running,
        hold=message.hold,
    )


def _node(message: watching_pb2.QueueNode) -> QueueNode:
    return QueueNode(
        name=message.name,
        state=_wire.word(NodeState, nodes_pb2.NodeState.DESCRIPTOR, message.state),
        slots=message.slots,
        taken=message.taken,
    )
