"""Reasons, places and forecasts of whole moments: random clusters, the planner's own order, and single cases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler.calibration import Interval
from services.scheduler.foresight.blockers import Blocker, Reason, of_waiting
from services.scheduler.foresight.explaining import View, preemptors, told_of
from services.scheduler.foresight.forecast import foresee, ordered
from services.scheduler.foresight.moment import moment_of
from services.scheduler.foresight.nodes_said import findings
from services.scheduler.foresight.places import place_of
from services.scheduler.foresight.run_times import Basis, Facts, RunTime, run_time, step_times
from services.scheduler.foresight.simulating import simulate
from services.scheduler.jobs import AttemptState, JobState
from services.scheduler.observation import Observation
from services.scheduler.planning.plan import Begin, plan
from services.scheduler.planning.queue import HOUR_MS, Project
from services.scheduler.queues.accounts import Account, Terms, holding
from services.scheduler.queues.budgets import Budget, Spent
from services.scheduler.queues.limits import Limits
from services.scheduler.queues.periods import Period
from services.scheduler.records import ActiveJob, Attempt, Capacity, Needs, Node
from services.scheduler.wire.explanations import blockers_to_proto, names_for, place_to_proto
from tuneforge.names import JobName

NOW_MS = 10**9
MINUTE_MS = 60_000
AN_HOUR = RunTime(left_ms=Interval(expected=3.6e6, lowest=1.8e6, highest=7.2e6), basis=Basis.ESTIMATE)


def node(name: str, slots: int = 1, **values: object) -> Node:
    """Returns a node that answers, without accelerators."""
    capacity = Capacity(device_bytes=(), cpu_millis=1000 * slots, memory_bytes=8 * 10**9, slots=slots)
    made: dict[str, object] = {
        "node": name, "address": "a:1", "capacity": capacity, "capacity_message": b"", "labels": {},
        "generation": "g", "version": "1", "state": "READY", "lease_until_ms": NOW_MS + MINUTE_MS,
        "unreachable_ms": None, "manager_token": "t",
    }  # fmt: skip
    return Node(**(made | values))  # type: ignore[arg-type]


def job(number: int, **values: object) -> ActiveJob:
    """Returns a job that has waited for an hour."""
    made: dict[str, object] = {
        "number": number, "name": JobName("p", f"j{number}"), "state": JobState.QUEUED, "token": number,
        "depends_on": None, "not_before_ms": 0, "lost_after_ms": 1, "needs": Needs(), "checkpoint_node": None,
        "create_ms": NOW_MS - HOUR_MS + number, "queued_ms": NOW_MS - MINUTE_MS,
    }  # fmt: skip
    return ActiveJob(**(made | values))  # type: ignore[arg-type]


def running(number: int, on: str, **values: object) -> tuple[ActiveJob, Attempt]:
    """Returns a job that has run on a node for an hour, and its attempt."""
    found = job(number, state=JobState.RUNNING, **values)
    attempt = Attempt(
        job=number, name=found.name.attempt(1), node=on, token=number, state=AttemptState.RUNNING, is_confirmed=True,
        is_closed=False, failure=None, outcome=None, resumed_step=0, step=50, last_seq=1,
        create_ms=NOW_MS - HOUR_MS, end_ms=None,
    )  # fmt: skip
    return found, attempt


def viewed(jobs: list[ActiveJob], nodes: list[Node], attempts: list[Attempt] | None = None, **values: object) -> View:
    """Returns the view of a moment."""
    made: dict[str, Any] = {
        "now_ms": NOW_MS,
        "jobs": tuple(jobs),
        "attempts": tuple(attempts or ()),
        "nodes": tuple(nodes),
        "reported": {each.node: {} for each in nodes},
    }
    seen = Observation(**(made | values))
    moment = moment_of(seen, dict.fromkeys((each.number for each in jobs), AN_HOUR))
    return View(
        moment=moment,
        decisions=plan(moment.queue),
        order=ordered(moment.queue),
        outlooks=foresee(moment.situation, moment.times, pace=moment.pace),
        qualities={},
    )


def reasons(view: View, number: int) -> list[Reason]:
    """Returns why a job that waits for a node has none."""
    return [each.reason for each in blocked(view, number)]


def blocked(view: View, number: int) -> tuple[Blocker, ...]:
    """Returns what keeps a job that waits for a node from it."""
    queue = view.moment.queue
    waiting = next(each for each in queue.waiting if each.job == number)
    said = findings(view.moment.jobs[number].needs, waiting, queue, view.moment.seen.nodes)
    return of_waiting(waiting, view.moment, view.decisions, said)


WAITING = st.tuples(
    st.sampled_from("pqr"), st.integers(-1, 1), st.sampled_from((1, 1, 1, 2)), st.sampled_from((None, None, 1)),
    st.sampled_from((0, 10**9, 10**11)), st.booleans(),
)  # fmt: skip
NODES = st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.booleans()), max_size=3)
PROJECTS = st.fixed_dictionaries(
    {
        name: st.builds(
            Project,
            usage_ms=st.sampled_from((0.0, 1e6, 1e9)),
            max_devices=st.sampled_from((None, None, 1)),
            max_jobs=st.sampled_from((None, None, 1)),
            held=st.sampled_from(("", "", "Its queue is paused.")),
        )
        for name in "pqr"
    }
)


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(WAITING, min_size=1, max_size=8), nodes=NODES, projects=PROJECTS, runs=st.integers(0, 2))
def test_each_waiting_job_starts_now_or_has_a_blocker(
    rows: list[tuple[str, int, int, int | None, int, bool]],
    nodes: list[tuple[int, bool, bool]],
    projects: dict[str, Project],
    runs: int,
) -> None:
    """Whatever the cluster is: who is not started now is told why, with a sentence and a cure; places are the order."""
    known = [
        node(
            f"n{index}",
            slots,
            labels={"fast": "yes"} if is_fast else {},
            lease_until_ms=NOW_MS + MINUTE_MS if answers else NOW_MS - MINUTE_MS,
            state="READY" if answers else "UNREACHABLE",
        )
        for index, (slots, is_fast, answers) in enumerate(nodes)
    ]
    busy = [running(100 + index, f"n{index}") for index in range(min(runs, len(known)))]
    jobs = [
        job(
            number,
            name=JobName(project, f"j{number}"),
            priority=priority,
            needs=Needs(nodes=parts, devices=devices, peak_bytes=memory, labels={"fast": "yes"} if wants else {}),
        )
        for number, (project, priority, parts, devices, memory, wants) in enumerate(rows, start=1)
    ]
    view = viewed([*(each for each, _ in busy), *jobs], known, [each for _, each in busy], projects=projects)
    queue = view.moment.queue
    started = {each.job for each in view.decisions if isinstance(each, Begin)}
    for place, waiting in enumerate(view.order, start=1):
        said = findings(view.moment.jobs[waiting.job].needs, waiting, queue, known)
        found = of_waiting(waiting, view.moment, view.decisions, said)
        assert bool(found) != (waiting.job in started)
        assert all(each.message and each.cure for each in found)
        assert place_of(waiting, view.order, queue).position == place
        assert all(each.why_not for each in said if not each.could_hold)


@settings(max_examples=40, deadline=None)
@given(
    keys=st.lists(
        st.tuples(st.integers(-1, 1), st.sampled_from("pq"), st.sampled_from((0, HOUR_MS, 20 * HOUR_MS))),
        min_size=1,
        max_size=12,
    )
)
def test_positions_are_the_planners_order(keys: list[tuple[int, str, int]]) -> None:
    """With room for all, the planner starts them one after another exactly in the order that is told."""
    jobs = [
        job(number, priority=priority, name=JobName(project, f"j{number}"), create_ms=NOW_MS - age)
        for number, (priority, project, age) in enumerate(keys, start=1)
    ]
    view = viewed(jobs, [node("n", len(jobs))], projects={"p": Project(usage_ms=5e6), "q": Project(usage_ms=1e6)})
    assert [each.job for each in view.decisions if isinstance(each, Begin)] == [each.job for each in view.order]
    assert [view.outlooks.of(each.job).start is not None for each in view.order] == [True] * len(jobs)


def test_each_reason_that_a_node_gives() -> None:
    """Labels, devices, memory and cores that no node has are told apart, with the node that comes nearest."""
    cases = {
        Reason.LABELS: Needs(labels={"zone": "a"}),
        Reason.DEVICES: Needs(devices=2),
        Reason.MEMORY: Needs(peak_bytes=10**11),
        Reason.CPU: Needs(cpu_millis=64_000),
        Reason.FEW_NODES: Needs(nodes=3),
    }
    for number, (reason, needs) in enumerate(cases.items(), start=1):
        assert reasons(viewed([job(number, needs=needs)], [node("a"), node("b")]), number) == [reason]
    assert reasons(viewed([job(1)], []), 1) == [Reason.NO_NODE]
    away = node("a", lease_until_ms=NOW_MS - 1, state="UNREACHABLE")
    assert reasons(viewed([job(1)], [away]), 1) == [Reason.NODES_AWAY]


def test_a_gang_waits_for_nodes_that_are_alike() -> None:
    """With room on one node of each kind the blocker says that they differ; with a third node it starts."""
    gang = job(1, needs=Needs(nodes=2))
    old, new, other = (
        node(name, capacity=replace(node(name).capacity, software=software))
        for name, software in (("a", "torch 2.11"), ("b", "torch 2.13"), ("c", "torch 2.13"))
    )
    view = viewed([gang], [old, new])
    assert reasons(view, 1) == [Reason.UNLIKE_NODES]
    holder, attempt = running(9, "c")
    assert reasons(viewed([holder, gang], [old, new, other], [attempt]), 1) == [Reason.UNLIKE_NODES]
    assert reasons(viewed([gang], [old, new, other]), 1) == []


def test_a_gang_that_no_nodes_alike_could_hold_is_told_so_while_they_are_busy() -> None:
    """Waiting for the jobs there would not help it; where two of a kind are busy, it does."""
    gang = job(1, needs=Needs(nodes=2))
    old, new = (
        node(name, capacity=replace(node(name).capacity, software=software))
        for name, software in (("a", "torch 2.11"), ("b", "torch 2.13"))
    )
    holder, attempt = running(9, "b")
    assert reasons(viewed([holder, gang], [old, new], [attempt]), 1) == [Reason.UNLIKE_NODES]
    same = replace(new, capacity=old.capacity)
    assert reasons(viewed([holder, gang], [old, same], [attempt]), 1) == [Reason.SLOTS_TAKEN]


@pytest.mark.parametrize("parts", [1, 2], ids=["one node", "gang"])
def test_a_state_goes_on_where_the_same_numbers_are_computed(parts: int) -> None:
    """A job with a durable checkpoint waits for nodes like the one that made it; without one any node will do."""
    old, new, other, third = (
        node(name, capacity=replace(node(name).capacity, software=software))
        for name, software in (("a", "torch 2.11"), ("b", "torch 2.13"), ("c", "torch 2.13"), ("d", "torch 2.11"))
    )
    away = replace(old, lease_until_ms=NOW_MS - 1, state="UNREACHABLE")
    waits = job(1, needs=Needs(nodes=parts), checkpoint_node="b", durable_node="a", durable_step=10)
    view = viewed([waits], [away, new, other])
    assert reasons(view, 1) == ([Reason.NODES_AWAY] if parts == 1 else [Reason.UNLIKE_NODES])
    commands = "`tuneforge jobs submit --from-checkpoint j1/10`, then `tuneforge jobs cancel j1`"
    assert all(commands in each.cure for each in blocked(view, 1)), "that node may never come back"
    assert (found := told_of(1, view)) is not None
    assert (found.start, "nothing that is known would give it a node" in found.why) == (None, True)
    (only,) = blocked(viewed([replace(waits, durable_step=0)], [away, new, other]), 1)
    assert "Start a node like it." in only.cure
    assert "--from-checkpoint" not in only.cure, "it verifies"
    assert not [each for each in view.decisions if isinstance(each, Begin)]
    (begin,) = [each for each in viewed([waits], [old, new, other, third]).decisions if isinstance(each, Begin)]
    assert {place for place, _ in begin.parts} <= {"a", "d"}
    for free in (replace(waits, durable_node=None), replace(waits, durable_node="gone")):
        (begin,) = [each for each in viewed([free], [away, new, other]).decisions if isinstance(each, Begin)]
        assert {place for place, _ in begin.parts} <= {"b", "c"}


def test_memory_that_lacks_is_told_in_bytes() -> None:
    """The finding of a node names what it has, what it lacks, and how many bytes that is."""
    view = viewed([job(1, needs=Needs(peak_bytes=10_100_000_000))], [node("a")])
    (said,) = findings(view.moment.jobs[1].needs, view.order[0], view.moment.queue, view.moment.seen.nodes)
    assert (said.why_not, said.missing_bytes) == (
        "has 8.0 GB of memory on the host; it lacks 2.1 GB",
        2_100_000_000,
    )


def test_slots_quotas_holds_and_turns() -> None:
    """Who holds the slots, which quota is full, why the queue is held, and that others go first."""
    holder, attempt = running(9, "a")
    view = viewed([holder, job(1)], [node("a")], [attempt])
    assert reasons(view, 1) == [Reason.SLOTS_TAKEN]
    full = {"p": Project(max_jobs=1, max_devices=1)}
    view = viewed([holder, job(1)], [node("a"), node("b")], [attempt], projects=full)
    assert reasons(view, 1) == [Reason.PROJECT_DEVICES, Reason.PROJECT_JOBS]
    view = viewed([job(1)], [node("a")], projects={"p": Project(held="Its queue is paused.")})
    assert reasons(view, 1) == [Reason.QUEUE_HELD]
    view = viewed([job(1)], [node("a")], projects={"p": Project(held="5.0 of 5.0 device-hours are spent")})
    assert reasons(view, 1) == [Reason.BUDGET]
    assert reasons(viewed([job(1), job(2, priority=1)], [node("a")]), 1) == [Reason.OTHERS_FIRST]


@pytest.mark.parametrize(
    ("account", "cure"),
    [
        (Account(limits=Limits(is_paused=True)), "Let the queue go on"),
        (Account(limits=Limits(budget=Budget(device_ms=1)), spent=Spent(device_ms=2)), "Raise the limit of the queue"),
        (
            Account(
                limits=Limits(budget=Budget(device_ms=1, period=Period.DAY)),
                period_spent=Spent(device_ms=2),
                period_ms=(0, 24 * HOUR_MS),
            ),
            "Wait, or raise the limit of the queue",
        ),
        (
            Account(limits=Limits(window_device_ms=1, window_hours=24), window_ms=2),
            "Wait, or raise the limit of the queue",
        ),
    ],
)
def test_waiting_is_a_cure_only_where_time_brings_more(account: Account, cure: str) -> None:
    """A window rolls and a period ends; a budget for once, or a queue that somebody holds, needs somebody."""
    held = holding(account, Terms(now_ms=0))
    view = viewed([job(1)], [node("a")], projects={"p": Project(held=held)})
    said = findings(view.moment.jobs[1].needs, view.order[0], view.moment.queue, view.moment.seen.nodes)
    (blocker, *_) = of_waiting(view.moment.queue.waiting[0], view.moment, view.decisions, said)
    assert blocker.message == held
    assert blocker.cure == f"{cure}: `tuneforge queues`."


def test_nodes_that_are_kept_for_a_gang_block_a_small_job() -> None:
    """A gang that has waited long has a free node closed for others; the small job is told for whom."""
    holder, attempt = running(9, "b")
    gang = job(1, needs=Needs(nodes=2), queued_ms=NOW_MS - HOUR_MS)
    view = viewed([holder, gang, job(2)], [node("a"), node("b")], [attempt], rules=_patient())
    assert reasons(view, 2) == [Reason.NODES_KEPT]


def _patient() -> object:
    from services.scheduler.planning.queue import Rules

    return Rules(preempts=False)


def test_who_may_stop_a_running_job_is_told() -> None:
    """A waiting job of a higher class goes before a running one; a job that must not be stopped has nobody."""
    holder, attempt = running(9, "a")
    view = viewed([holder, job(1, priority=1), job(2)], [node("a")], [attempt])
    (runs,) = view.moment.queue.running
    assert [(each.job, each.is_due) for each in preemptors(runs, view)] == [(1, True)]
    assert reasons(view, 1) == [Reason.LEAVING]
    assert preemptors(replace(runs, is_preemptible=False), view) == ()


def test_a_simulation_tells_whom_it_stops_and_delays() -> None:
    """A job of a higher class stops the running one, is done first, and puts both others off."""
    holder, attempt = running(9, "a")
    view = viewed([holder, job(1)], [node("a")], [attempt])
    new = job(10, priority=1, create_ms=NOW_MS, queued_ms=NOW_MS)
    found = simulate(new, AN_HOUR, view, {})
    assert [number for number, _ in found.displaced] == [9]
    assert {each.job for each in found.delayed} == {1, 9}
    assert found.told.start is not None
    assert found.told.start.expected_ms - NOW_MS < MINUTE_MS
    assert found.nodes == ("a",)
    low = simulate(replace(new, priority=-1), AN_HOUR, view, {})
    assert (low.displaced, low.delayed) == ((), ())


@pytest.mark.parametrize("state", [JobState.PUBLISHING, JobState.PAUSED])
def test_a_simulated_job_waits_as_a_stored_one_does(state: JobState) -> None:
    """After one that only publishes it starts at once; after one that is paused nobody knows when."""
    after = job(2, state=JobState.BLOCKED, depends_on=1)
    first = job(1, state=state)
    found = simulate(after, AN_HOUR, viewed([first], [node("a")]), {})
    stored = viewed([first, after], [node("a")], dependencies={1: (str(first.name), state)})
    assert stored.outlooks.of(2).start == found.raw.of(2).start
    assert (found.told.start is None) == (state is JobState.PAUSED)


def test_later_turns_are_computed_from_the_work_before_them() -> None:
    """Beyond the first jobs of the order the turn is the work before it over the slots, and in order."""
    jobs = [job(number) for number in range(1, 31)]
    seen = viewed(jobs, [node("a", 2)]).moment
    found = foresee(seen.situation, seen.times, looked_at=10)
    assert (found.looked_at, len(found.order)) == (10, 30)
    starts = [found.of(number).start for number in found.order]
    assert all(start is not None for start in starts)
    expected = [start.expected_ms for start in starts if start is not None]
    assert expected == sorted(expected)
    last = starts[-1]
    assert last is not None
    assert last.expected_ms - NOW_MS == pytest.approx(29 / 2 * HOUR_MS, rel=0.01)
    assert last.earliest_ms < last.expected_ms < last.latest_ms


def test_run_times_come_from_the_best_that_is_known() -> None:
    """Measured steps first, then the prediction less what is done, then finished runs, then a guess."""
    estimate = Interval(expected=100.0, lowest=50.0, highest=200.0)
    steps = step_times([2.0, 2.0, 2.1, 1.9, 8.0])
    found = run_time(Facts(step=10, total_steps=60, has_node=True, steps=steps, estimate_s=estimate))
    assert (found.basis, round(found.left_ms.expected, -4)) == (Basis.STEPS, 100_000)
    assert found.left_ms.lowest < found.left_ms.expected < found.left_ms.highest
    half = run_time(Facts(step=30, total_steps=60, estimate_s=estimate))
    assert (half.basis, half.left_ms.expected) == (Basis.ESTIMATE, 50_000 + 8_000 + 3_000)
    overdue = run_time(Facts(has_node=True, held_ms=1_000_000, estimate_s=estimate))
    assert overdue.left_ms.expected == 0.05 * 100_000 + 11_000
    assert run_time(Facts(), [10.0, 20.0, 30.0]).basis is Basis.HISTORY
    assert run_time(Facts()).basis is Basis.GUESS


def test_jobs_of_others_are_counted_and_not_named() -> None:
    """A caller who may read one project is told how many jobs of another one are in the way, and no name of them."""
    holder, attempt = running(9, "a", name=JobName("secret", "j9"))
    view = viewed([holder, job(1), job(2, name=JobName("secret", "j2"), priority=1)], [node("a")], [attempt])
    waiting = next(each for each in view.order if each.job == 1)
    said = findings(Needs(), waiting, view.moment.queue, view.moment.seen.nodes)
    name_of = names_for(view, lambda project: project == "p")
    (blocker,) = blockers_to_proto(of_waiting(waiting, view.moment, view.decisions, said), name_of)
    assert (list(blocker.jobs), blocker.num_jobs) == ([], 1)
    assert "secret" not in blocker.message
    place = place_to_proto(place_of(waiting, view.order, view.moment.queue), name_of)
    assert (list(place.ahead), place.position) == ([], 2)
    assert name_of(1) == "projects/p/jobs/j1"
