"""Rules of queues and budgets: what changes, what is looser, when a budget is spent, what is counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.jobs import AttemptState, JobState
from services.scheduler.planning.order import standings as planned_standings
from services.scheduler.planning.queue import Queue, Waiting
from services.scheduler.queues.accounts import Books, Terms, Usage, open_books
from services.scheduler.queues.budgets import HOUR_MS, Budget, Held, Spent, overrun, shortfalls
from services.scheduler.queues.limits import DEFAULT_LIMITS, Limits
from services.scheduler.queues.periods import Period
from services.scheduler.queues.standing import count_jobs, standings
from services.scheduler.queues.updating import changed, loosened
from services.scheduler.records import ActiveJob, Attempt, Needs
from services.scheduler.store.usage import by_hour
from tuneforge.names import JobName

NOW_MS = 1_000 * HOUR_MS


def job(number: int, project: str = "p", **fields: object) -> ActiveJob:
    """Returns a job that waits."""
    plain = ActiveJob(
        number=number,
        name=JobName(project, f"j{number}"),
        state=JobState.QUEUED,
        token=0,
        depends_on=None,
        not_before_ms=0,
        lost_after_ms=1,
        needs=Needs(),
        checkpoint_node=None,
        create_ms=0,
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


def part(number: int, since_ms: int, project: str = "p", slots: int = 1, **fields: object) -> Attempt:
    """Returns a part of an attempt that runs since a moment."""
    plain = Attempt(
        job=number,
        name=JobName(project, f"j{number}").attempt(1),
        node="n1",
        token=number,
        state=AttemptState.RUNNING,
        is_confirmed=True,
        is_closed=False,
        failure=None,
        outcome=None,
        resumed_step=0,
        step=0,
        last_seq=0,
        create_ms=since_ms,
        end_ms=None,
        slots=slots,
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


@given(start_ms=st.integers(0, 10**13), length_ms=st.integers(-HOUR_MS, 200 * HOUR_MS), slots=st.integers(1, 64))
def test_hours_of_an_attempt_sum_to_all_of_it(start_ms: int, length_ms: int, slots: int) -> None:
    """Whatever hours an attempt crosses, no millisecond is lost or counted twice; a clock that went back gives none."""
    found = list(by_hour(part(1, start_ms, slots=slots), start_ms + length_ms))
    assert sum(ms for _, ms in found) == slots * max(0, length_ms)
    assert [hour for hour, _ in found] == sorted({hour for hour, _ in found})
    assert all(0 < ms <= slots * HOUR_MS for _, ms in found)


limits = st.builds(
    Limits,
    weight=st.sampled_from([0.5, 1.0, 2.0]),
    max_devices=st.integers(0, 3),
    max_jobs=st.integers(0, 2),
    max_waiting_jobs=st.integers(0, 2),
    window_device_ms=st.integers(0, 2),
    window_hours=st.integers(0, 2),
    guaranteed_devices=st.integers(0, 2),
    budget=st.builds(
        Budget, device_ms=st.integers(0, 2), cost=st.integers(0, 2), price_per_hour=st.sampled_from([1.0, 2.0])
    ),
)


@given(before=limits, after=limits)
def test_what_is_no_looser_can_be_taken_back_only_by_an_operator(before: Limits, after: Limits) -> None:
    """A change that only tightens is free; its reverse is a loosening of the same fields, unless they are equal."""
    assert not loosened(before, before, 0)
    there, back = set(loosened(before, after, 0)), set(loosened(after, before, 0))
    assert not there & back
    if not there and not back:
        same = ("weight", "max_devices", "max_jobs", "max_waiting_jobs", "window_device_ms", "guaranteed_devices")
        assert all(getattr(before, name) == getattr(after, name) for name in same)


def test_a_mask_takes_what_it_names() -> None:
    """Whole groups, single fields, and the currency and price together with the cost."""
    wanted = Limits(weight=3.0, max_jobs=5, max_devices=7, budget=Budget(device_ms=9.0, cost=2.0, currency="EUR"))
    assert changed(DEFAULT_LIMITS, wanted, ["quota.max_jobs"]) == replace(DEFAULT_LIMITS, max_jobs=5)
    assert changed(DEFAULT_LIMITS, wanted, ["quota"]) == replace(DEFAULT_LIMITS, max_jobs=5, max_devices=7)
    assert changed(DEFAULT_LIMITS, wanted, ["budget.cost"]).budget == replace(wanted.budget, device_ms=0.0)
    assert changed(wanted, DEFAULT_LIMITS, ["budget"]).budget.is_empty


def test_a_shorter_period_is_more_to_spend() -> None:
    """The same sum for a day instead of a week, or for a week instead of once, is an operator's to give."""
    once, week, day = (
        Limits(budget=Budget(device_ms=9.0, period=period)) for period in (None, Period.WEEK, Period.DAY)
    )
    assert loosened(once, week, 0) == loosened(week, day, 0) == ["budget.period"]
    assert not loosened(day, week, 0)
    assert not loosened(week, once, 0)
    assert not loosened(DEFAULT_LIMITS, day, 0)


def test_what_was_spent_in_a_week_counts_in_the_month_that_takes_its_place() -> None:
    """Where the month began after the Monday, an admin of the project alone cannot leave the week's spending behind."""
    week, month = (Limits(budget=Budget(device_ms=9.0, period=period)) for period in (Period.WEEK, Period.MONTH))
    monday = round(datetime(2026, 6, 29, tzinfo=UTC).timestamp()) * 1000
    found = [loosened(week, month, monday + day * 24 * HOUR_MS) for day in range(8)]
    assert found == [[], [], *[["budget.period"]] * 5, []]


@pytest.mark.parametrize(
    ("budget", "spent", "is_over"),
    [
        (Budget(), Spent(device_ms=1e12, joules=1e12), False),
        (Budget(device_ms=1000), Spent(device_ms=799), False),
        (Budget(device_ms=1000), Spent(device_ms=800), True),
        (Budget(joules=10), Spent(joules=9.7), False),
        (Budget(joules=10), Spent(joules=9.8), True),
        (Budget(cost=2.0, price_per_hour=1.0), Spent(device_ms=1.9 * HOUR_MS), False),
        (Budget(cost=2.0, price_per_hour=1.0), Spent(device_ms=2.0 * HOUR_MS), True),
    ],
)
def test_what_is_spent_before_the_next_look_counts(budget: Budget, spent: Spent, is_over: bool) -> None:
    """Two devices that take one watt each spend 200 device-milliseconds and 0.2 J within a look of 100 ms."""
    assert bool(overrun(budget, spent, held=Held(devices=2, watts=2.0), ahead_ms=100)) is is_over


def test_shortfalls_name_budget_and_prediction() -> None:
    """Each part of a budget that is too small is named; energy that nobody can predict is said to be so."""
    expected = Spent(device_ms=20_000, joules=50)
    budget = Budget(device_ms=10_000, joules=10, cost=0.001, currency="EUR", price_per_hour=3.6)
    assert len(shortfalls(budget, expected, is_energy_known=True)) == 3
    assert not shortfalls(Budget(device_ms=30_000), expected, is_energy_known=False)
    assert "counters" in shortfalls(Budget(joules=1e9), Spent(), is_energy_known=False)[0]


def test_jobs_are_paused_by_their_own_budget_and_by_their_projects() -> None:
    """Running ones for both; of those that wait only who has spent its own, the others are held in the queue."""
    books = Books(
        limits={"p": Limits(budget=Budget(device_ms=5_000))},
        usage={"p": Usage(as_of_ms=NOW_MS, spent=Spent(device_ms=4_000))},
    )
    jobs = [
        job(1, state=JobState.RUNNING),
        job(2),
        job(3, budget=Budget(device_ms=10), spent=Spent(device_ms=10)),
        job(4, "q", state=JobState.RUNNING, budget=Budget(device_ms=1_500)),
        job(5, "q", state=JobState.PAUSING, budget=Budget(device_ms=1)),
        job(6, "q", state=JobState.RUNNING),
    ]
    parts = [part(1, NOW_MS - 1_000), part(4, NOW_MS - 600, "q", slots=2), part(6, NOW_MS - 9_000, "q")]
    found = open_books(books, jobs, parts, Terms(now_ms=NOW_MS, ahead_ms=200))
    assert [each.job for each in found.spent] == [1, 3, 4]
    assert "budget of its project" in found.projects["p"].held
    assert not found.projects["q"].held


def test_no_weight_vanishes_beside_another() -> None:
    """What is stored from before there was a smallest weight does not stop the planner for everybody."""
    books = Books(
        limits={"p": Limits(weight=5e-324), "q": Limits(weight=1e6)},
        usage={"p": Usage(decayed_ms=9_000, as_of_ms=NOW_MS), "q": Usage(decayed_ms=1_000, as_of_ms=NOW_MS)},
    )
    projects = open_books(books, [job(1), job(2, "q")], (), Terms(now_ms=NOW_MS)).projects
    waiting = tuple(Waiting(job=1, project=name, submit_ms=0, queued_ms=0) for name in "pq")
    found = planned_standings(Queue(now_ms=NOW_MS, waiting=waiting, projects=projects))
    assert found["p"].over > found["q"].over > 0.0


def test_shares_are_of_projects_with_jobs() -> None:
    """Who has nothing to run leaves its share to the others; usage halves in a day."""
    day = 24 * HOUR_MS
    books = Books(
        limits={"p": Limits(weight=3.0), "idle": Limits(weight=6.0)},
        usage={
            "p": Usage(decayed_ms=2_000, as_of_ms=NOW_MS - day),
            "q": Usage(decayed_ms=3_000, as_of_ms=NOW_MS),
            "idle": Usage(decayed_ms=5e9, as_of_ms=NOW_MS),
        },
    )
    jobs = [job(1), job(2, "q", state=JobState.RUNNING), job(3, "idle", state=JobState.PAUSED)]
    accounts = open_books(books, jobs, (), Terms(now_ms=NOW_MS)).accounts
    found = {each.project: each for each in standings(accounts, count_jobs(jobs))}
    assert (found["p"].share, found["q"].share, found["idle"].share) == (0.25, 0.75, 0.0)
    assert (found["p"].target, found["q"].target, found["idle"].target) == (0.75, 0.25, 0.6)
