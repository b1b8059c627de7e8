"""Hypothesis chooses what happens to jobs, nodes, the clock and the scheduler itself, on SQLite and on PostgreSQL.

The real loop, verbs and store run on a virtual clock; after each step the doctor looks at the database, and at the end
everything has to come to rest. `make chaos` tries many more courses of things than `make test`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, create_engine

from tests.support.chaos.record import FULL, keep
from tests.support.chaos.world.clock import VirtualLoop
from tests.support.chaos.world.disk import Disk
from tests.support.chaos.world.faults import strike
from tests.support.chaos.world.script import FAULTS, Fault, Script, Story, Wish
from tests.support.chaos.world.users import serve_wish
from tests.support.chaos.world.world import World
from tests.support.postgres import TestDatabases

EXAMPLES = {"sqlite": 200, "postgres": 40} if FULL else {"sqlite": 12, "postgres": 4}
STEPS = 30 if FULL else 15


class Lifecycle(RuleBasedStateMachine):
    """Jobs on two nodes, and all that may come in between."""

    server: Connection | None = None
    """Where the database is; None: SQLite in memory."""
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        story = Story(nodes=(1, 2), jobs={}, wishes=(), faults=(), budget=50)
        self.world = World(seed=0, story=story, chance=random.Random(0), disk=Disk(self.server))

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        """Runs something in the world's time."""
        return self.loop.run_until_complete(self.loop.create_task(step, name="world"))

    @initialize()
    def begin(self) -> None:
        """Scheduler and nodes are up."""
        self.run(self.world.begin())

    @precondition(lambda self: len(self.world.story.jobs) < 4)
    @rule(
        saves_every=st.integers(1, 2),
        is_durable=st.booleans(),
        fails_at=st.sampled_from((0, 0, 2)),
        nodes=st.integers(1, 2),
    )
    def create(self, saves_every: int, is_durable: bool, fails_at: int, nodes: int) -> None:
        """A user creates a job."""
        name = f"j{len(self.world.story.jobs) + 1}"
        self.world.story.jobs[name] = Script(saves_every, is_durable, fails_at, nodes)
        self.ask("create", name)

    @precondition(lambda self: self.world.story.jobs)
    @rule(data=st.data(), verb=st.sampled_from(("cancel", "pause", "resume")))
    def act(self, data: st.DataObject, verb: str) -> None:
        """A user asks for a verb, fitting or not."""
        self.ask(verb, data.draw(st.sampled_from(sorted(self.world.story.jobs))))

    def ask(self, verb: str, job: str) -> None:
        """Lets a user ask until there is an answer, beside what happens else."""

        async def begin() -> None:
            self.world.spawn(serve_wish(self.world, Wish(0.0, verb, job)))

        Lifecycle.steps += 1
        self.run(begin())

    @rule(seconds=st.sampled_from((0.05, 0.5, 1.0, 3.0, 8.0)))
    def wait(self, seconds: float) -> None:
        """Time passes."""

        async def sleep() -> None:
            await asyncio.sleep(seconds)

        Lifecycle.steps += 1
        self.run(sleep())

    @rule(
        kind=st.sampled_from(FAULTS),
        node=st.integers(0, 1),
        lasts_s=st.sampled_from((0.2, 1.0, 5.0, 9.0)),
        count=st.sampled_from((1, 2, 3, 5, 20)),
    )
    def fault(self, kind: str, node: int, lasts_s: float, count: int) -> None:
        """Something breaks, and is whole again after a while."""

        async def begin() -> None:
            self.world.spawn(strike(self.world, Fault(0.0, kind, node, lasts_s, count)))

        Lifecycle.steps += 1
        self.run(begin())

    @invariant()
    def database_is_sound(self) -> None:
        """The doctor finds nothing, and nothing was undone since the last step."""
        self.world.look()
        assert not self.world.problems, (self.world.problems, self.world.lines)

    def teardown(self) -> None:
        """Once faults stop, every job ends, every node is empty, and users got what they were promised."""
        outcome = self.run(self.world.finish())
        self.loop.close()
        assert not outcome.problems, (outcome.problems, outcome.lines)


@pytest.mark.chaos
def test_any_course_of_things_keeps_the_promises(each_database: str, request: Any) -> None:
    """Whatever happens in whatever order, every promise is kept after each step, and everything ends."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False)
    Lifecycle.steps, Lifecycle.server, engine = 0, None, None
    if each_database == "postgres":
        databases: TestDatabases = request.getfixturevalue("postgres_databases")
        address = databases.of("scheduler", request.getfixturevalue("tmp_path"))
        engine = create_engine(address.url.set(drivername="postgresql+psycopg"))
        Lifecycle.server = engine.connect()
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    chosen = settings(
        max_examples=EXAMPLES[each_database], stateful_step_count=STEPS, deadline=None, suppress_health_check=checks
    )
    try:
        run_state_machine_as_test(Lifecycle, settings=chosen)
    finally:
        if Lifecycle.server is not None and engine is not None:
            Lifecycle.server.close()
            engine.dispose()
        structlog.configure(**before)
    facts = {"examples": EXAMPLES[each_database], "steps": Lifecycle.steps, "violations": 0}
    keep(f"lifecycle_{each_database}", f"Hypothesis over the life of jobs on {each_database}.", facts)
