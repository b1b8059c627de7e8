"""What is to be done next: a pure function from what was observed to actions, each with its reason.

`reconcile.py` observes and acts. Nothing is remembered between two decisions: every action is derived again from the
database and from what the nodes say, so a crash between deciding and acting, or in the middle of acting, loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.scheduler.actions import (
    Action,
    Close,
    FailDependent,
    Fence,
    Follow,
    Lose,
    MarkUnreachable,
    PauseSpent,
    PlaceAttempt,
    Preempt,
    Publish,
    Release,
    Renew,
    SayLate,
    Start,
    Stop,
    TellBlobHold,
)
from services.scheduler.jobs import LEAVING, LIVE_ATTEMPT, TERMINAL, Failure, JobState, dependency_failure
from services.scheduler.observation import Observation
from services.scheduler.planning.observed import loss_ms, parts_by_job, queue_of, rest_ms
from services.scheduler.planning.plan import Begin, GiveWay, plan
from services.scheduler.records import ActiveJob, Attempt, Node
from services.scheduler.store.checkpoints import BlobHold
from services.scheduler.store.nodes import UNREACHABLE
from services.scheduler.store.outbox import Publication


def decide(seen: Observation) -> list[Action]:
    """Returns everything that is due, in the order in which it should be done."""
    return [
        *_leases(seen),
        *_dependents(seen),
        *(PauseSpent(job=each.job, why=each.why, goes_on_ms=each.goes_on_ms) for each in seen.spent),
        *_renewed(seen),
        *_attempts(seen),
        *_strays(seen),
        *_drains(seen),
        *_late(seen),
        *_placements(seen),
        *map(_publish, seen.publications),
        *map(_tell_blob_hold, seen.blob_holds),
    ]


def _renewed(seen: Observation) -> Iterator[Renew]:
    for job in seen.jobs:
        if job.state is JobState.PAUSED and job.goes_on_ms is not None and job.goes_on_ms <= seen.now_ms:
            yield Renew(job=job.number)


def _publish(publication: Publication) -> Publish:
    return Publish(publication=publication)


def _tell_blob_hold(hold: BlobHold) -> TellBlobHold:
    return TellBlobHold(hold=hold)


def _leases(seen: Observation) -> Iterator[Action]:
    for node in seen.nodes:
        if node.state != UNREACHABLE and node.lease_until_ms < seen.now_ms:
            yield MarkUnreachable(node=node.node)


def _dependents(seen: Observation) -> Iterator[Action]:
    for job in seen.jobs:
        if job.state is not JobState.BLOCKED:
            continue
        needed = [seen.dependencies[number] for number in waited_for(job)]
        failed = next((each for each in needed if each[1] in TERMINAL and each[1] is not JobState.SUCCEEDED), None)
        if failed is not None:
            yield FailDependent(job=job.number, failure=dependency_failure(*failed))
        elif needed and all(state is JobState.SUCCEEDED for _, state in needed):
            yield Release(job=job.number)


def waited_for(job: ActiveJob) -> tuple[int, ...]:
    """Returns the numbers of the jobs that a BLOCKED one waits for."""
    return job.waits_for if job.depends_on is None else (job.depends_on, *job.waits_for)


def _attempts(seen: Observation) -> Iterator[Action]:
    jobs = {job.number: job for job in seen.jobs}
    nodes = {node.node: node for node in seen.nodes}
    for attempt in seen.attempts:
        node = nodes[attempt.node]
        job = jobs.get(attempt.job)
        if attempt.state not in LIVE_ATTEMPT:
            yield from _ended(seen, attempt, node)
        elif job is not None and job.token == attempt.token:
            yield from _live(seen, job, attempt, node)


def _live(seen: Observation, job: ActiveJob, attempt: Attempt, node: Node) -> Iterator[Action]:
    is_away = node.is_away(seen.now_ms)
    if is_away and (failure := _given_up(seen, job, attempt, node)) is not None:
        yield Lose(attempt=attempt, failure=failure)
        return
    if attempt.is_confirmed:
        yield Follow(attempt=attempt)
    if is_away:
        return
    # A node not heard yet would not know our secret, and a part without an address could not meet the first one.
    can_start = node.node in seen.reported and (attempt.node_rank == 0 or attempt.rendezvous)
    if job.state is JobState.CANCELLING or attempt.is_broken:
        yield Stop(attempt=attempt, node=node)
    elif job.state in LEAVING or attempt.is_leaving:
        yield Stop(attempt=attempt, node=node, is_saving=True)
    elif not attempt.is_confirmed and can_start:
        yield Start(attempt=attempt, node=node)


def _given_up(seen: Observation, job: ActiveJob, attempt: Attempt, node: Node) -> Failure | None:
    """Returns why an attempt on a node that does not answer is given up, or None while it may come back."""
    if not attempt.is_confirmed:
        return Failure(
            reason="NODE_LOST",
            message=f"nodes/{node.node} stopped answering before it said that it holds attempt {attempt.name.attempt}.",
            cure="Look at the node.",
        )
    since_ms = node.unreachable_ms if node.unreachable_ms is not None else node.lease_until_ms
    away_ms = seen.now_ms - since_ms
    if away_ms < job.lost_after_ms:
        return None
    return Failure(
        reason="NODE_LOST",
        message=f"nodes/{node.node} has not answered for {away_ms // 1000} s; the job allows "
        f"{job.lost_after_ms // 1000} s.",
        cure="Look at the node, or set resources.lost_after.",
        metadata=(("lost_after_s", str(job.lost_after_ms // 1000)), ("node", f"nodes/{node.node}")),
    )


def _ended(seen: Observation, attempt: Attempt, node: Node) -> Iterator[Action]:
    if not node.is_away(seen.now_ms) and node.node in seen.reported:
        yield Close(attempt=attempt, node=node)


def _strays(seen: Observation) -> Iterator[Action]:
    """Whatever let them run on - a call that came late, a crash at the wrong moment - they do not run for ever."""
    nodes = {node.node: node for node in seen.nodes}
    for name, attempt in seen.strays:
        if name in nodes and not nodes[name].is_away(seen.now_ms):
            yield Fence(attempt=attempt, node=nodes[name])


def _placements(seen: Observation) -> Iterator[Action]:
    queue = queue_of(seen)
    jobs = {job.number: job for job in seen.jobs}
    for each in plan(queue):
        match each:
            case Begin():
                yield PlaceAttempt(job=each.job, nodes=tuple(node for node, _ in each.parts), why=each.why)
            case GiveWay():
                job, other = jobs[each.job], jobs[each.to_job]
                # Who other projects are is their own matter.
                whom = str(other.name) if other.name.project == job.name.project else "a job of another project"
                why = f"It gives way to {whom}: {each.why} {_price(each.loss_ms)}"
                yield Preempt(job=job.number, token=job.token, why=why, loss_ms=each.loss_ms, to_job=other.number)


def _price(loss_ms: float) -> str:
    return (
        f"That costs about {loss_ms / 1000:.0f} device-seconds: work since its last durable checkpoint, and a restore."
    )


def _drains(seen: Observation) -> Iterator[Action]:
    """Jobs on a drained node run on until its deadline, then they go on elsewhere."""
    due = {
        node.node: node
        for node in seen.nodes
        if node.drain is not None
        and node.drain.deadline_ms is not None
        and node.drain.deadline_ms <= seen.now_ms
        and not node.is_away(seen.now_ms)
    }
    if not due:
        return
    parts = parts_by_job(seen)
    for job in seen.jobs:
        node = next((due[part.node] for part in parts.get(job.number, ()) if part.node in due), None)
        if node is not None and node.drain is not None and job.state is JobState.RUNNING:
            lost_ms = loss_ms(seen, job, parts[job.number])
            said = f": {node.drain.reason}" if node.drain.reason else "."
            why = f"It leaves nodes/{node.node}, which {node.drain.actor} drains{said}"
            yield Preempt(job=job.number, token=job.token, why=why, loss_ms=lost_ms)


def _late(seen: Observation) -> Iterator[Action]:
    for job in seen.jobs:
        if job.deadline_ms is None or job.is_late or job.state in TERMINAL or job.state is JobState.PUBLISHING:
            continue
        rest = rest_ms(job)
        if seen.now_ms >= job.deadline_ms:
            yield SayLate(job=job.number, why="Its deadline has passed; it goes on all the same.")
        elif rest and max(seen.now_ms, job.start_after_ms) + rest > job.deadline_ms:
            short_s = (max(seen.now_ms, job.start_after_ms) + rest - job.deadline_ms) // 1000
            why = f"It will miss its deadline by about {short_s} s or more: the rest of its run is predicted to take"
            yield SayLate(job=job.number, why=f"{why} {rest // 1000} s. It goes on all the same.")


def next_moment_ms(seen: Observation) -> int | None:
    """Returns when something becomes due by the clock alone: a lease, a retry, a lost node; None: nothing will."""
    moments = [node.lease_until_ms + 1 for node in seen.nodes if node.state != UNREACHABLE]
    now_ms = seen.now_ms
    moments += [
        max(job.not_before_ms, job.start_after_ms)
        for job in seen.jobs
        if job.not_before_ms > now_ms or job.start_after_ms > now_ms
    ]
    return min(moments, default=None)
