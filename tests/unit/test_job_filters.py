"""Which jobs a filter means: the pure rule and the database say the same of every job, on both databases."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.grpckit.database import Database
from services.scheduler.jobs import JobState
from services.scheduler.lifecycle.filters import JobFilter, JobOrder, matches
from services.scheduler.records import Job, NewJob, Ref
from services.scheduler.store import job_filters
from services.scheduler.store import jobs as job_store
from services.scheduler.store.transaction import Transaction
from tests.support.postgres import EACH_DATABASE
from tests.unit.test_scheduler_store import new_job, open_store
from tuneforge.names import JobName
from tuneforge.specs.scheduling import PriorityClass, Scheduling

pytestmark = EACH_DATABASE

FILTERS = st.builds(
    JobFilter,
    states=st.frozensets(st.sampled_from([JobState.QUEUED, JobState.CANCELLED, JobState.RUNNING]), max_size=2),
    labels=st.dictionaries(st.sampled_from(["team", "run"]), st.sampled_from(["", "a", "b"]), max_size=2),
    search=st.sampled_from(["", "J1", "%", "_", "ann", "5", "\\"]),
    output_model=st.sampled_from(["", "projects/p/models/m"]),
    base=st.sampled_from(["", "projects/p/models/m", "projects/p/models/m/versions/2", "projects/p/models/mm"]),
    dataset=st.sampled_from(["", "projects/p/datasets/d", "projects/p/datasets/d/versions/1"]),
    created_from_ms=st.sampled_from([None, 1005]),
    created_before_ms=st.sampled_from([None, 1010]),
    ended_from_ms=st.sampled_from([None, 2001]),
    ended_before_ms=st.sampled_from([None, 2004]),
    priorities=st.sampled_from([frozenset(), frozenset({0}), frozenset({-1, 1})]),
    sweep=st.sampled_from(["", "projects/p/sweeps/s", "projects/p/sweeps/s2"]),
)


def job_like(number: int) -> NewJob:
    """Returns one of many unlike jobs."""
    base = Ref(version=f"projects/p/models/{'m' * (1 + number % 2)}/versions/{1 + number % 3}", digest="a" * 64)
    new = replace(new_job(JobName("p", f"j{number}")), creator="Ann_%" if number % 4 == 0 else "bob")
    assert new.pinned is not None
    labels = {"team": "ab"[number % 2]} if number % 3 else {}
    train = Ref(version=f"projects/p/datasets/d/versions/{number % 2}", digest="b" * 64)
    trial = f"projects/p/sweeps/s{'2' * (number % 2)}/trials/{number}" if number % 4 else None
    scheduling = Scheduling(priority=list(PriorityClass)[number % 3])
    new = replace(new, labels=labels, train=train, pinned=replace(new.pinned, base=base))
    return replace(new, scheduling=scheduling, trial=trial)


def fill(database: Database) -> None:
    """Adds jobs at unlike times, some of which have ended, and one of another project."""
    numbers = []
    for number in range(16):
        add = job_like(number)
        moment = 1000 + number
        added = database.write_sync(lambda db: job_store.add(Transaction(db, moment), add, None))  # noqa: B023
        assert added is not None
        numbers.append(added.number)
    database.write_sync(lambda db: job_store.add(Transaction(db, 1), new_job(JobName("q", "j1")), None))
    for moment, ended in enumerate(numbers[3::2], 2000):
        step = job_store.Step(to=JobState.CANCELLED, reason="CANCEL_REQUESTED", message="m")
        assert database.write_sync(lambda db: job_store.advance(Transaction(db, moment), ended, step))  # noqa: B023


def pages(database: Database, wanted: JobFilter, order: JobOrder) -> list[Job]:
    """Returns all pages of a list, three jobs each."""
    found: list[Job] = []
    after = None
    for _ in itertools.count():
        page = database.read_sync(lambda db: job_filters.list_page(db, "p", wanted, order, after, 3))  # noqa: B023
        found += page
        if len(page) < 3:
            return found
        after = job_filters.page_key(page[-1], order)
    raise AssertionError


def test_the_rule_and_the_database_agree(tmp_path: Path) -> None:
    """A list has exactly the jobs that the rule takes, in its order, over all of its pages."""
    database = open_store(tmp_path)
    fill(database)
    everything = pages(database, JobFilter(), JobOrder.OLDEST)
    assert [job.name.job for job in everything] == [f"j{number}" for number in range(16)]

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(wanted=FILTERS, order=st.sampled_from(list(JobOrder)))
    def check(wanted: JobFilter, order: JobOrder) -> None:
        expected = [job for job in everything if matches(job, wanted)]
        if order is JobOrder.NEWEST:
            expected.reverse()
        if order is JobOrder.ENDED_LAST:
            expected = sorted((job for job in expected if job.end_ms), key=lambda job: -(job.end_ms or 0))
        assert [job.name for job in pages(database, wanted, order)] == [job.name for job in expected]

    try:
        check()
    finally:
        database.close()
