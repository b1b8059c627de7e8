"""What projects were given, against the real store: over any history, everything that was held counts exactly once."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update

from services.grpckit.database import Database
from services.scheduler.jobs import AttemptEnd, AttemptState, Failure, RetryPolicy
from services.scheduler.planning.shares import given
from services.scheduler.queues.accounts import Account, Terms, first_hour, open_books
from services.scheduler.queues.budgets import HOUR_MS, Budget
from services.scheduler.queues.limits import Limits
from services.scheduler.queues.periods import Period, bounds
from services.scheduler.records import Attempt, Needs
from services.scheduler.store import attempts as attempt_store
from services.scheduler.store import jobs as job_store
from services.scheduler.store import nodes as node_store
from services.scheduler.store import placing, tables, usage
from services.scheduler.store import queues as queue_store
from services.scheduler.store.transaction import Transaction
from tests.support.postgres import EACH_DATABASE
from tests.unit.test_scheduler_store import NODE, new_job, open_store
from tuneforge.names import JobName

pytestmark = EACH_DATABASE

PROJECTS = ("a", "b", "c")
WINDOW_HOURS = {"a": 3, "b": 744}
PERIODS = {"a": Period.DAY, "b": Period.WEEK, "c": Period.MONTH}
WATTS = 3.0
ENDS = [
    AttemptEnd(state=AttemptState.INTERRUPTED),
    AttemptEnd(state=AttemptState.LOST, failure=Failure(reason="NODE_LOST", message="gone")),
    AttemptEnd(state=AttemptState.SUCCEEDED),
    AttemptEnd(state=AttemptState.FAILED, failure=Failure(reason="LOSS_NOT_FINITE", message="nan", is_user_fault=True)),
]
EVENTS = 80


@dataclass
class Holding:
    """A part of an attempt as the test knows it."""

    project: str
    slots: int
    start_ms: int
    end_ms: int | None = None

    def device_ms(self, now_ms: int, from_ms: int = 0) -> int:
        """Returns what it was given since a moment."""
        until_ms = now_ms if self.end_ms is None else self.end_ms
        return self.slots * max(0, until_ms - max(self.start_ms, from_ms))


@dataclass
class History:
    """A random life of some jobs."""

    folder: Path
    chance: random.Random
    database: Database
    now_ms: int = 500_000 * HOUR_MS
    held: dict[tuple[int, int], Holding] = field(default_factory=dict)
    """By token and rank."""
    parts: list[Attempt] = field(default_factory=list)

    def write(self, run: Any) -> Any:
        """Runs a write at this moment."""
        return self.database.write_sync(lambda db: run(Transaction(db, self.now_ms)))

    def add(self) -> None:
        """A job is created."""
        name = JobName(self.chance.choice(PROJECTS), f"j{self.chance.getrandbits(40)}")
        needs = Needs(nodes=self.chance.randint(1, 2), devices=self.chance.choice([None, 1, 4]))
        self.write(lambda tx: job_store.add(tx, replace(new_job(name), needs=needs), None))

    def place(self) -> None:
        """Some queued job gets its nodes."""
        query = select(tables.jobs.c.number, tables.jobs.c.nodes).where(tables.jobs.c.state == "QUEUED")
        queued = self.database.read_sync(lambda db: db.execute(query).all())
        if not queued:
            return
        row = self.chance.choice(queued)
        placed = self.write(
            lambda tx: placing.place(tx, placing.Placing(job=row.number, nodes=["n1", "n2"][: row.nodes], why="room"))
        )
        for each in placed:
            self.held[each.part] = Holding(each.name.project, each.slots, self.now_ms)
            self.parts.append(each)
        self.write(lambda tx: tx.connection.execute(update(tables.attempts).values(watts=WATTS)))

    def finish(self) -> None:
        """Some part of some attempt ends, perhaps one that has ended long ago."""
        if not self.parts:
            return
        part = self.chance.choice(self.parts[-8:])
        ending = attempt_store.Ending(
            attempt=part, end=self.chance.choice(ENDS), retry=RetryPolicy(budget=100), jitter=0.0
        )
        self.write(lambda tx: attempt_store.finish(tx, ending))
        holding = self.held[part.part]
        if holding.end_ms is None:
            holding.end_ms = self.now_ms

    def pass_time(self) -> None:
        """Time goes by: a moment, hours, days, or up to the end of a period and a moment beyond."""
        ends = [bounds(period, self.now_ms)[1] - self.now_ms for period in PERIODS.values()]
        self.now_ms += self.chance.choice([1, 700, 90_000, 2 * HOUR_MS + 7, 30 * HOUR_MS, *ends, ends[0] - 1])

    def restart(self) -> None:
        """The scheduler is started anew over the same database."""
        self.database.close()
        self.database.open()

    def accounts(self) -> dict[str, Account]:
        """Returns how the store says that projects stand."""

        def look(connection: Connection) -> dict[str, Account]:
            books = usage.books(connection, self.now_ms)
            live = attempt_store.open_ones(connection)
            return dict(open_books(books, (), live, Terms(now_ms=self.now_ms), PROJECTS).accounts)

        return self.database.read_sync(look)

    def check(self) -> None:
        """Compares the store with what was held."""
        for project, account in self.accounts().items():
            mine = [each for each in self.held.values() if each.project == project]
            assert account.spent.device_ms == sum(each.device_ms(self.now_ms) for each in mine)
            assert account.held.devices == sum(each.slots for each in mine if each.end_ms is None)
            decayed = sum(given(each.slots, each.start_ms, each.end_ms or self.now_ms, self.now_ms) for each in mine)
            assert account.usage_ms == pytest.approx(decayed, rel=1e-6, abs=1.0)
            if hours := WINDOW_HOURS.get(project):
                from_ms = first_hour(self.now_ms, hours) * HOUR_MS
                assert account.window_ms == sum(each.device_ms(self.now_ms, from_ms) for each in mine)
            start_ms, end_ms = bounds(PERIODS[project], self.now_ms)
            assert account.period_ms == (start_ms, end_ms)
            within = sum(each.device_ms(self.now_ms, start_ms) for each in mine)
            assert account.budget_spent == account.period_spent
            assert account.period_spent.device_ms == within
            assert account.period_spent.joules == pytest.approx(within / 1000 * WATTS)
        query = select(tables.jobs.c.attained_ms)
        attained = self.database.read_sync(lambda db: sum(db.execute(query).scalars()))
        ended = [each for each in self.held.values() if each.end_ms is not None]
        assert attained == sum(each.device_ms(self.now_ms) for each in ended)


def test_everything_that_was_held_counts_once(tmp_path: Path) -> None:
    """Gangs, lost nodes, repeated ends, restarts: the sum over projects is the device time that was held."""
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    history = History(folder=tmp_path, chance=random.Random(seed), database=open_store(tmp_path))
    try:
        for name in ("n1", "n2"):
            history.write(lambda tx, name=name: node_store.register(tx, replace(NODE, node=name), 10_000))
        for project, period in PERIODS.items():
            hours, budget = WINDOW_HOURS.get(project, 0), Budget(device_ms=1e12, period=period)
            limits = Limits(window_device_ms=1, window_hours=hours, budget=budget, revision=1)
            history.write(lambda tx, project=project, limits=limits: queue_store.keep(tx, project, limits))
        for _ in range(8):
            history.add()
        steps = [history.add, history.place, history.place, history.finish, history.finish, history.pass_time]
        for number in range(EVENTS):
            history.chance.choice(steps)()
            if number % 40 == 39:
                history.restart()
            history.check()
        assert any(each.end_ms for each in history.held.values())
    finally:
        history.database.close()


def test_thousands_of_projects_have_periods_and_windows(tmp_path: Path) -> None:
    """A look at all of them is one statement that the database takes."""
    database, now_ms = open_store(tmp_path), 50 * 24 * HOUR_MS
    names = [f"p{number}" for number in range(1100)]
    used = [{"project": name, "decayed_ms": 0.0, "as_of_ms": 0, "device_ms": 5, "joules": 1.0} for name in names]
    hours = [{"project": name, "hour": now_ms // HOUR_MS, "device_ms": 5, "joules": 1.0} for name in names]

    def fill(connection: Connection) -> None:
        for number, name in enumerate(names):
            budget = Budget(device_ms=1e12, period=list(PERIODS.values())[number % 3])
            limits = Limits(window_device_ms=9, window_hours=3, budget=budget, revision=1)
            queue_store.keep(Transaction(connection, now_ms), name, limits)
        connection.execute(insert(tables.usage), used)
        connection.execute(insert(tables.usage_hours), hours)

    try:
        database.write_sync(fill)
        found = database.read_sync(lambda db: usage.books(db, now_ms)).usage
    finally:
        database.close()
    assert {(each.window_ms, each.period_spent.device_ms) for each in found.values()} == {(5, 5.0)}
    assert len(found) == len(names)
