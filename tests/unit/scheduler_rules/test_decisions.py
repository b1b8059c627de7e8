"""What is due, from what was observed: no sockets, no database, no clock but the observation's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.scheduler.actions import (
    Action,
    Close,
    FailDependent,
    Fence,
    Follow,
    Lose,
    MarkUnreachable,
    PlaceAttempt,
    Publish,
    Release,
    Start,
    Stop,
)
from services.scheduler.decisions import decide, next_moment_ms
from services.scheduler.jobs import AttemptState, JobState
from services.scheduler.observation import Observation
from services.scheduler.planning.queue import Rules
from services.scheduler.records import ActiveJob, Attempt, Capacity, Needs, Node
from services.scheduler.store.outbox import Publication
from tuneforge.names import JobName

NOW = 1_000_000
HEARD: dict[str, dict[str, bool]] = {"n1": {}, "n2": {}}
"""Both nodes have reported, and hold nothing."""


def node(name: str = "n1", **changes: Any) -> Node:
    """Returns a ready node with one slot."""
    ready = Node(
        node=name,
        address="127.0.0.1:1",
        capacity=Capacity(device_bytes=(), cpu_millis=2000, memory_bytes=10**9, slots=1),
        capacity_message=b"",
        labels={},
        generation="g",
        version="",
        state="READY",
        lease_until_ms=NOW + 10_000,
        unreachable_ms=None,
        manager_token="m",
    )
    return replace(ready, **changes)


def job(number: int = 1, state: JobState = JobState.QUEUED, **changes: Any) -> ActiveJob:
    """Returns a job."""
    plain = ActiveJob(
        number=number,
        name=JobName("p", f"j{number}"),
        state=state,
        token=number,
        depends_on=None,
        not_before_ms=0,
        lost_after_ms=600_000,
        needs=Needs(),
        checkpoint_node=None,
        create_ms=NOW,
        queued_ms=NOW,
    )
    return replace(plain, **changes)


def attempt(number: int = 1, state: AttemptState = AttemptState.RUNNING, **changes: Any) -> Attempt:
    """Returns the first attempt of a job on n1."""
    plain = Attempt(
        job=number,
        name=JobName("p", f"j{number}").attempt(1),
        node="n1",
        token=number,
        state=state,
        is_confirmed=True,
        is_closed=False,
        failure=None,
        outcome=None,
        resumed_step=0,
        step=0,
        last_seq=0,
        create_ms=0,
        end_ms=None,
    )
    return replace(plain, **changes)


def due(**seen: Any) -> list[Action]:
    """Returns what is due."""
    return decide(
        Observation(**{"now_ms": NOW, "jobs": (), "attempts": (), "nodes": (node(),), "reported": HEARD, **seen})
    )


def test_oldest_job_gets_the_free_slot() -> None:
    """Of two queued jobs the older one is placed, with the reason; the other waits."""
    (action,) = due(jobs=(job(1), job(2)))
    assert isinstance(action, PlaceAttempt)
    assert (action.job, action.nodes, action.why) == (
        1,
        ("n1",),
        "Next in order (class NORMAL, level 0) after 0 s: nodes/n1 has 1 of 1 slots free.",
    )


def test_retry_wait_is_kept() -> None:
    """A job is not placed before its time, and the loop knows when that is."""
    waiting = job(not_before_ms=NOW + 500)
    assert due(jobs=(waiting,)) == []
    seen = Observation(now_ms=NOW, jobs=(waiting,), attempts=(), nodes=(node(),))
    assert next_moment_ms(seen) == NOW + 500


def test_overdue_node_gets_no_work() -> None:
    """A node whose lease is overdue, or that is shutting down, is not chosen, marked or not."""
    assert due(jobs=(job(),), nodes=(node(lease_until_ms=NOW - 1),)) == [MarkUnreachable(node="n1")]
    assert due(jobs=(job(),), nodes=(node(state="DRAINING"),)) == []


def test_stray_attempts_take_slots() -> None:
    """A given-up attempt that its node still names as running holds its slot; one that has ended there does not."""
    stray = attempt(9, AttemptState.LOST)
    for is_live in (True, False):
        actions = due(jobs=(job(),), attempts=(stray,), reported={"n1": {str(stray.name): is_live}})
        assert [type(action) for action in actions] == [Close] + [PlaceAttempt] * (not is_live)


def test_end_frees_the_slot_before_the_next_heartbeat() -> None:
    """An attempt that ended by its node's word has freed its slot, although an older heartbeat names it as running."""
    ended = attempt(9, AttemptState.SUCCEEDED)
    actions = due(jobs=(job(),), attempts=(ended,), reported={"n1": {str(ended.name): True}})
    assert PlaceAttempt in {type(action) for action in actions}


def placed(**seen: Any) -> list[tuple[int, tuple[str, ...]]]:
    """Returns which jobs are placed, and where."""
    return [(each.job, each.nodes) for each in due(**seen) if isinstance(each, PlaceAttempt)]


def test_checkpoint_attracts() -> None:
    """The node with the newest checkpoint wins over a fuller one, which is left to whom it fits."""
    wide = node("n2", capacity=replace(node().capacity, slots=8, cpu_millis=16_000))
    chosen = [placed(jobs=(job(checkpoint_node=where),), nodes=(node(), wide)) for where in (None, "n2")]
    assert chosen == [[(1, ("n1",))], [(1, ("n2",))]]


def test_a_gang_gets_different_nodes_or_nothing() -> None:
    """Slots of one node are not two nodes; a full or draining one leaves the others free; rank 0 has the checkpoint."""
    gang = job(needs=Needs(nodes=2), checkpoint_node="n2")
    both = (node(capacity=replace(node().capacity, slots=2)), node("n2"))
    assert placed(jobs=(gang,), nodes=both) == [(1, ("n2", "n1"))]
    assert placed(jobs=(gang,), nodes=both[:1]) == []
    assert placed(jobs=(gang,), nodes=(both[0], node("n2", state="DRAINING"))) == []


def test_small_jobs_do_not_overtake_a_gang_for_ever() -> None:
    """A gang that has waited long keeps the free nodes that it needs and no others; a young one does not."""
    nodes = tuple(node(name) for name in ("n1", "n2", "n3"))
    heard: dict[str, dict[str, bool]] = {"n1": {}, "n2": {}, "n3": {}}
    young, small = job(1, needs=Needs(nodes=2)), job(2)
    old = replace(young, queued_ms=NOW - Rules().reserve_after_ms)
    running = job(9, JobState.RUNNING, is_preemptible=False)

    def starts(*jobs: ActiveJob, nodes: tuple[Node, ...] = nodes[:2]) -> list[tuple[int, tuple[str, ...]]]:
        return placed(jobs=(*jobs, running), attempts=(attempt(9),), nodes=nodes, reported=heard)

    assert starts(young, small) == [(2, ("n2",))]
    assert starts(old, small) == []
    assert starts(small, replace(old, create_ms=NOW + 1)) == [(2, ("n2",))]  # an older job comes first all the same
    assert starts(replace(old, needs=Needs(nodes=3)), small) == [(2, ("n2",))]  # no two nodes are ever three
    assert starts(old, small, nodes=nodes) == [(1, ("n2", "n3"))]
    waiting = replace(old, not_before_ms=NOW + 1)
    assert starts(waiting, small) == [(2, ("n2",))]


def test_unconfirmed_attempt_is_started_then_followed() -> None:
    """A placed attempt is started until its node has confirmed it, then followed."""
    starting = job(state=JobState.STARTING)
    kinds = [
        type(due(jobs=(starting,), attempts=(attempt(state=AttemptState.STARTING, is_confirmed=known),))[0])
        for known in (False, True)
    ]
    assert kinds == [Start, Follow]


def test_node_that_was_not_heard_gets_no_attempt() -> None:
    """After a restart nothing is placed on a node, or started there, before it has registered or sent a heartbeat."""
    starting = attempt(state=AttemptState.STARTING, is_confirmed=False)
    for jobs, attempts in (((job(),), ()), ((job(state=JobState.STARTING),), (starting,))):
        assert due(jobs=jobs, attempts=attempts, reported={}) == []
        assert len(due(jobs=jobs, attempts=attempts)) == 1


def test_stray_is_fenced() -> None:
    """What a node names and should not hold is ended where it is, as long as the node answers."""
    stray = attempt(9, AttemptState.CANCELLED, is_closed=True)
    assert due(strays=(("n1", stray),)) == [Fence(attempt=stray, node=node())]
    away = node(state="UNREACHABLE", lease_until_ms=0, unreachable_ms=0)
    assert due(strays=(("n1", stray),), nodes=(away,)) == []


def test_cancelled_job_stops_its_attempt() -> None:
    """The attempt of a cancelled job is followed and asked to stop, confirmed or not."""
    cancelling = job(state=JobState.CANCELLING)
    confirmed = due(jobs=(cancelling,), attempts=(attempt(),))
    assert [type(action) for action in confirmed] == [Follow, Stop]
    assert [type(action) for action in due(jobs=(cancelling,), attempts=(attempt(is_confirmed=False),))] == [Stop]


def test_lost_after_is_the_jobs_own() -> None:
    """A confirmed attempt is given up when its node has been away for `lost_after`, an unconfirmed one at once."""
    running = job(state=JobState.RUNNING)
    away = node(state="UNREACHABLE", lease_until_ms=NOW - 599_999, unreachable_ms=NOW - 599_999)
    assert [type(each) for each in due(jobs=(running,), attempts=(attempt(),), nodes=(away,))] == [Follow]
    gone = replace(away, unreachable_ms=NOW - 600_000)
    (lost,) = due(jobs=(running,), attempts=(attempt(),), nodes=(gone,))
    assert isinstance(lost, Lose)
    assert "600 s" in lost.failure.message
    (early,) = due(jobs=(running,), attempts=(attempt(is_confirmed=False),), nodes=(away,))
    assert isinstance(early, Lose)


def test_grace_after_a_restart_is_respected() -> None:
    """A node that was unreachable for long is not given up while the lease that a restart granted is live."""
    running = job(state=JobState.RUNNING)
    granted = node(state="UNREACHABLE", unreachable_ms=0, lease_until_ms=NOW + 1)
    assert [type(each) for each in due(jobs=(running,), attempts=(attempt(),), nodes=(granted,))] == [Follow]


def test_ended_attempt_is_closed_once_its_node_is_heard() -> None:
    """The end is acknowledged at a node that was heard since the start, not at one that is away."""
    ended = attempt(state=AttemptState.SUCCEEDED)
    assert due(attempts=(ended,), reported={}) == []
    assert due(attempts=(ended,), reported={"n1": {}}) == [Close(attempt=ended, node=node())]
    away = node(state="UNREACHABLE", lease_until_ms=0, unreachable_ms=0)
    assert due(attempts=(ended,), reported={"n1": {}}, nodes=(away,)) == []


def test_blocked_job_follows_its_dependency() -> None:
    """A blocked job is released on success, failed on any other end, and left alone before."""
    blocked = job(2, JobState.BLOCKED, depends_on=1)
    actions = {
        state: due(jobs=(blocked,), dependencies={1: ("projects/p/jobs/j1", state)})
        for state in (JobState.RUNNING, JobState.SUCCEEDED, JobState.CANCELLED)
    }
    assert actions[JobState.RUNNING] == []
    assert actions[JobState.SUCCEEDED] == [Release(job=2)]
    (failed,) = actions[JobState.CANCELLED]
    assert isinstance(failed, FailDependent)
    assert failed.failure.reason == "DEPENDENCY_FAILED"


def test_publications_are_delivered() -> None:
    """Each row of the outbox is an action."""
    row = Publication(job=1, token=1, payload=b"")
    assert due(publications=(row,)) == [Publish(publication=row)]
