"""The plan of one moment: who starts, who gives way, who is kept a place."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler.planning.plan import Begin, GiveWay, Keep, plan
from services.scheduler.planning.queue import HOUR_MS, Project, Queue, Room, Rules, Running, Waiting

MINUTE_MS = 60_000


def waits(job: int, **values: object) -> Waiting:
    """Returns a job that waits since moment 0."""
    defaults = {"project": "p", "submit_ms": 0, "queued_ms": 0}
    return Waiting(job=job, **{**defaults, **values})  # type: ignore[arg-type]


def runs(job: int, held: dict[str, int], **values: object) -> Running:
    """Returns a job that runs since moment 0."""
    defaults = {"project": "p", "submit_ms": 0, "start_ms": 0}
    return Running(job=job, held=held, **{**defaults, **values})  # type: ignore[arg-type]


def room(node: str, slots: int, free: int | None = None) -> Room:
    """Returns a node; idle unless told otherwise."""
    return Room(node=node, slots=slots, free=slots if free is None else free)


def begun(queue: Queue) -> list[int]:
    """Returns the jobs that a plan starts, in order."""
    return [each.job for each in plan(queue) if isinstance(each, Begin)]


def test_a_higher_class_goes_first_then_age() -> None:
    """Among jobs alike, class decides and then the time of submit."""
    queue = Queue(
        now_ms=MINUTE_MS,
        waiting=(waits(1, submit_ms=5), waits(2, submit_ms=3), waits(3, submit_ms=9, priority=1)),
        rooms=(room("a", 2),),
    )
    assert begun(queue) == [3, 2]


def test_a_job_that_has_run_less_goes_first() -> None:
    """Levels of attained work come before age."""
    queue = Queue(
        now_ms=MINUTE_MS,
        waiting=(waits(1, attained_ms=2 * HOUR_MS), waits(2, submit_ms=50)),
        rooms=(room("a", 1),),
    )
    assert begun(queue) == [2]


def test_a_project_above_its_share_goes_last() -> None:
    """Weights decide between projects: the one that had more than its share waits."""
    projects = {"big": Project(weight=1, usage_ms=9e6), "small": Project(weight=1, usage_ms=1e6)}
    queue = Queue(
        now_ms=MINUTE_MS,
        waiting=(waits(1, project="big"), waits(2, project="small", submit_ms=50)),
        rooms=(room("a", 1),),
        projects=projects,
    )
    assert begun(queue) == [2]


def test_small_jobs_fill_the_fullest_node() -> None:
    """Best fit: the empty node stays whole for a job that needs all of it."""
    queue = Queue(now_ms=0, waiting=(waits(1, slots=2), waits(2, slots=8)), rooms=(room("a", 8), room("b", 8, free=3)))
    assert [(each.job, each.parts) for each in plan(queue) if isinstance(each, Begin)] == [
        (1, (("b", 2),)),
        (2, (("a", 8),)),
    ]


def test_the_node_with_the_checkpoint_wins() -> None:
    """A job goes where its newest checkpoint is, when there is room."""
    queue = Queue(now_ms=0, waiting=(waits(1, prefers="a"),), rooms=(room("a", 8), room("b", 8, free=1)))
    assert [each.parts for each in plan(queue) if isinstance(each, Begin)] == [(("a", 1),)]


def test_a_gang_takes_all_its_parts_or_none() -> None:
    """Three nodes of which two have room hold no gang of three, and nothing is taken for it."""
    queue = Queue(
        now_ms=0,
        waiting=(waits(1, parts=3, slots=2), waits(2, slots=2, submit_ms=1)),
        rooms=(room("a", 2), room("b", 2), room("c", 2, free=1)),
    )
    assert begun(queue) == [2]


GANG_OF_TWO = waits(1, parts=2, priority=1)


@pytest.mark.parametrize(
    ("job", "found"),
    [
        (GANG_OF_TWO, ("a1", "a2")),
        (replace(GANG_OF_TWO, prefers="b2"), ("b2", "b1")),
        (replace(GANG_OF_TWO, prefers="c1"), ("a1", "a2")),
        (replace(GANG_OF_TWO, parts=3), ()),
        (replace(GANG_OF_TWO, parts=3, is_on_cpu=True), ("b1", "b2", "c2")),
        (replace(GANG_OF_TWO, parts=4, is_on_cpu=True), ()),
    ],
)
def test_a_gang_is_on_nodes_that_are_alike(job: Waiting, found: tuple[str, ...]) -> None:
    """In software, and in devices where it uses them; those come first that hold its checkpoint, if they are enough."""
    kinds = {
        "a1": ("torch 2.11", "H200"),
        "a2": ("torch 2.11", "H200"),
        "b1": ("torch 2.13", "A100"),
        "b2": ("torch 2.13", "A100"),
        "c1": ("torch 2.12", "A100"),
        "c2": ("torch 2.13", "H200"),
    }
    rooms = tuple(replace(room(node, 1), software=kind[0], device=kind[1]) for node, kind in kinds.items())
    begins = [each for each in plan(Queue(now_ms=0, waiting=(job,), rooms=rooms)) if isinstance(each, Begin)]
    assert [tuple(node for node, _ in each.parts) for each in begins] == [found] * bool(found)


def test_jobs_are_stopped_for_a_gang_on_nodes_that_are_alike() -> None:
    """A cheap stop beside a node of another kind would not help it; two dear ones do, and it is kept those nodes."""
    rooms = (room("a", 1), *(replace(room(node, 1, free=0), software="new") for node in "bc"))
    running = tuple(runs(9 + index, {node: 1}, loss_ms=5.0, restore_ms=0.0) for index, node in enumerate("bc"))
    decisions = plan(Queue(now_ms=HOUR_MS, waiting=(GANG_OF_TWO,), running=running, rooms=rooms))
    assert [each.job for each in decisions if isinstance(each, GiveWay)] == [9, 10]
    assert [each.nodes for each in decisions if isinstance(each, Keep)] == [("b", "c")]


def test_labels_are_kept() -> None:
    """A job starts on nodes that can hold it only."""
    queue = Queue(now_ms=0, waiting=(waits(1, nodes=frozenset({"b"})),), rooms=(room("a", 1), room("b", 1, free=0)))
    assert begun(queue) == []


def test_quotas_of_devices_and_jobs_are_kept() -> None:
    """A project gets no more than it may hold at once, and others are not kept waiting by it."""
    queue = Queue(
        now_ms=0,
        waiting=(
            waits(1, project="devices", slots=2),
            waits(2, project="devices", slots=2),
            waits(3, project="jobs"),
            waits(4, project="free", submit_ms=9),
        ),
        running=(runs(9, {"a": 1}, project="jobs"),),
        rooms=(room("a", 9, free=8),),
        projects={"devices": Project(max_devices=3), "jobs": Project(max_jobs=1)},
    )
    assert begun(queue) == [1, 4]


def test_the_job_whose_stop_loses_least_gives_way() -> None:
    """A young job is given the devices of the old one that has saved its state last."""
    old = {"attained_ms": 20 * HOUR_MS, "start_ms": 0}
    queue = Queue(
        now_ms=HOUR_MS,
        waiting=(waits(1, queued_ms=HOUR_MS),),
        running=(runs(8, {"a": 1}, loss_ms=9e5, **old), runs(9, {"a": 1}, loss_ms=1e5, **old)),
        rooms=(room("a", 2, free=0),),
    )
    stop, keep = plan(queue)
    assert isinstance(stop, GiveWay)
    assert (stop.job, stop.to_job, stop.loss_ms) == (9, 1, 1e5)
    assert "less work so far" in stop.why
    assert isinstance(keep, Keep)
    assert keep.job == 1


def test_a_loss_is_weighted_by_the_share_of_its_project() -> None:
    """A project with ten times the weight loses work when it is ten times cheaper."""
    old = {"attained_ms": 20 * HOUR_MS}
    queue = Queue(
        now_ms=HOUR_MS,
        waiting=(waits(1, queued_ms=HOUR_MS, project="new"),),
        running=(
            runs(8, {"a": 1}, project="heavy", loss_ms=3e5, **old),
            runs(9, {"a": 1}, project="light", loss_ms=1e5, **old),
        ),
        rooms=(room("a", 2, free=0),),
        projects={"heavy": Project(weight=10)},
    )
    assert [each.job for each in plan(queue) if isinstance(each, GiveWay)] == [8]


def test_nobody_is_stopped_within_the_quantum_or_against_the_rules() -> None:
    """A job that began lately, one that is dear to stop, one that may not be stopped, and any when nobody may be."""
    old = {"attained_ms": 20 * HOUR_MS}
    cases = {
        "young": (runs(9, {"a": 1}, start_ms=HOUR_MS - MINUTE_MS, **old), Rules()),
        "dear": (runs(9, {"a": 1}, loss_ms=HOUR_MS / 5, **old), Rules()),
        "fixed": (runs(9, {"a": 1}, is_preemptible=False, **old), Rules()),
        "never": (runs(9, {"a": 1}, **old), Rules(preempts=False)),
    }
    for name, (running, rules) in cases.items():
        queue = Queue(
            now_ms=HOUR_MS,
            waiting=(waits(1, queued_ms=HOUR_MS),),
            running=(running,),
            rooms=(room("a", 1, free=0),),
            rules=rules,
        )
        assert plan(queue) == [], name


def test_a_higher_class_waits_for_no_quantum() -> None:
    """What has just begun gives way to a higher class; between classes nobody changes places twice."""
    for priority, stopped in ((1, [9]), (0, [])):
        queue = Queue(
            now_ms=MINUTE_MS,
            waiting=(waits(1, priority=priority),),
            running=(runs(9, {"a": 1}, attained_ms=20 * HOUR_MS, loss_ms=1e9),),
            rooms=(room("a", 1, free=0),),
        )
        assert [each.job for each in plan(queue) if isinstance(each, GiveWay)] == stopped


def test_a_quota_that_is_full_is_made_room_in_by_the_own_project() -> None:
    """A job stops one of its own project that it goes before, as many as its quota asks and nobody else's; once."""
    lower = {"priority": -1}
    for limit, leaving, stopped in (
        (Project(max_devices=2), False, [8]),
        (Project(max_jobs=2), False, [8]),
        (Project(max_jobs=1), False, [8, 9]),
        (Project(max_jobs=2), True, []),
        (Project(max_jobs=2, held="paused"), False, []),
        (Project(max_devices=0), False, []),
    ):
        queue = Queue(
            now_ms=MINUTE_MS,
            waiting=(waits(1), waits(2, priority=-1)),
            running=(
                runs(7, {"a": 1}, project="other", **lower),
                runs(8, {"a": 1}, is_leaving=leaving, **lower),
                runs(9, {"a": 1}, loss_ms=5.0, **lower),
            ),
            rooms=(room("a", 4, free=1),),
            projects={"p": limit},
        )
        found = plan(queue)
        assert [each.job for each in found if isinstance(each, GiveWay)] == stopped, limit
        assert not any(isinstance(each, Begin) for each in found)


def test_guaranteed_devices_are_not_taken_for_others() -> None:
    """A project keeps what is guaranteed to it, beginning with its dearest job; its own jobs may take it."""
    for project, stopped in (("other", [8]), ("p", [8, 9])):
        queue = Queue(
            now_ms=MINUTE_MS,
            waiting=(waits(1, priority=1, project=project, slots=2), waits(2, priority=1, project=project)),
            running=(runs(8, {"a": 1}), runs(9, {"a": 1}, loss_ms=5.0)),
            rooms=(room("a", 2, free=0),),
            projects={"p": Project(guaranteed_devices=1)},
        )
        assert [each.job for each in plan(queue) if isinstance(each, GiveWay)] == stopped


def test_a_near_deadline_goes_first_in_its_class() -> None:
    """The latest start decides among urgent jobs, which go before those without; a higher class stays before them."""
    queue = Queue(
        now_ms=HOUR_MS,
        waiting=(
            waits(1),
            waits(2, submit_ms=9, urgent_ms=0, latest_start_ms=2 * HOUR_MS),
            waits(3, submit_ms=9, urgent_ms=0, latest_start_ms=HOUR_MS, attained_ms=90 * HOUR_MS),
            waits(4, submit_ms=9, priority=1),
            waits(5, submit_ms=8, urgent_ms=2 * HOUR_MS, latest_start_ms=3 * HOUR_MS),
        ),
        rooms=(room("a", 5),),
    )
    assert begun(queue) == [4, 3, 2, 1, 5]


def test_processor_and_memory_are_shared_out() -> None:
    """Slots alone do not hold a job: cores and host memory of what runs beside it count, a stop frees them too."""
    narrow = Room(
        node="a", slots=4, free=3, free_cpu_millis=1000, slot_cpu_millis=500, free_bytes=10, peaks_on_host=True
    )
    fits = {"plain": {}, "cores": {"cpu_millis": 1001}, "memory": {"host_bytes": 11}, "peak": {"peak_bytes": 11}}
    for name, asked in fits.items():
        queue = Queue(now_ms=0, waiting=(waits(1, **asked),), rooms=(narrow,))
        assert begun(queue) == ([1] if name == "plain" else []), name
        holds = runs(9, {"a": 1}, cpu_millis=400, host_bytes=5)
        queue = Queue(now_ms=0, waiting=(waits(1, priority=1, **asked),), running=(holds,), rooms=(narrow,))
        stopped = [each.job for each in plan(queue) if isinstance(each, GiveWay)]
        assert stopped == ([] if name == "plain" else [9]), name
    beside = Queue(now_ms=0, waiting=(waits(1, beside_bytes=11, peak_bytes=1),), rooms=(narrow,))
    assert begun(beside) == [1]  # what it takes beside an accelerator does not count where there is none
    assert begun(replace(beside, rooms=(replace(narrow, peaks_on_host=False),))) == []
    three = Queue(now_ms=0, waiting=(waits(1), waits(2), waits(3)), rooms=(narrow,))
    assert begun(three) == [1, 2]  # a slot's share of the cores is taken by whoever asks for none


def test_a_small_lead_stops_nobody() -> None:
    """Work just above the end of a level does not cost a running job its place."""
    queue = Queue(
        now_ms=2 * HOUR_MS,
        waiting=(waits(1, queued_ms=2 * HOUR_MS, attained_ms=0.9 * HOUR_MS),),
        running=(runs(9, {"a": 1}, attained_ms=1.1 * HOUR_MS),),
        rooms=(room("a", 1, free=0),),
    )
    assert plan(queue) == []


def test_nobody_more_is_stopped_while_others_are_leaving() -> None:
    """The slots of a job that was asked to leave are promised; a second plan asks no second job."""
    old = {"attained_ms": 20 * HOUR_MS}
    queue = Queue(
        now_ms=HOUR_MS,
        waiting=(waits(1, queued_ms=HOUR_MS),),
        running=(runs(8, {"a": 1}, is_leaving=True, **old), runs(9, {"a": 1}, **old)),
        rooms=(room("a", 2, free=0),),
    )
    (keep,) = plan(queue)
    assert isinstance(keep, Keep)


def test_slots_that_were_emptied_for_a_gang_are_not_given_away() -> None:
    """While the second node of a gang is being emptied, a small job does not slip into the first one."""
    old = {"attained_ms": 20 * HOUR_MS}
    queue = Queue(
        now_ms=HOUR_MS,
        waiting=(waits(1, parts=2, slots=2, priority=1), waits(2)),
        running=(runs(9, {"b": 2}, is_leaving=True, **old),),
        rooms=(room("a", 2, free=2), room("b", 2, free=0)),
    )
    assert begun(queue) == []


def test_a_large_job_that_waited_long_is_kept_a_place() -> None:
    """Small jobs go round the nodes that it needs, and only those."""
    queue = Queue(
        now_ms=HOUR_MS,
        waiting=(waits(1, slots=8), waits(2, queued_ms=HOUR_MS, submit_ms=9), waits(3, queued_ms=HOUR_MS, submit_ms=9)),
        running=(runs(9, {"a": 2}, is_preemptible=False), runs(8, {"b": 7}, is_preemptible=False)),
        rooms=(room("a", 8, free=6), room("b", 8, free=1)),
    )
    decisions = plan(queue)
    assert [each.nodes for each in decisions if isinstance(each, Keep)] == [("a",)]
    assert begun(queue) == [2]


def test_nobody_starves() -> None:
    """A job that fell to the lowest level goes first again after a long wait."""
    queue = Queue(
        now_ms=10 * HOUR_MS,
        waiting=(waits(1, attained_ms=90 * HOUR_MS, submit_ms=0), waits(2, submit_ms=5, queued_ms=10 * HOUR_MS)),
        rooms=(room("a", 1),),
    )
    assert begun(queue) == [1]


NODES = ("a", "b", "c")


@st.composite
def queues(draw: st.DrawFn) -> Queue:
    """Makes moments that are possible: what runs fits on its nodes."""
    sizes = {node: draw(st.integers(1, 8)) for node in NODES}
    free = dict(sizes)
    running = []
    for number in range(draw(st.integers(0, 6))):
        nodes = [node for node in NODES if free[node] and draw(st.booleans())]
        if not nodes:
            continue
        held = {node: draw(st.integers(1, free[node])) for node in nodes}
        for node, count in held.items():
            free[node] -= count
        running.append(
            runs(
                100 + number,
                held,
                project=draw(st.sampled_from("xyz")),
                priority=draw(st.integers(0, 1)),
                start_ms=draw(st.integers(0, HOUR_MS)),
                attained_ms=draw(st.floats(0, 50 * HOUR_MS)),
                loss_ms=draw(st.floats(0, HOUR_MS)),
                is_preemptible=draw(st.booleans()),
                is_leaving=draw(st.booleans()),
            )
        )
    waiting = tuple(
        waits(
            number,
            project=draw(st.sampled_from("xyz")),
            priority=draw(st.integers(0, 1)),
            queued_ms=draw(st.integers(0, HOUR_MS)),
            attained_ms=draw(st.floats(0, 50 * HOUR_MS)),
            parts=draw(st.integers(1, 3)),
            slots=draw(st.integers(1, 8)),
            nodes=draw(st.none() | st.frozensets(st.sampled_from(NODES))),
        )
        for number in range(draw(st.integers(0, 8)))
    )
    return Queue(
        now_ms=HOUR_MS,
        waiting=waiting,
        running=tuple(running),
        rooms=tuple(room(node, sizes[node], free[node]) for node in NODES),
        projects={
            "x": Project(weight=2, usage_ms=draw(st.floats(0, 1e9)), max_devices=draw(st.none() | st.integers(0, 9)))
        },
    )


@given(queues())
@settings(max_examples=300)
def test_no_plan_breaks_a_promise(queue: Queue) -> None:
    """Slots are given once, gangs whole and where they may run; quotas hold; who is stopped may be stopped, once."""
    waiting = {job.job: job for job in queue.waiting}
    running = {job.job: job for job in queue.running}
    free = {room.node: room.free for room in queue.rooms}
    decisions = plan(queue)
    assert decisions == plan(queue)
    assert max(Counter(each.job for each in decisions).values(), default=0) <= 1
    held = sum(job.devices for job in queue.running if job.project == "x")
    for each in decisions:
        match each:
            case Begin(job=number, parts=parts):
                job = waiting[number]
                assert [count for _, count in parts] == [job.slots] * job.parts
                assert len({node for node, _ in parts}) == job.parts
                assert job.nodes is None or {node for node, _ in parts} <= job.nodes
                for node, count in parts:
                    free[node] -= count
                    assert free[node] >= 0
                held += job.parts * job.slots * (job.project == "x")
            case GiveWay(job=number, to_job=other):
                stopped = running[number]
                assert stopped.is_preemptible
                assert not stopped.is_leaving
                assert waiting[other].priority >= stopped.priority
                is_kept = any(isinstance(kept, Keep) and kept.job == other for kept in decisions)
                assert is_kept or (stopped.project == waiting[other].project == "x")  # for the quota alone
    limit = queue.project("x").max_devices
    started_x = [each for each in decisions if isinstance(each, Begin) and waiting[each.job].project == "x"]
    assert limit is None or not started_x or held <= limit


@given(queues())
@settings(max_examples=200)
def test_what_fits_alone_on_idle_nodes_starts(queue: Queue) -> None:
    """Nobody waits for a device that nobody wants: the first job of an idle cluster starts if it can at all."""
    idle = Queue(
        now_ms=queue.now_ms, waiting=queue.waiting[:1], rooms=tuple(room(each.node, each.slots) for each in queue.rooms)
    )
    for job in idle.waiting:
        able = [
            each for each in idle.rooms if each.slots >= job.slots and (job.nodes is None or each.node in job.nodes)
        ]
        assert (begun(idle) == [job.job]) == (len(able) >= job.parts)
