"""The planner run forward from a moment: it is the future when run times are exact."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler.foresight.forward import Forward, Later, Pace, Situation
from services.scheduler.planning.plan import Decision, plan
from services.scheduler.planning.queue import HOUR_MS, Project, Queue, Room, Rules, Running, Waiting
from services.scheduler.simulation.clock import Cluster, Course, Simulation
from services.scheduler.simulation.workload import SimulatedJob

MINUTE_MS = 60_000
NEVER_MS = 10**15
RULES = Rules(quantum_ms=5 * MINUTE_MS, level_ends_ms=(20 * MINUTE_MS, 2 * HOUR_MS), reserve_after_ms=10 * MINUTE_MS)


def waits(job: int, **values: object) -> Waiting:
    """Returns a job that waits since moment 0."""
    defaults = {"project": "p", "submit_ms": 0, "queued_ms": 0}
    return Waiting(job=job, **{**defaults, **values})  # type: ignore[arg-type]


def runs(job: int, held: dict[str, int], **values: object) -> Running:
    """Returns a job that runs since moment 0."""
    defaults = {"project": "p", "submit_ms": 0, "start_ms": 0}
    return Running(job=job, held=held, **{**defaults, **values})  # type: ignore[arg-type]


JOBS = st.lists(
    st.tuples(
        st.integers(0, 30 * MINUTE_MS),
        st.integers(1, 3 * HOUR_MS),
        st.sampled_from((1, 1, 1, 2, 4, 8)),
        st.sampled_from("abc"),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=40, deadline=None)
@given(rows=JOBS, skip=st.integers(0, 20), nodes=st.integers(1, 3))
def test_exact_run_times_give_the_very_future(rows: list[tuple[int, int, int, str]], skip: int, nodes: int) -> None:
    """From any moment after the last submit the run starts and ends every job when the simulated cluster does."""
    jobs = [
        SimulatedJob(number=number, project=project, submit_ms=submit, run_ms=run, devices=devices)
        for number, (submit, run, devices, project) in enumerate(rows)
        if devices <= 4 * nodes
    ]
    cluster = Cluster(nodes=nodes, devices_per_node=4, restore_ms=0, look_every_ms=NEVER_MS, weights={"a": 2.0})
    last_ms = max((job.submit_ms for job in jobs), default=0)
    seen: list[Situation] = []

    def looking(queue: Queue) -> list[Decision]:
        # After a stop the simulation also looks when the stopped attempt would have ended; nothing else knows of that.
        # And since when a job is leaving, a queue does not say.
        has_stopped = any(course.stops for course in simulation.courses.values())
        has_stopped = has_stopped or any(job.is_leaving for job in queue.running)
        if queue.now_ms >= last_ms and not has_stopped:
            seen.append(_situation(simulation, queue))
        return plan(queue)

    simulation = Simulation(jobs, cluster, looking, RULES)
    truth = simulation.run()
    if not seen:
        return
    begin = seen[min(skip, len(seen) - 1)]
    pace = Pace(restore_ms=0, coarse=0.0, look_every_ms=NEVER_MS, look_at_most_ms=NEVER_MS, horizon_ms=NEVER_MS // 2)
    found = Forward(begin, pace).run()
    waited = {job.job for job in begin.queue.waiting}
    assert {number: course.end_ms for number, course in found.items()} == {
        number: truth[number].end_ms for number in found
    }
    fresh = [number for number in waited if (truth[number].start_ms or 0) >= begin.queue.now_ms]
    assert [found[number].start_ms for number in fresh] == [truth[number].start_ms for number in fresh]


def _situation(simulation: Simulation, queue: Queue) -> Situation:
    """Returns what a run begins from, with the run times that the simulation knows."""
    left = {job.job: simulation.courses[job.job].left_ms for job in queue.waiting}
    for job in queue.running:
        course: Course = simulation.courses[job.job]
        left[job.job] = course.left_ms - (queue.now_ms - job.start_ms)
    again = {
        job.job: Waiting(
            job=job.job,
            project=job.project,
            submit_ms=job.submit_ms,
            queued_ms=job.start_ms,
            parts=len(job.held),
            slots=max(job.held.values()),
        )
        for job in queue.running
    }
    return Situation(queue=queue, left_ms=left, again=again)


def test_it_begins_from_unlike_nodes_and_running_jobs() -> None:
    """What runs ends by what is left of it, and the next job goes where it can."""
    queue = Queue(
        now_ms=1000,
        waiting=(waits(1, slots=2), waits(2, nodes=frozenset({"small"}), submit_ms=1)),
        running=(runs(3, {"large": 2}), runs(4, {"small": 1})),
        rooms=(Room(node="large", slots=2, free=0), Room(node="small", slots=1, free=0)),
    )
    found = Forward(Situation(queue=queue, left_ms={1: 500.0, 2: 50.0, 3: 300.0, 4: 900.0})).run()
    assert (found[3].end_ms, found[4].end_ms) == (1300, 1900)
    assert (found[1].start_ms, found[1].end_ms, found[1].nodes) == (1300, 1800, ("large",))
    assert (found[2].start_ms, found[2].end_ms, found[2].nodes) == (1900, 1950, ("small",))


def test_a_job_comes_later_or_after_another() -> None:
    """A job with a time starts then, one that waits for others once all have ended; what never ends has no end."""
    queue = Queue(now_ms=0, waiting=(waits(1), waits(4)), rooms=(Room(node="a", slots=5, free=5),))
    later = (
        Later(waiting=waits(2), at_ms=7000),
        Later(waiting=waits(3), at_ms=0, after=frozenset({1})),
        Later(waiting=waits(5), at_ms=0, after=frozenset({3, 4})),
        Later(waiting=waits(6), at_ms=900, after=frozenset({1})),
        Later(waiting=waits(7), at_ms=0, after=frozenset({1, 2})),
    )
    found = Forward(Situation(queue=queue, left_ms={1: 100.0, 3: 10.0, 4: 500.0, 5: 1.0, 6: 1.0}, later=later)).run()
    assert (found[3].start_ms, found[3].end_ms) == (100, 110)
    assert (found[2].start_ms, found[2].end_ms) == (7000, None)
    assert (found[5].start_ms, found[6].start_ms, found[7].start_ms) == (500, 900, None)


def test_who_gives_way_says_for_whom() -> None:
    """An old job is stopped for a young one, waits again with the work that is left, and pays its restore."""
    old = runs(1, {"a": 1}, attained_ms=20 * HOUR_MS, start_ms=-HOUR_MS)
    queue = Queue(now_ms=0, waiting=(waits(2),), running=(old,), rooms=(Room(node="a", slots=1, free=0),))
    pace = Pace(stop_ms=10_000, restore_ms=5_000)
    found = Forward(Situation(queue=queue, left_ms={1: 100_000.0, 2: 30_000.0}), pace).run()
    assert found[1].stops == [2]
    assert (found[2].start_ms, found[2].end_ms) == (10_000, 40_000)
    assert found[1].end_ms == 40_000 + 5_000 + 90_000


def test_a_run_is_bounded() -> None:
    """With little effort allowed it stops early and says nothing of the rest; a wanted job ends it too."""
    queue = Queue(now_ms=0, waiting=tuple(waits(job) for job in range(50)), rooms=(Room(node="a", slots=1, free=1),))
    left = dict.fromkeys(range(50), 1000.0)
    run = Forward(Situation(queue=queue, left_ms=left), replace(Pace(), effort=120))
    assert sum(course.end_ms is not None for course in run.run().values()) < 5
    run = Forward(Situation(queue=queue, left_ms=left))
    assert sum(course.end_ms is not None for course in run.run({3}).values()) == 4


def test_quotas_hold_in_the_run() -> None:
    """A project that may run one job at a time runs them one after another, with room for both."""
    queue = Queue(
        now_ms=0,
        waiting=(waits(1), waits(2)),
        rooms=(Room(node="a", slots=4, free=4),),
        projects={"p": Project(max_jobs=1)},
    )
    found = Forward(Situation(queue=queue, left_ms={1: 1000.0, 2: 1000.0})).run()
    assert [found[1].start_ms, found[2].start_ms] == [0, 1000]
