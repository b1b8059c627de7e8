"""Why a job waits: each reason with a stable word, a sentence with its numbers, and what would end it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.scheduler.foresight.moment import Moment
from services.scheduler.foresight.nodes_said import Finding, Lack
from services.scheduler.foresight.places import duration
from services.scheduler.planning.plan import Begin, Decision, GiveWay, Keep
from services.scheduler.planning.queue import Waiting
from services.scheduler.planning.rooms import Rooms


class Reason(StrEnum):
    """Stable words, spelt as in the contract without its prefix."""

    NO_NODE = "NO_NODE"
    LABELS = "LABELS"
    DEVICES = "DEVICES"
    MEMORY = "MEMORY"
    CPU = "CPU"
    FEW_NODES = "FEW_NODES"
    SLOTS_TAKEN = "SLOTS_TAKEN"
    PROJECT_DEVICES = "PROJECT_DEVICES"
    PROJECT_JOBS = "PROJECT_JOBS"
    BUDGET = "BUDGET"
    OTHERS_FIRST = "OTHERS_FIRST"
    START_AFTER = "START_AFTER"
    RETRY_WAIT = "RETRY_WAIT"
    DEPENDENCY = "DEPENDENCY"
    PAUSED = "PAUSED"
    QUEUE_HELD = "QUEUE_HELD"
    NODES_KEPT = "NODES_KEPT"
    LEAVING = "LEAVING"
    NODES_AWAY = "NODES_AWAY"
    STILL_HELD = "STILL_HELD"
    UNLIKE_NODES = "UNLIKE_NODES"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """One thing that a job waits for."""

    reason: Reason
    message: str
    cure: str
    jobs: tuple[int, ...] = ()
    """Numbers of the jobs that it is about."""


_NODES_NAMED = 3
_CURES = {
    Lack.LABELS: "Start a node with these labels, or change `resources.node_labels` or what `scheduling` excludes.",
    Lack.DEVICES: "Start such a node, or change `resources.devices_per_node` or `scheduling.device_kinds`.",
    Lack.MEMORY: "Start a larger node, or make the run smaller: `tuneforge jobs estimate` shows what takes how much.",
    Lack.CPU: "Start a larger node, or ask for less with `resources.cpu`.",
}


def of_waiting(
    job: Waiting, moment: Moment, decisions: Sequence[Decision], said: Sequence[Finding]
) -> tuple[Blocker, ...]:
    """Returns why a job that waits for a node has none; empty: the planner starts it now.

    Args:
        job: The job.
        moment: The moment.
        decisions: The planner's, of this moment.
        said: What each node says to the job.
    """
    if any(isinstance(each, Begin) and each.job == job.job for each in decisions):
        return ()
    if (lacking := _no_nodes(job, said, moment)) is not None:
        return (lacking,)
    found = [*_held(job, moment), *_quota(job, moment, decisions), *_room(job, moment, decisions)]
    return tuple(found) or (_others(job, decisions),)


def _no_nodes(job: Waiting, said: Sequence[Finding], moment: Moment) -> Blocker | None:
    """Returns that too few nodes could hold the job even if they were idle; None: enough could."""
    answering = [each for each in said if not each.is_away]
    if not answering:
        known = "none has registered"
        if said:
            first = next((each for each in said if each.could_hold), said[0])
            known = f"nodes/{first.node} {first.why_not}" + (f", and {len(said) - 1} others" if len(said) > 1 else "")
        cure = "Look at the nodes: `tuneforge nodes list`." if said else "Start a trainer that knows this scheduler."
        away = any(each.could_hold for each in said)
        reason = Reason.NODES_AWAY if away else Reason.NO_NODE
        return Blocker(reason=reason, message=f"No node takes work: {known}.", cure=cure)
    able = [each for each in answering if each.could_hold]
    if len(able) >= job.parts:
        return None
    away_able = [each for each in said if each.is_away and each.could_hold]
    if len(able) + len(away_able) >= job.parts:
        each = away_able[0]
        message = f"The nodes that could hold it are away: nodes/{each.node} {each.why_not}."
        cure = "Bring them back, or wait until they answer."
        if any(each.lack is Lack.UNLIKE_NODES for each in answering):
            cure += f" Or: {_without_it(job, moment)}"
        return Blocker(reason=Reason.NODES_AWAY, message=message, cure=cure)
    if able:
        message = f"It needs {job.parts} nodes at once; {len(able)} that answer could hold a part."
        cure = f"Start {job.parts - len(able)} more such nodes, or ask for fewer with `resources.nodes`."
        return Blocker(reason=Reason.FEW_NODES, message=message, cure=cure)
    nearest = min(answering, key=lambda each: (each.lack is not Lack.MEMORY, each.missing_bytes, each.node))
    lack = nearest.lack or Lack.MEMORY
    others = f", nor could the {len(answering) - 1} others" if len(answering) > 1 else ""
    return Blocker(
        reason=Reason(str(lack)),
        message=f"nodes/{nearest.node} could not hold it: it {nearest.why_not}{others}.",
        cure=_without_it(job, moment) if lack is Lack.UNLIKE_NODES else _CURES[lack],
    )


def _without_it(job: Waiting, moment: Moment) -> str:
    """Returns what ends a wait for nodes like one that may never come back."""
    active = moment.jobs[job.job]
    if not active.durable_step:  # it verifies: only there the same numbers can come out
        return "Start a node like it."
    name = active.name.job
    return (
        "Start a node like it, or a new job from its checkpoint, which may run anywhere, in its place: `tuneforge jobs "
        f"submit --from-checkpoint {name}/{active.durable_step}`, then `tuneforge jobs cancel {name}`."
    )


def _held(job: Waiting, moment: Moment) -> Iterator[Blocker]:
    """Gives why nothing of the project starts."""
    why = moment.queue.project(job.project).held
    if why:
        is_spent = "spent" in why
        if "is paused" in why:
            cure = "Let the queue go on"
        elif is_spent and "next one begins" not in why:  # by waiting alone nothing comes
            cure = "Raise the limit of the queue"
        else:
            cure = "Wait, or raise the limit of the queue"
        yield Blocker(
            reason=Reason.BUDGET if is_spent else Reason.QUEUE_HELD, message=why, cure=f"{cure}: `tuneforge queues`."
        )


def _quota(job: Waiting, moment: Moment, decisions: Sequence[Decision]) -> Iterator[Blocker]:
    project = moment.queue.project(job.project)
    mine = [other for other in moment.queue.running if other.project == job.project]
    starting = {each.job for each in decisions if isinstance(each, Begin)}
    soon = [other for other in moment.queue.waiting if other.job in starting and other.project == job.project]
    held = sum(other.devices for other in mine) + sum(other.parts * other.slots for other in soon)
    names = tuple(other.job for other in mine) + tuple(other.job for other in soon)
    wanted = job.parts * job.slots
    if project.max_devices is not None and held + wanted > project.max_devices:
        yield Blocker(
            reason=Reason.PROJECT_DEVICES,
            message=f"Project {job.project} holds {held} of the {project.max_devices} devices that it may; "
            f"this job needs {wanted}.",
            cure="Wait for one of its jobs to end, pause one, or have the quota raised.",
            jobs=names,
        )
    if project.max_jobs is not None and len(mine) + len(soon) >= project.max_jobs:
        yield Blocker(
            reason=Reason.PROJECT_JOBS,
            message=f"Project {job.project} runs {_many(len(mine) + len(soon), 'job')} at once "
            f"and may run {project.max_jobs}.",
            cure="Wait for one of them to end, pause one, or have the quota raised.",
            jobs=names,
        )


def _room(job: Waiting, moment: Moment, decisions: Sequence[Decision]) -> Iterator[Blocker]:
    queue = moment.queue
    rooms = Rooms(queue.rooms)
    if rooms.fit(job) is None:
        able = {room.node for room in queue.rooms if job.nodes is None or room.node in job.nodes}
        holders = [other for other in queue.running if able & set(other.held)]
        for_me = [each for each in decisions if isinstance(each, GiveWay) and each.to_job == job.job]
        leaving = tuple(dict.fromkeys(
            [each.job for each in for_me] + [other.job for other in holders if other.is_leaving]
        ))  # fmt: skip
        if any(isinstance(each, Keep) and each.job == job.job for each in decisions) and leaving:
            yield Blocker(
                reason=Reason.LEAVING,
                message=f"Its slots are promised to it; {_many(len(leaving), 'job')} will save the state and leave "
                "them.",
                cure="Nothing is to be done: they leave within their stop deadline.",
                jobs=leaving,
            )
            return
        if (unlike := _unlike(job, rooms)) is not None:
            yield unlike
            return
        slots = sum(room.slots for room in queue.rooms if room.node in able)
        free = sum(max(0, room.free) for room in queue.rooms if room.node in able)
        asked = f"{job.slots} on each of {job.parts} nodes" if job.parts > 1 else str(job.slots)
        yield Blocker(
            reason=Reason.SLOTS_TAKEN,
            message=f"{_many(len(holders), 'job')} {'holds' if len(holders) == 1 else 'hold'} {slots - free} of the "
            f"{slots} slots that it could use; "
            f"it needs {asked} and {free} are free.",
            cure="Wait for one of them to end, or start another node.",
            jobs=tuple(other.job for other in holders),
        )
        return
    for each in decisions:
        if isinstance(each, Keep) and each.job != job.job and _blocks(each, job):
            waited = _waited(each.job, moment)
            yield Blocker(
                reason=Reason.NODES_KEPT,
                message=f"Kept free for a larger job that has waited {waited}: {_many(len(each.nodes), 'node')}.",
                cure="Wait until that job has started; it is next in line.",
                jobs=(each.job,),
            )
            return


def _unlike(job: Waiting, rooms: Rooms) -> Blocker | None:
    """Returns that too few nodes are alike for the parts of a job: of all, or of those with room now; None: enough."""
    found, state, more = rooms.largest(job), "could hold a part", "Start more nodes of one kind"
    if len(found) < job.parts or rooms.alike(job, found):
        found, state, more = rooms.with_room(job), "have room", "Wait until more nodes of one kind are free"
        if len(found) < job.parts:
            return None
    some = ", ".join(f"nodes/{node}" for node in found[:_NODES_NAMED]) + ", …" * (len(found) > _NODES_NAMED)
    return Blocker(
        reason=Reason.UNLIKE_NODES,
        message=f"{_many(len(found), 'node')} {state} ({some}), but no {job.parts} of them are alike: they differ in "
        "devices, versions of libraries or processor, and would not compute the same numbers.",
        cure=f"{more}, or install the same versions: `tuneforge nodes list --json`.",
    )


def _blocks(keep: Keep, job: Waiting) -> bool:
    return job.nodes is None or bool(set(keep.nodes) & job.nodes)


def _waited(number: int, moment: Moment) -> str:
    other = next((each for each in moment.queue.waiting if each.job == number), None)
    return duration((moment.queue.now_ms - other.queued_ms) / 1000) if other is not None else "long"


def _others(job: Waiting, decisions: Sequence[Decision]) -> Blocker:
    starting = tuple(each.job for each in decisions if isinstance(each, Begin | Keep) and each.job != job.job)
    return Blocker(
        reason=Reason.OTHERS_FIRST,
        message=f"What is free goes to {_many(len(starting), 'job')} before it.",
        cure="Wait for its turn, or have it given a higher class.",
        jobs=starting,
    )


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
