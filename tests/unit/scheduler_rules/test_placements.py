"""Where and when jobs run, from random observations: capacities, quotas, classes, windows, no starvation."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler.actions import PlaceAttempt, Preempt
from services.scheduler.decisions import decide
from services.scheduler.jobs import HELD, AttemptState, JobState
from services.scheduler.observation import Observation
from services.scheduler.placement import host_bytes_on, shortage
from services.scheduler.planning.observed import loss_ms, queue_of
from services.scheduler.planning.order import in_order, standings, waiting_key
from services.scheduler.planning.queue import Project, Rules
from services.scheduler.records import ActiveJob, Attempt, Capacity, Drain, Needs, Node
from tests.unit.scheduler_rules.test_decisions import NOW, attempt, job, node
from tuneforge.names import JobName

GB = 10**9
NODES = ("n1", "n2", "n3")
PROJECTS = ("x", "y")


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    """Makes moments that are possible: what runs fits on its nodes."""
    nodes = tuple(_node(draw, name) for name in NODES)
    free = {each.node: [each.capacity.slots, each.capacity.cpu_millis, each.capacity.memory_bytes] for each in nodes}
    jobs: list[ActiveJob] = []
    attempts: list[Attempt] = []
    for number in range(1, draw(st.integers(1, 7))):
        each = _job(draw, number)
        is_running = draw(st.booleans())
        places = [place for place in nodes if _fits(each.needs, place, free[place.node])][: each.needs.nodes]
        if is_running and len(places) == each.needs.nodes:
            state = draw(st.sampled_from([JobState.RUNNING, JobState.STARTING, JobState.PREEMPTING]))
            jobs.append(replace(each, state=state))
            for rank, place in enumerate(places):
                _take(each.needs, place, free[place.node])
                attempts.append(_part(draw, each, rank, place))
        else:
            jobs.append(each)
    limits = {
        "x": Project(max_devices=draw(st.none() | st.integers(0, 4)), max_jobs=draw(st.none() | st.integers(0, 3)))
    }
    return Observation(
        now_ms=NOW,
        jobs=tuple(jobs),
        attempts=tuple(attempts),
        nodes=nodes,
        reported={name: {} for name in NODES},
        projects=limits,
    )


def _node(draw: st.DrawFn, name: str) -> Node:
    devices = draw(st.integers(0, 2))
    slots = devices or draw(st.integers(1, 3))
    capacity = Capacity(
        device_bytes=(40 * GB,) * devices,
        device_models=(draw(st.sampled_from(["NVIDIA A100", "NVIDIA H200"])),) * devices,
        cpu_millis=draw(st.integers(1, 4)) * 1000,
        memory_bytes=draw(st.integers(1, 4)) * 8 * GB,
        slots=slots,
    )
    drain = Drain(since_ms=0, deadline_ms=None, reason="", actor="a") if draw(st.integers(0, 5)) == 0 else None
    return node(name, capacity=capacity, drain=drain, labels=draw(st.sampled_from([{}, {"zone": "a"}, {"zone": "b"}])))


def _job(draw: st.DrawFn, number: int) -> ActiveJob:
    needs = Needs(
        nodes=draw(st.integers(1, 2)),
        devices=draw(st.sampled_from([None, 0, 1])),
        peak_bytes=draw(st.integers(0, 20)) * GB,
        host_bytes=draw(st.integers(0, 10)) * GB,
        cpu_millis=draw(st.sampled_from([0, 500, 1500])),
        exclude_labels=draw(st.sampled_from([{}, {"zone": "a"}, {"zone": ""}])),
        device_kinds=draw(st.sampled_from([(), (), ("h200",)])),
    )
    return job(
        number,
        name=JobName(draw(st.sampled_from(PROJECTS)), f"j{number}"),
        needs=needs,
        priority=draw(st.integers(-1, 1)),
        is_preemptible=draw(st.booleans()),
        start_after_ms=draw(st.sampled_from([0, 0, NOW + 1])),
        not_before_ms=draw(st.sampled_from([0, 0, NOW + 1])),
        queued_ms=NOW - draw(st.integers(0, 2)) * Rules().reserve_after_ms,
        token=number,
    )


def _part(draw: st.DrawFn, each: ActiveJob, rank: int, place: Node) -> Attempt:
    return attempt(
        each.number,
        draw(st.sampled_from([AttemptState.STARTING, AttemptState.RUNNING])),
        node=place.node,
        node_rank=rank,
        nodes=each.needs.nodes,
        create_ms=NOW - 900_000,
        first_step_ms=draw(st.sampled_from([None, NOW - 800_000])),
        step=draw(st.integers(0, 9)),
    )


def _amounts(needs: Needs, place: Node) -> tuple[int, int, int]:
    capacity = place.capacity
    share = needs.slots * (capacity.cpu_millis // capacity.slots)
    return needs.slots, needs.cpu_millis or share, host_bytes_on(needs, capacity)


def _fits(needs: Needs, place: Node, free: list[int]) -> bool:
    asked = _amounts(needs, place)
    return shortage(needs, place) is None and all(amount <= left for amount, left in zip(asked, free, strict=True))


def _take(needs: Needs, place: Node, free: list[int]) -> None:
    for index, amount in enumerate(_amounts(needs, place)):
        free[index] -= amount


@given(observations())
@settings(max_examples=150, deadline=None)
def test_no_decision_breaks_a_promise(seen: Observation) -> None:
    """What starts fits beside what runs, on nodes that may run it; quotas hold; only what may be stopped is stopped."""
    jobs, nodes = {each.number: each for each in seen.jobs}, {each.node: each for each in seen.nodes}
    free = {
        each.node: [each.capacity.slots, each.capacity.cpu_millis, each.capacity.memory_bytes] for each in seen.nodes
    }
    held: Counter[str] = Counter()
    running: Counter[str] = Counter()
    for part in seen.attempts:
        _take(jobs[part.job].needs, nodes[part.node], free[part.node])
        held[jobs[part.job].name.project] += jobs[part.job].needs.slots
    for each in seen.jobs:
        running[each.name.project] += each.state in HELD
    actions = decide(seen)
    assert actions == decide(seen)
    limits = seen.projects["x"]
    for action in actions:
        if isinstance(action, PlaceAttempt):
            placed = jobs[action.job]
            assert placed.state is JobState.QUEUED
            assert max(placed.start_after_ms, placed.not_before_ms) <= NOW
            assert len(set(action.nodes)) == placed.needs.nodes
            for name in action.nodes:
                assert nodes[name].drain is None
                assert _fits(placed.needs, nodes[name], free[name])
                _take(placed.needs, nodes[name], free[name])
            held[placed.name.project] += placed.needs.nodes * placed.needs.slots
            running[placed.name.project] += 1
            if placed.name.project == "x":
                assert limits.max_devices is None or held["x"] <= limits.max_devices
                assert limits.max_jobs is None or running["x"] <= limits.max_jobs
        if isinstance(action, Preempt):
            assert action.to_job is not None
            assert jobs[action.job].state is JobState.RUNNING
            assert jobs[action.job].is_preemptible
            assert jobs[action.to_job].priority >= jobs[action.job].priority
            assert action.loss_ms >= 0


@given(observations())
@settings(max_examples=100, deadline=None)
def test_a_lower_class_takes_nothing_that_a_higher_one_could_use(seen: Observation) -> None:
    """Of two waiting jobs with the same demand the one of the higher class is placed, or both are, or none."""
    twin = next((each for each in seen.jobs if each.state is JobState.QUEUED), None)
    if twin is None:
        return
    open_: dict[str, Any] = {"start_after_ms": 0, "not_before_ms": 0, "name": JobName("y", "twin")}
    high = replace(twin, number=98, priority=2, **open_)
    low = replace(twin, number=99, priority=-2, **open_)
    placed = {
        action.job for action in decide(replace(seen, jobs=(low, *seen.jobs, high))) if isinstance(action, PlaceAttempt)
    }
    assert 99 not in placed or 98 in placed


@given(observations())
@settings(max_examples=30, deadline=None)
def test_nobody_starves(seen: Observation) -> None:
    """A gang of two that has waited long runs soon, although two small jobs come for each one that ends."""
    kinds = Counter(each.capacity.device_models[:1] for each in seen.nodes if each.drain is None)
    if max(kinds.values(), default=0) < 2:  # the parts of a gang run on nodes that are alike
        return
    old = job(97, name=JobName("y", "old"), needs=Needs(nodes=2), create_ms=0, queued_ms=NOW - Rules().promote_after_ms)
    held = [replace(each, state=JobState.RUNNING, priority=0) for each in seen.jobs if each.state in HELD]
    jobs, parts = [old, *held], list(seen.attempts)
    for turn in range(12):
        jobs += [job(200 + 2 * turn + index, name=JobName("y", f"n{turn}"), create_ms=NOW) for index in range(2)]
        for action in decide(replace(seen, jobs=tuple(jobs), attempts=tuple(parts), projects={})):
            if isinstance(action, PlaceAttempt) and action.job == 97:
                return
            if isinstance(action, PlaceAttempt):
                jobs = [replace(each, state=JobState.RUNNING) if each.number == action.job else each for each in jobs]
                parts += [attempt(action.job, node=name, token=action.job) for name in action.nodes]
        running = [each.number for each in jobs if each.state is JobState.RUNNING]
        jobs = [each for each in jobs if each.number not in running[:1]]
        parts = [part for part in parts if part.job not in running[:1]]
    raise AssertionError("twelve jobs have ended, and it still waits")


def test_the_price_of_a_stop_is_work_since_the_last_durable_checkpoint() -> None:
    """The part of the steps that no durable checkpoint has, of the time since the first step; and the restore."""
    running = job(1, JobState.RUNNING, durable_step=60)
    part = attempt(1, create_ms=NOW - 130_000, first_step_ms=NOW - 100_000, resumed_step=0, step=80)
    seen = Observation(now_ms=NOW, jobs=(running,), attempts=(part,), nodes=(node(),), reported={"n1": {}})

    def price(each: ActiveJob, *parts: Attempt) -> float:
        return loss_ms(seen, each, list(parts))

    assert price(running, part) == 100_000 * 20 / 80 + 30_000
    assert price(replace(running, durable_step=0), part) == 130_000
    assert price(running, replace(part, resumed_step=60, step=60)) == 30_000
    assert price(running, replace(part, first_step_ms=None)) == Rules().restore_ms
    gang = replace(running, needs=Needs(nodes=2))
    assert price(gang, part, replace(part, node_rank=1)) == 2 * (100_000 * 20 / 80 + 30_000)
    assert queue_of(seen).running[0].loss_ms == price(running, part)


def test_jobs_on_a_node_that_does_not_answer_are_not_asked_to_leave() -> None:
    """Asking would be in vain; they are given up after their own time."""
    away = node(state="UNREACHABLE", lease_until_ms=NOW - 1, unreachable_ms=NOW - 1)
    fields: dict[str, Any] = {"attempts": (attempt(1),), "reported": {"n1": {}}}
    jobs = (job(1, JobState.RUNNING, priority=-1), job(2, priority=1))
    actions = decide(Observation(now_ms=NOW, jobs=jobs, nodes=(away,), **fields))
    assert not any(isinstance(each, Preempt) for each in actions)
    actions = decide(Observation(now_ms=NOW, jobs=jobs, nodes=(node(),), **fields))
    assert [each.job for each in actions if isinstance(each, Preempt)] == [1]


def test_who_copies_nothing_gives_way_all_the_same() -> None:
    """Within a class the quantum counts what a stop costs when the job saves first, not what it has not copied yet."""
    hour_ms = 3_600_000
    now_ms = NOW + 20 * hour_ms
    old = job(1, JobState.RUNNING)
    part = attempt(1, create_ms=NOW, first_step_ms=NOW + 5_000, step=500)
    fields: dict[str, Any] = {"attempts": (part,), "nodes": (node(lease_until_ms=now_ms),), "reported": {"n1": {}}}
    young = job(2, queued_ms=now_ms)
    actions = decide(Observation(now_ms=now_ms, jobs=(old, young), **fields))
    assert [each.job for each in actions if isinstance(each, Preempt)] == [1]
    slow = replace(part, first_step_ms=NOW + 3 * hour_ms)
    actions = decide(Observation(now_ms=now_ms, jobs=(old, young), **fields | {"attempts": (slow,)}))
    assert not any(isinstance(each, Preempt) for each in actions)


@given(seen=observations(), waited_ms=st.integers(0, 10 * Rules().promote_after_ms))
def test_the_order_that_is_made_as_it_is_asked_for_is_that_of_the_keys(seen: Observation, waited_ms: int) -> None:
    """Whatever classes, projects, work so far and deadlines there are, and however long they wait."""
    queue = queue_of(replace(seen, now_ms=seen.now_ms + waited_ms))
    standing = standings(queue)
    keys = sorted((waiting_key(job, queue, standing[job.project]), job.job) for job in queue.waiting)
    assert [(key, job.job) for key, job in in_order(queue, standing)] == keys
