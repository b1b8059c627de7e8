"""Messages of `WatchQueue`: what the loop saw -> jobs with their place, projects, nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from services.scheduler.jobs import JobState
from services.scheduler.observation import Observation
from services.scheduler.planning.observed import parts_by_job, queue_of
from services.scheduler.planning.order import Standing, standings, waiting_key
from services.scheduler.records import ActiveJob, Attempt, Node
from services.scheduler.wire.resources import job_state_to_proto
from services.scheduler.wire.times import timestamp
from tuneforge.names import NodeName
from tuneforge.v1 import nodes_pb2, watching_pb2

Message = watching_pb2.WatchQueueResponse
News = watching_pb2.QueueNews


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that a queue shows."""

    name: str
    project: str
    """Whose it is; empty: it is shown to everybody."""
    message: watching_pb2.QueueEntry | watching_pb2.QueueShare | watching_pb2.QueueNode


def things_of(seen: Observation) -> dict[str, Thing]:
    """Returns all that a queue shows at a moment, by a key."""
    queue = queue_of(seen)
    standing = standings(queue)
    order = sorted(queue.waiting, key=lambda job: waiting_key(job, queue, standing[job.project]))
    positions = {job.job: number for number, job in enumerate(order, 1)}
    parts = parts_by_job(seen)
    waiting, running = Counter(job.project for job in queue.waiting), Counter(job.project for job in queue.running)
    things: dict[str, Thing] = {}
    for job in seen.jobs:
        entry = _entry(job, positions.get(job.number, 0), parts.get(job.number, ()))
        things[entry.job] = Thing(entry.job, job.name.project, entry)
    for project, stands in standing.items():
        share = _share(seen, project, stands, (waiting[project], running[project]))
        things[f"projects/{project}"] = Thing(project, project, share)
    taken = Counter(part.node for held in parts.values() for part in held)
    for node in seen.nodes:
        message = _node(node, taken[node.node])
        things[message.name] = Thing(message.name, "", message)
    return things


def _entry(job: ActiveJob, position: int, parts: Sequence[Attempt]) -> watching_pb2.QueueEntry:
    return watching_pb2.QueueEntry(
        job=str(job.name),
        state=job_state_to_proto(job.state),
        priority=job.priority,
        position=position if job.state is JobState.QUEUED else 0,
        queue_time=timestamp(job.queued_ms) if job.queued_ms else None,
        nodes=[str(NodeName(part.node)) for part in parts],
        step=job.step,
        total_steps=job.total_steps,
    )


def _share(seen: Observation, project: str, standing: Standing, counts: tuple[int, int]) -> watching_pb2.QueueShare:
    known = seen.projects.get(project)
    return watching_pb2.QueueShare(
        project=project,
        weight=known.weight if known else 1.0,
        usage_device_seconds=round(known.usage_ms / 1000) if known else 0.0,
        over_share=round(standing.over, 2),
        waiting=counts[0],
        running=counts[1],
        hold=known.held if known else "",
    )


def _node(node: Node, taken: int) -> watching_pb2.QueueNode:
    return watching_pb2.QueueNode(
        name=str(NodeName(node.node)),
        state=nodes_pb2.NodeState.Value(f"NODE_STATE_{node.shown_state}"),
        slots=len(node.capacity.device_bytes) or node.capacity.slots,
        taken=taken,
    )


def news(things: Sequence[Thing], gone: Sequence[Thing], time_ms: int) -> watching_pb2.QueueNews:
    """Returns a page of news."""
    page = watching_pb2.QueueNews(time=timestamp(time_ms))
    for thing in things:
        match thing.message:
            case watching_pb2.QueueEntry():
                page.entries.append(thing.message)
            case watching_pb2.QueueShare():
                page.shares.append(thing.message)
            case _:
                page.nodes.append(thing.message)
    for thing in gone:
        match thing.message:
            case watching_pb2.QueueEntry():
                page.left_jobs.append(thing.name)
            case watching_pb2.QueueShare():
                page.left_projects.append(thing.name)
            case _:
                page.left_nodes.append(thing.name)
    return page


def told(page: watching_pb2.QueueNews, token: str) -> watching_pb2.WatchQueueResponse:
    """Returns the message of a page."""
    return watching_pb2.WatchQueueResponse(news=page, resume_token=token)


def bookmark(token: str) -> watching_pb2.WatchQueueResponse:
    """Returns the message that says that nothing is new."""
    return watching_pb2.WatchQueueResponse(bookmark=watching_pb2.WatchBookmark(), resume_token=token)


def draining(token: str) -> watching_pb2.WatchQueueResponse:
    """Returns the last message of a watch that the server ends for its own sake."""
    end = watching_pb2.WatchEnd(reason=watching_pb2.WATCH_END_REASON_DRAINING)
    return watching_pb2.WatchQueueResponse(end=end, resume_token=token)
