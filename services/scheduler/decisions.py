"""What is to be done next: a pure function from what was observed to actions, each with its reason.

`reconcile.py` observes and acts. Nothing is remembered between two decisions: every action is derived again from the
database and from what the nodes say, so a crash between deciding and acting, or in the middle of acting, loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from services.scheduler import placement
from services.scheduler.jobs import LEAVING, LIVE_ATTEMPT, TERMINAL, AttemptState, Failure, JobState, dependency_failure
from services.scheduler.planning.queue import Project
from services.scheduler.queues.accounts import SpentJob
from services.scheduler.records import ActiveJob, Attempt, Node
from services.scheduler.store.checkpoints import BlobHold
from services.scheduler.store.nodes import UNREACHABLE
from services.scheduler.store.outbox import Publication

GANG_PATIENCE_MS = 600_000
"""Age of a job on several nodes from which on it keeps nodes that become free; before, younger jobs may take them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All that a decision looks at, from one moment."""

    now_ms: int
    """By the database's clock."""
    jobs: tuple[ActiveJob, ...]
    """Jobs that have not ended, oldest first."""
    attempts: tuple[Attempt, ...]
    """Attempts that may still run or whose node does not yet know that their end is kept."""
    nodes: tuple[Node, ...]
    publications: tuple[Publication, ...] = ()
    """Results to be registered."""
    blob_holds: tuple[BlobHold, ...] = ()
    """What the registry is to be told of checkpoints, one thing of each."""
    dependencies: Mapping[int, tuple[str, JobState]] = field(default_factory=dict)
    """Name and state of the jobs that BLOCKED ones wait for, by number."""
    reported: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    """By node: the attempts that it named last, and whether each still runs. A node not heard since the start lacks."""
    strays: tuple[tuple[str, Attempt], ...] = ()
    """Attempts that a node (its id) names although their end is closed, or that belong to another node."""
    projects: Mapping[str, Project] = field(default_factory=dict)
    """Weight, decayed usage with what runs, quotas and holds, by id; one that is missing has the defaults."""
    spent: tuple[SpentJob, ...] = ()
    """Jobs whose budget, or whose project's, is spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkUnreachable:
    """A node's lease has run out."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailDependent:
    """The job that a job waits for did not succeed."""

    job: int
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The output that a job waits for is there."""

    job: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceAttempt:
    """A queued job gets an attempt: on one node, or on several that train together."""

    job: int
    nodes: tuple[str, ...]
    """By rank."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseSpent:
    """A job is to be paused because a budget is spent."""

    job: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A placed attempt is to be started at its node, or found there."""

    attempt: Attempt
    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """The events of an attempt are to be read."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """An attempt is to be stopped: its job was cancelled or is to leave, or another part of it has ended."""

    attempt: Attempt
    node: Node
    is_saving: bool = False
    """Whether it is to save its state first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lose:
    """An attempt is given up because of its node."""

    attempt: Attempt
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """A node is to be told that an attempt's end is kept, and to end it if it was given up and still runs."""

    attempt: Attempt
    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """A node holds an attempt that does not count any more: it is to be stopped there, and forgotten."""

    attempt: Attempt
    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """A result is to be registered."""

    publication: Publication


@dataclass(frozen=True, slots=True, kw_only=True)
class TellBlobHold:
    """The registry is to be told which blobs of a checkpoint stay."""

    hold: BlobHold


Action = (
    MarkUnreachable
    | FailDependent
    | Release
    | PlaceAttempt
    | PauseSpent
    | Start
    | Follow
    | Stop
    | Lose
    | Close
    | Fence
    | Publish
    | TellBlobHold
)


def decide(seen: Observation) -> list[Action]:
    """Returns everything that is due, in the order in which it should be done."""
    return [
        *_leases(seen),
        *_dependents(seen),
        *(PauseSpent(job=each.job, why=each.why) for each in seen.spent),
        *_attempts(seen),
        *_strays(seen),
        *_placements(seen),
        *map(_publish, seen.publications),
        *map(_tell_blob_hold, seen.blob_holds),
    ]


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
        if job.state is not JobState.BLOCKED or job.depends_on is None:
            continue
        name, state = seen.dependencies[job.depends_on]
        if state is JobState.SUCCEEDED:
            yield Release(job=job.number)
        elif state in TERMINAL:
            yield FailDependent(job=job.number, failure=dependency_failure(name, state))


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
    used = _slots_used(seen)
    answering = [node for node in seen.nodes if node.lease_until_ms >= seen.now_ms and node.node in seen.reported]
    capacities = {node.node: node.capacity for node in answering}
    kept: frozenset[str] = frozenset()
    held = {name for name, project in seen.projects.items() if project.held}
    for job in seen.jobs:
        if job.state is not JobState.QUEUED or job.not_before_ms > seen.now_ms or job.name.project in held:
            continue
        open_nodes = [node for node in answering if node.node not in kept]
        place = placement.choose(job.needs, open_nodes, used, job.checkpoint_node)
        if place is None and not kept and job.needs.nodes > 1 and seen.now_ms - job.create_ms >= GANG_PATIENCE_MS:
            # Else small jobs would overtake it for ever: several nodes are seldom free at the same moment.
            kept = placement.kept_for(job.needs, answering, used)
        if place is not None:
            for node in place.nodes:
                used[node] = used.get(node, 0) + placement.slots_on(job.needs, capacities[node])
            yield PlaceAttempt(job=job.number, nodes=place.nodes, why=place.why)


def _slots_used(seen: Observation) -> dict[str, int]:
    """Returns the slots taken on each node: by attempts placed here, and by given-up ones that it says still run.

    An attempt that ended by its node's own word has freed its slot, even if the last heartbeat is older than that word.
    """
    jobs = {job.number: job for job in seen.jobs}
    capacities = {node.node: node.capacity for node in seen.nodes}
    used: dict[str, int] = {}
    for attempt in seen.attempts:
        job = jobs.get(attempt.job)
        if attempt.state in LIVE_ATTEMPT and job is not None:
            taken = placement.slots_on(job.needs, capacities[attempt.node])
        else:
            is_stray = attempt.state is AttemptState.LOST
            taken = int(is_stray and seen.reported.get(attempt.node, {}).get(str(attempt.name), False))
        used[attempt.node] = used.get(attempt.node, 0) + taken
    return used


def next_moment_ms(seen: Observation) -> int | None:
    """Returns when something becomes due by the clock alone: a lease, a retry, a lost node; None: nothing will."""
    moments = [node.lease_until_ms + 1 for node in seen.nodes if node.state != UNREACHABLE]
    moments += [job.not_before_ms for job in seen.jobs if job.not_before_ms > seen.now_ms]
    return min(moments, default=None)
